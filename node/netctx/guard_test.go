package netctx

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGuardNamesAWay(t *testing.T) {
	guard, err := Guard()
	if err != nil && !errors.Is(err, ErrNoGuard) {
		t.Fatal(err)
	}
	if (guard == "") != (err != nil) {
		t.Errorf("guard %q and error %v", guard, err)
	}
}

// TestHooksCloseAbstractSockets is the way where Landlock has no scopes; on a
// newer kernel both are there.
func TestHooksCloseAbstractSockets(t *testing.T) {
	have, err := haveUnixHooks()
	if err != nil {
		t.Fatal(err)
	}
	if !have {
		t.Fatal("this kernel has no connect_unix (6.7)")
	}
	name := fmt.Sprintf("netctx-test-%d", os.Getpid())
	path := filepath.Join(t.TempDir(), "socket")
	for _, addr := range []string{"@" + name, path} {
		l, err := net.Listen("unix", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d, err := net.ListenPacket("unixgram", addr+"-dgram")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
	}
	for _, p := range []string{path, path + "-dgram", filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cg := newCgroup(t)
	if err := closeUnix(cg); err != nil {
		t.Fatal(err)
	}
	closed, open := guestProcess(t, cg, 666), guestProcess(t, newCgroup(t), 667)
	for _, c := range []struct {
		name    string
		m       *machine
		addr    string
		refused bool
	}{
		{"an abstract socket", closed, "@" + name, true},
		{"a socket in the file system", closed, path, false},
		{"an abstract socket without the programs", open, "@" + name, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, kind := range []string{"stream", "dgram", "dgram connected"} {
				call := call{Op: "unix connect", Path: c.addr, Args: [3]int{unix.SOCK_STREAM}}
				switch kind {
				case "dgram":
					call.Op = "unix sendto"
					fallthrough
				case "dgram connected":
					call.Args[0], call.Path = unix.SOCK_DGRAM, c.addr+"-dgram"
				}
				err := c.m.do(call).err()
				if c.refused && !errors.Is(err, unix.EPERM) || !c.refused && err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			}
		})
	}
}
