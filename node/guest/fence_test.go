package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Until its program runs, a guest's first process may be on the host's root.
func TestNobodyEntersAGuestThatIsBeingStarted(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "unborn", 150, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, os.MkdirAll("/run/vservers", 0o755))
	lock, err := os.OpenFile("/run/vservers/nat.lock", os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer lock.Close()
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX)) // its start stops here once the process exists
	started := make(chan error, 1)
	go func() { started <- h.Start(ctx, g.Name, Options{}) }()
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	for until := time.Now().Add(10 * time.Second); ; unix.Poll(nil, 5) {
		if pid, err := cg.Init(); err == nil && pid != 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatal("no process comes")
		}
	}
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	if _, err := h.Exec(context.Background(), g.Name, Program{Argv: []string{"true"}, Stdin: null, Stdout: null, Stderr: null}); !errors.Is(err, procctx.ErrNotRunning) {
		t.Errorf("entered: %v", err)
	}
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_UN))
	must(t, <-started)
	if _, code := run(t, h, g.Name, "true"); code != 0 {
		t.Error("afterwards it cannot be entered")
	}
}

func TestWhoeverCallsDoesNotShowInside(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	g := inMode(api.ModeShared, "plain", 151, "sh", "-c", "umask >/etc/umask; ulimit -n >>/etc/umask; exec sleep 1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	if got, _ := run(t, h, g.Name, "sh", "-c", "umask; ulimit -n; while ! test -s /etc/umask; do sleep 0.01; done; cat /etc/umask"); got != "0022\n1024\n0022\n1024" {
		t.Errorf("mask and files of an exec and of init: %q", got)
	}
}

// A guest may divide its cgroup as it likes; the host has to cope.
func TestGuestsOwnCgroupsDoNotHinderTheHost(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "divides", 152, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	out, code := run(t, h, g.Name, "sh", "-c", "busybox mkdir /sys/fs/cgroup/t && echo threaded >/sys/fs/cgroup/t/cgroup.type")
	if code != 0 {
		t.Fatalf("make a threaded cgroup: %s", out)
	}
	name := strings.Repeat("d", 250)
	out, _ = run(t, h, g.Name, "sh", "-c", "cd /sys/fs/cgroup; n=0; while busybox mkdir "+name+" 2>/dev/null && cd "+name+"; do n=$((n+1)); done; echo $n")
	if out == "" || out == "0" {
		t.Fatalf("so many below one another: %q", out)
	}
	states, err := h.States(ctx)
	if err != nil || len(states) != 1 || states[0].Status != api.Running || states[0].Problem != "" {
		t.Errorf("states %+v, %v", states, err)
	}
	if _, code := run(t, h, g.Name, "true"); code != 0 {
		t.Error("it cannot be entered")
	}
	_, err = h.Stop(ctx, g.Name)
	must(t, err)
	must(t, h.Delete(ctx, g.Name))
}

// An init that passes no signal on, such as a shell, must not get a database killed.
func TestWhatInitLeavesIsAskedToEnd(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "asks", 153, "sh", "-c",
		"sh -c 'trap \"echo written >/etc/mark; exit\" TERM; echo >/etc/ready; while :; do sleep 0.02; done' & wait")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	run(t, h, g.Name, "sh", "-c", "while ! test -e /etc/ready; do sleep 0.01; done")
	_, err := h.Stop(ctx, g.Name)
	must(t, err)
	if b, err := os.ReadFile(filepath.Join(h.rootDir(g.Name), "etc/mark")); err != nil || string(b) != "written\n" {
		t.Errorf("it wrote %q, %v", b, err)
	}
}

func TestCreateThatWasKilledIsTakenUp(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "again", 154, "sleep", "1000")
	must(t, h.closeData())
	must(t, os.Mkdir(h.data(g.Name), 0o700)) // killed before the mark was made
	must(t, h.Create(ctx, g))
	must(t, os.WriteFile(h.incompleteMark(g.Name), nil, 0o600)) // killed after the configuration was written
	must(t, h.Start(ctx, g.Name, Options{}))
	if _, err := os.Lstat(h.incompleteMark(g.Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark stays: %v", err)
	}
}

func TestNamesThatAreNotGuests(t *testing.T) {
	for name, ok := range map[string]bool{
		"www": true, "b.example": true, "memory": true, "lock": true,
		"cgroup.procs": false, "memory.max": false, "nat.lock": false, "": false, ".www": false, "a/b": false, "-x": false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
