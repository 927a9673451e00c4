package netctx

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenersThatTakeAPort(t *testing.T) {
	h := host(t)
	shared := spec(120, []string{"22/tcp", "80/tcp", "53/udp"}, hostAddr)
	shared6 := spec(120, []string{"22/tcp"}, hostAddr6)
	own := www()
	for _, c := range []struct {
		name   string
		family int
		kind   int
		addr   string
		v6only bool
		spec   Spec
		found  bool
		every  bool // it is on all addresses, which Wildcards finds
	}{
		{"sshd on every address", unix.AF_INET, unix.SOCK_STREAM, "0.0.0.0:22", false, shared, true, true},
		{"sshd on every address, of a guest with an address of its own", unix.AF_INET, unix.SOCK_STREAM, "0.0.0.0:22", false, own, true, true},
		{"sshd on the host's address alone", unix.AF_INET, unix.SOCK_STREAM, "10.77.0.1:22", false, own, false, false},
		{"sshd on the shared address", unix.AF_INET, unix.SOCK_STREAM, "10.77.0.1:22", false, shared, true, false},
		{"one socket for both families", unix.AF_INET6, unix.SOCK_STREAM, "[::]:22", false, shared, true, true},
		{"every IPv6 address alone, and the guest has none", unix.AF_INET6, unix.SOCK_STREAM, "[::]:22", true, shared, false, true},
		{"every IPv6 address alone", unix.AF_INET6, unix.SOCK_STREAM, "[::]:22", true, shared6, true, true},
		{"every IPv4 address, and the guest has none", unix.AF_INET, unix.SOCK_STREAM, "0.0.0.0:22", false, shared6, false, true},
		{"the guest's address as IPv6", unix.AF_INET6, unix.SOCK_STREAM, "[::ffff:10.77.0.10]:22", false, own, true, false},
		{"another port", unix.AF_INET, unix.SOCK_STREAM, "0.0.0.0:23", false, shared, false, true},
		{"the port of another protocol", unix.AF_INET, unix.SOCK_STREAM, "0.0.0.0:53", false, shared, false, true},
		{"a UDP service", unix.AF_INET, unix.SOCK_DGRAM, "0.0.0.0:53", false, shared, true, true},
		{"localhost", unix.AF_INET, unix.SOCK_STREAM, "127.0.0.1:22", false, own, false, false},
		{"a UDP client on an ephemeral port", unix.AF_INET, unix.SOCK_DGRAM, "0.0.0.0:0", false, own, false, false},
		{"a DHCP client", unix.AF_INET, unix.SOCK_DGRAM, "0.0.0.0:68", false, own, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.t = t
			fd := h.mustSocket(c.family, c.kind, 0)
			defer h.close(fd)
			if c.v6only {
				h.must("set V6ONLY", h.setsockopt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, word(1)))
			}
			h.must("set REUSEADDR", h.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
			h.must("bind", h.bind(fd, c.addr))
			if c.kind == unix.SOCK_STREAM {
				h.must("listen", h.listen(fd))
			}
			got, err := Listeners(t.Context(), c.spec)
			if err != nil {
				t.Fatal(err)
			}
			at := h.sockname(fd)
			i := slices.IndexFunc(got, func(l Listener) bool { return l.Addr == at })
			if (i >= 0) != c.found {
				t.Fatalf("found %v", got)
			}
			all, err := Wildcards(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if every := slices.ContainsFunc(all, func(l Listener) bool { return l.Addr == at && l.PID == os.Getpid() }); every != c.every {
				t.Errorf("on all addresses are %v", all)
			}
			if i >= 0 {
				if want := fmt.Sprintf("%s (pid %d) on %s/%s", processName(os.Getpid()), os.Getpid(), at, got[i].Proto); got[i].String() != want {
					t.Errorf("%q, want %q", got[i], want)
				}
			}
		})
	}
}

func TestTheGuestsOwnSocketsAreNoStrangers(t *testing.T) {
	s := www()
	g, _ := newGuest(t, s)
	g.server(unix.AF_INET, "0.0.0.0:22")
	got, err := Listeners(t.Context(), s)
	if err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	s.XID = 667
	if got, err = Listeners(t.Context(), s); err != nil || len(got) != 1 || got[0].PID != g.pid {
		t.Errorf("to another guest it is one: %v, %v", got, err)
	}
}

func FuzzParseSocket(f *testing.F) {
	m := make([]byte, diagMessageSize)
	m[0] = unix.AF_INET6
	f.Add(m)
	f.Add(append(m, 5, 0, diagV6Only, 0, 1, 0, 0, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, m []byte) {
		k, err := parseSocket(m)
		if err == nil && !k.addr.IsValid() {
			t.Errorf("%+v", k)
		}
	})
}

func FuzzSocketInode(f *testing.F) {
	f.Add("socket:[12345]")
	f.Add("pipe:[1]")
	f.Add("socket:[")
	f.Fuzz(func(t *testing.T, link string) {
		if n, ok := socketInode(link); ok && strings.TrimLeft(link[len("socket:["):], "0") != strings.TrimLeft(fmt.Sprintf("%d]", n), "0") {
			t.Errorf("%q is %d", link, n)
		}
	})
}

// TestTheNameOfAProcessIsItsOwnChoice, and is shown on the administrator's terminal.
func TestTheNameOfAProcessIsItsOwnChoice(t *testing.T) {
	old, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile("/proc/self/comm", old, 0)
	if err := os.WriteFile("/proc/self/comm", []byte("\x1b[2J\x1b]0;x"), 0); err != nil {
		t.Fatal(err)
	}
	if got, want := processName(os.Getpid()), `\x1b[2J\x1b]0;x`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
