package node

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// TestAHostLockKeepsRunsOff takes the lock of a person, which ends by a release or by
// itself.
func TestAHostLockKeepsRunsOff(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	a, b := hostIn(dir), hostIn(dir)
	lock := api.Lock{Run: "20261128T120000Z-0123abcd", Owner: "root@ctl", Reason: "new disks", For: time.Hour}
	if err := a.Lock(ctx, lock); err == nil {
		t.Error("locked without the lease")
	}
	takeLease(t, a, "1")
	if err := a.Lock(ctx, lock); err != nil {
		t.Fatal(err)
	}
	release(t, a)
	got, err := b.Lease(ctx, api.Lease{Holder: holder("2")})
	if err != nil || got.Held || got.By.Owner != "root@ctl" || got.By.Reason != "new disks" || got.By.Run != lock.Run || time.Until(got.By.Until) < 50*time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	locks, err := b.Locks(ctx)
	if err != nil || locks.Lease != nil || locks.Lock == nil || locks.Lock.Reason != "new disks" {
		t.Errorf("%+v, %v", locks, err)
	}
	if err := b.PutFiles(ctx, api.PutFiles{Guest: "www", Path: "/etc"}, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "locked by root@ctl until") {
		t.Errorf("files are put into a guest of a locked host: %v", err)
	}
	ended, err := b.Unlock(ctx, api.Unlock{Wait: time.Minute})
	if err != nil || ended.Lock == nil || ended.Lock.Owner != "root@ctl" || ended.Lease != nil {
		t.Errorf("%+v, %v", ended, err)
	}
	takeLease(t, b, "3")
	if locks, err := a.Locks(ctx); err != nil || locks.Lock != nil || locks.Lease == nil || locks.Lease.Run != "3" || time.Since(locks.Heard) > time.Minute {
		t.Errorf("%+v, %v", locks, err)
	}
	lock.For = time.Millisecond
	if err := b.Lock(ctx, lock); err != nil {
		t.Fatal(err)
	}
	release(t, b)
	takeLease(t, hostIn(dir), "4")
}

// The heartbeat of a lease is the time when its controller was last heard.
func TestHeartbeat(t *testing.T) {
	dir := t.TempDir()
	h := hostIn(dir)
	h.Heard() // without the lease there is nothing to note
	takeLease(t, h, "1")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(h.leaseFile(), old, old); err != nil {
		t.Fatal(err)
	}
	if locks, err := h.Locks(t.Context()); err != nil || time.Since(locks.Heard) < time.Minute {
		t.Errorf("%+v, %v", locks, err)
	}
	h.Heard()
	if locks, err := h.Locks(t.Context()); err != nil || time.Since(locks.Heard) > time.Minute {
		t.Errorf("%+v, %v", locks, err)
	}
}

// Unlock ends the process that holds the lease, if it is the one that says so.
func TestUnlockEndsTheHolder(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	h := hostIn(dir)
	if ended, err := h.Unlock(ctx, api.Unlock{}); err != nil || ended.Lease != nil || ended.Lock != nil {
		t.Errorf("nothing is locked: %+v, %v", ended, err)
	}
	takeLease(t, h, "gone") // makes the files
	release(t, h)
	hold := func() *exec.Cmd {
		cmd := exec.Command("flock", "--no-fork", h.leaseFile(), "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		waitFor(t, "the lock", func() bool {
			locks, err := h.Locks(ctx)
			return err == nil && locks.Lease != nil
		})
		return cmd
	}
	cmd := hold()
	if _, err := h.Unlock(ctx, api.Unlock{}); err == nil || !strings.Contains(err.Error(), "is not the vsnode that noted itself there") {
		t.Errorf("another process was ended: %v", err)
	}
	by := holder("dead")
	by.Node = cmd.Process.Pid
	f, err := os.OpenFile(h.leaseFile(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeHolder(f, by); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	if ended, err := h.Unlock(ctx, api.Unlock{Wait: 10 * time.Second}); err != nil || ended.Lease == nil || ended.Lease.Run != "dead" {
		t.Errorf("%+v, %v", ended, err)
	}
	takeLease(t, h, "next")
}

// A session does not end itself.
func TestUnlockOfOneself(t *testing.T) {
	h := hostIn(t.TempDir())
	takeLease(t, h, "1")
	if _, err := h.Unlock(t.Context(), api.Unlock{}); err == nil || !strings.Contains(err.Error(), "this session itself") {
		t.Error(err)
	}
}
