package netctx

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/probe"
)

func TestGuardNamesAWay(t *testing.T) {
	guard, err := Guard()
	if err != nil && !errors.Is(err, probe.ErrMissing) {
		t.Fatal(err)
	}
	if (guard == "") != (err != nil) {
		t.Errorf("guard %q and error %v", guard, err)
	}
	for _, way := range []struct {
		guard   UnixGuard
		ability *probe.Ability
	}{{GuardLandlock, probe.Landlock}, {GuardHooks, probe.UnixHooks}, {GuardLSM, probe.BPFLSM}} {
		if got := probe.Ask(way.ability); got.Verdict == api.Unknown {
			t.Errorf("%s: %s", way.ability.Name, got.Detail)
		}
		if string(way.guard) != way.ability.Name {
			t.Errorf("guard %q is ability %q", way.guard, way.ability.Name)
		}
	}
}

// TestAbstractSocketsAreClosed tests every way that this kernel supports, even those
// that Guard would not choose. There must be at least one.
func TestAbstractSocketsAreClosed(t *testing.T) {
	ways := map[string]func(cgroup *os.File, xid int) error{}
	if probe.Want(probe.UnixHooks) == nil {
		ways["hooks"] = func(cgroup *os.File, _ int) error { return closeUnix(cgroup) }
	}
	if probe.Want(probe.BPFLSM) == nil {
		ways["security module"] = func(cgroup *os.File, xid int) error {
			id, err := cgroupID(cgroup)
			if err != nil {
				return err
			}
			return closeUnixLSM(xid, id)
		}
	}
	if len(ways) == 0 {
		t.Fatal("needs kernel 6.7, or bpf among the security modules")
	}
	name := fmt.Sprintf("netctx-test-%d", os.Getpid())
	path := filepath.Join(t.TempDir(), "socket")
	for _, addr := range []string{"@" + name, path} {
		listenUnix(t, addr)
	}
	for _, p := range []string{path, path + "-dgram", filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for way, shut := range ways {
		cg := newCgroup(t)
		if err := shut(cg, 666); err != nil {
			t.Fatal(err)
		}
		// A process with the same ids in another cgroup is a user of the host.
		guest, user := guestProcess(t, cg, 666), guestProcess(t, newCgroup(t), 666)
		for _, c := range []struct {
			name    string
			m       *machine
			addr    string
			refused bool
		}{
			{"an abstract socket", guest, "@" + name, true},
			{"a socket in the file system", guest, path, false},
			{"an abstract socket, by somebody else", user, "@" + name, false},
		} {
			t.Run(way+": "+c.name, func(t *testing.T) {
				for _, call := range []call{
					{Op: "unix connect", Path: c.addr, Args: [3]int{unix.SOCK_STREAM}},
					{Op: "unix connect", Path: c.addr + "-dgram", Args: [3]int{unix.SOCK_DGRAM}},
					{Op: "unix sendto", Path: c.addr + "-dgram", Args: [3]int{unix.SOCK_DGRAM}},
				} {
					err := c.m.do(call).err()
					if c.refused && !errors.Is(err, unix.EPERM) || !c.refused && err != nil {
						t.Errorf("%s %s: %v", call.Op, call.Path, err)
					}
				}
			})
		}
		t.Run(way+": an abstract socket of another guest", func(t *testing.T) {
			otherCgroup := newCgroup(t)
			if err := shut(otherCgroup, 667); err != nil {
				t.Fatal(err)
			}
			other := guestProcess(t, otherCgroup, 667)
			other.must("listen", other.do(call{Op: "unix listen", Path: "@" + name + "-other"}).err())
			for _, m := range []*machine{guest, guestProcess(t, below(t, cg), 666)} {
				err := m.do(call{Op: "unix connect", Path: "@" + name + "-other", Args: [3]int{unix.SOCK_STREAM}}).err()
				if !errors.Is(err, unix.EPERM) {
					t.Errorf("connected: %v", err)
				}
			}
		})
		if way == "hooks" {
			continue // they cannot tell
		}
		t.Run(way+": the guest's own abstract socket", func(t *testing.T) {
			own := guest.do(call{Op: "unix listen", Path: "@" + name + "-own"})
			guest.must("listen", own.err())
			guest.must("connect", guest.do(call{Op: "unix connect", Path: "@" + name + "-own", Args: [3]int{unix.SOCK_STREAM}}).err())
		})
	}
}

// listenUnix receives streams at a name, and datagrams at name-dgram.
func listenUnix(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	d, err := net.ListenPacket("unixgram", addr+"-dgram")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	})
}

// below creates a cgroup in the guest's, as systemd does in a guest.
func below(t *testing.T, cgroup *os.File) *os.File {
	t.Helper()
	dir := filepath.Join(cgroup.Name(), "below")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		waitFor(t, "the cgroup to be empty", func() bool { return unix.Rmdir(dir) == nil })
	})
	return f
}
