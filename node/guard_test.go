package node

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// asGuard has the test binary be `vsnode guard` for the host in a directory.
const asGuard = "VSNODE_TEST_GUARD"

// onHost is set in the test binary that runs the tests.
const onHost = "VSNODE_TEST_ON_HOST"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asGuard); dir != "" && len(os.Args) > 1 && os.Args[1] == dir {
		if err := hostIn(dir).Guard(context.Background()); err != nil {
			panic(err)
		}
		return
	}
	for as, do := range map[string]func(dir string) error{asHashify: beHashify, asNext: beNext} {
		if dir := os.Getenv(as); dir != "" {
			if err := do(dir); err != nil {
				panic(err)
			}
			return
		}
	}
	if os.Getenv(onHost) == "" {
		if err := os.Chmod("/proc/self/exe", 0o700); err != nil { // or no guest is started
			panic(err)
		}
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), onHost+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET} // guests' networks are not this machine's
		if err := cmd.Run(); err != nil {
			os.Exit(1)
		}
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func hostIn(dir string) *Host {
	return &Host{
		Guests: &guest.Host{
			Paths: guest.Paths{ConfigDir: dir + "/etc", DataDir: dir + "/data", RunDir: dir + "/run", LogDir: dir + "/log"},
			Tree:  func(context.Context, string, string) (string, error) { return dir, nil },
		},
		guardCommand: []string{"/proc/self/exe", dir},
	}
}

// guards returns the number of guards that wait for a host.
func guards(t *testing.T, dir string) (n int) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		if b, err := os.ReadFile(path); err == nil && bytes.HasSuffix(b, []byte("\x00"+dir+"\x00")) {
			n++
		}
	}
	return n
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited too long for " + what)
		}
	}
}

// guarded is a host with two guests, each called as before, and a session that has
// leased it for the run "first".
func guarded(t *testing.T) (dir string, session *Host) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-test-guard-")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asGuard, dir)
	t.Cleanup(func() {
		os.Remove(dir + "/data/.guard")
		waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
		os.RemoveAll(dir)
	})
	session = hostIn(dir)
	for i, name := range []string{"one", "two"} {
		g := api.Guest{Name: name, Context: 910 + i, Hostname: "before", Image: "sha256:test", Init: api.Init{Style: "plain"}}
		g.Network.Mode, g.Network.Dev = api.ModeOwn, "eth0"
		g.Network.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 24)}
		if err := session.Guests.Create(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	takeLease(t, session, "first")
	return dir, session
}

func takeLease(t *testing.T, h *Host, run string) *api.Reverted {
	t.Helper()
	answer, err := h.Lease(t.Context(), api.Lease{Holder: holder(run)})
	if err != nil || !answer.Held {
		t.Fatalf("%+v, %v", answer, err)
	}
	t.Cleanup(func() { release(t, h) })
	return answer.Reverted
}

func names(t *testing.T, h *Host) string {
	t.Helper()
	var list []string
	for _, name := range []string{"one", "two"} {
		c, err := h.Guests.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c.Hostname)
	}
	return strings.Join(list, " ")
}

// rename gives guests other hostnames, guarded.
func rename(t *testing.T, h *Host, within time.Duration, guests ...string) error {
	t.Helper()
	req := api.Apply{Run: "first", Guard: &api.Guard{Guests: guests, Within: within}}
	for _, name := range guests {
		c, err := h.Guests.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		c.Hostname = "after"
		req.Steps = append(req.Steps, api.Step{Kind: api.StepConfigure, Name: name, Guest: &c.Guest})
	}
	answer, err := h.Apply(t.Context(), req, func(e api.Event) {
		if e.Kind == api.Warning {
			t.Error(e.Message)
		}
	})
	for _, r := range answer.Results {
		if r.Outcome != api.Changed {
			t.Errorf("%+v", r)
		}
	}
	return err
}

func TestGuard(t *testing.T) {
	put := func(t *testing.T, r *api.Reverted, guests ...string) {
		t.Helper()
		if r == nil || r.Run != "first" || r.Owner != "root@ctl" || r.Reason != "apply" || strings.Join(r.Guests, " ") != strings.Join(guests, " ") ||
			r.Error != "" || time.Since(r.Time) > time.Minute {
			t.Errorf("reverted: %+v, want %v", r, guests)
		}
	}
	for _, row := range []struct {
		name string
		then func(t *testing.T, dir string, session *Host) // after both are renamed
		want string
	}{
		{"a controller that comes back keeps its changes", func(t *testing.T, dir string, session *Host) {
			if got, err := hostIn(dir).Confirm(t.Context(), api.Confirm{Run: "first"}); err != nil || got.Reverted != nil {
				t.Errorf("%+v, %v", got, err)
			}
			waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
			if _, err := hostIn(dir).Confirm(t.Context(), api.Confirm{Run: "first"}); err == nil {
				t.Error("confirmed twice")
			}
		}, "after after"},
		{"nobody comes back, and the next run is told", func(t *testing.T, dir string, session *Host) {
			soon(t, session)
			waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
			if err := rename(t, session, time.Hour, "one"); err == nil || !strings.Contains(err.Error(), "have been put back") {
				t.Errorf("the run goes on: %v", err)
			}
			release(t, session)
			next := hostIn(dir)
			put(t, takeLease(t, next, "second"), "one", "two")
			release(t, next)
			if r := takeLease(t, hostIn(dir), "third"); r != nil {
				t.Errorf("told twice: %+v", r)
			}
		}, "before before"},
		{"the controller comes too late", func(t *testing.T, dir string, session *Host) {
			soon(t, session)
			waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
			got, err := hostIn(dir).Confirm(t.Context(), api.Confirm{Run: "first"})
			if err != nil {
				t.Error(err)
			}
			put(t, got.Reverted, "one", "two")
		}, "before before"},
		{"another run cannot confirm", func(t *testing.T, dir string, session *Host) {
			if got, err := hostIn(dir).Confirm(t.Context(), api.Confirm{Run: "second"}); err == nil {
				t.Errorf("%+v", got)
			}
		}, "after after"},
		{"another run that takes the lease puts back what nobody confirmed", func(t *testing.T, dir string, session *Host) {
			release(t, session)
			put(t, takeLease(t, hostIn(dir), "second"), "one", "two")
			waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
		}, "before before"},
		{"more steps of the run are guarded, too", func(t *testing.T, dir string, session *Host) {
			c, err := session.Guests.Read("two")
			if err != nil {
				t.Fatal(err)
			}
			c.Hostname = "later"
			if _, err := session.Apply(t.Context(), api.Apply{Run: "first", Steps: []api.Step{{Kind: api.StepConfigure, Name: "two", Guest: &c.Guest}}}, func(api.Event) {}); err != nil {
				t.Error(err)
			}
			if guards(t, dir) != 1 || names(t, session) != "after later" {
				t.Errorf("%d guards, %s", guards(t, dir), names(t, session))
			}
			soon(t, session)
			waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
		}, "before before"},
		{"the guard was killed: the confirmation comes too late all the same", func(t *testing.T, dir string, session *Host) {
			alter(t, session, func(g *guard) { g.Until = 1 })
			got, err := hostIn(dir).Confirm(t.Context(), api.Confirm{Run: "first"})
			if err != nil {
				t.Error(err)
			}
			put(t, got.Reverted, "one", "two")
		}, "before before"},
		{"the host was rebooted", func(t *testing.T, dir string, session *Host) {
			alter(t, session, func(g *guard) { g.Boot = "another" })
			waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
		}, "before before"},
		{"the session died within the steps", func(t *testing.T, dir string, session *Host) {
			alter(t, session, func(g *guard) { g.Until = 0 })
			waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
		}, "before before"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir, session := guarded(t)
			if err := rename(t, session, time.Hour, "one", "two"); err != nil {
				t.Fatal(err)
			}
			if names(t, session) != "after after" || guards(t, dir) != 1 {
				t.Fatalf("%s, %d guards", names(t, session), guards(t, dir))
			}
			row.then(t, dir, session)
			if got := names(t, session); got != row.want {
				t.Errorf("%s, want %s", got, row.want)
			}
		})
	}
}

// alter changes the guard's file as time does, and the guard notices.
func alter(t *testing.T, h *Host, change func(*guard)) {
	t.Helper()
	g, unlock, err := h.lockGuard(t.Context())
	if err != nil || g == nil {
		t.Fatalf("%+v, %v", g, err)
	}
	defer unlock()
	change(g)
	if err := h.writeGuard(*g); err != nil {
		t.Fatal(err)
	}
}

// soon lets the controller's time end in a moment.
func soon(t *testing.T, h *Host) {
	t.Helper()
	alter(t, h, func(g *guard) { g.Until -= time.Hour - 50*time.Millisecond })
}

// The guard waits for the steps, however long they take.
func TestGuardWaitsForTheSteps(t *testing.T) {
	dir, session := guarded(t)
	disarm, err := session.arm(t.Context(), "first", holder("first"), &api.Guard{Guests: []string{"one"}, Within: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the guard to begin", func() bool { return guards(t, dir) == 1 })
	if g, err := session.readGuard(); err != nil || g == nil || g.done() {
		t.Errorf("%+v, %v", g, err)
	}
	if err := disarm(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the guard to end", func() bool { return guards(t, dir) == 0 })
	if g, err := session.readGuard(); err != nil || g == nil || !g.done() {
		t.Errorf("%+v, %v", g, err)
	}
}
