package netctx

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// many is the spec of a guest with two addresses of each family.
func many(ports ...string) Spec { return spec(666, ports, wwwAddr, mailAddr, wwwAddr6, mailAddr6) }

// TestOneListenerAnswersOnAllAddresses: Apache, Java and Go listen on [::] for both
// families, and on a machine any of its addresses reaches them.
func TestOneListenerAnswersOnAllAddresses(t *testing.T) {
	four := []string{"10.77.0.10", "10.77.0.11", "127.0.0.1", "127.0.0.53"}
	six := []string{"fd77::10", "fd77::11", "::1"}
	all := append(four[:len(four):len(four)], six...)
	listen4 := func(g *machine) int { return g.server(unix.AF_INET, "0.0.0.0:8080") }
	listen6 := func(g *machine) int { return g.server6("[::]:8080") }
	listenBoth := func(g *machine) int { return g.server(unix.AF_INET6, "[::]:8080") }
	for _, c := range []struct {
		name     string
		guest    Spec
		listen   func(g *machine) int
		bound    string
		yes, not []string
	}{
		{"for both families", many(), listenBoth, "[::]:8080", all, nil},
		{"for both families, of a guest with that port", many("8080/tcp"), listenBoth, "[::]:8080", all, nil},
		{"for IPv4", many(), listen4, "0.0.0.0:8080", four, six},
		{"for IPv6", many(), listen6, "[::]:8080", six, four},
		{"for both families, of a guest with IPv6 only", spec(666, nil, wwwAddr6), listenBoth, "[::]:8080",
			[]string{"fd77::10", "::1", "127.0.0.1"}, []string{"fd77::11"}},
		{"for both families, of a guest with IPv4 only", spec(666, nil, wwwAddr), listenBoth, "[::]:8080",
			[]string{"10.77.0.10", "::1", "127.0.0.1"}, []string{"10.77.0.11", "fd77::10"}},
		{"at one address", many(), func(g *machine) int { return g.server(unix.AF_INET, "10.77.0.11:8080") }, "10.77.0.11:8080",
			[]string{"10.77.0.11"}, []string{"10.77.0.10", "127.0.0.1", "fd77::11"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, _ := newGuest(t, c.guest)
			h := host(t)
			l := c.listen(g)
			if got := g.sockname(l).String(); got != c.bound {
				t.Errorf("bound to %s, says the guest's socket", got)
			}
			dial := func(addr string) (family int, at string, from []*machine) {
				a := netip.MustParseAddr(addr)
				family, from = unix.AF_INET6, []*machine{g, h}
				if a.Is4() {
					family = unix.AF_INET
				}
				if a.IsLoopback() {
					from = from[:1]
				}
				return family, netip.AddrPortFrom(a, 8080).String(), from
			}
			for _, addr := range c.yes {
				family, at, from := dial(addr)
				for _, m := range from {
					if m.t = t; !t.Run(m.name+" to "+at, func(t *testing.T) {
						_, peer, _ := exchange(t, g, l, m, family, at)
						if peer.String() != at {
							t.Errorf("the server is %s to the client", peer)
						}
					}) {
						return
					}
				}
			}
			for _, addr := range c.not {
				family, at, from := dial(addr)
				for _, m := range from {
					fd := m.mustSocket(family, unix.SOCK_STREAM, 0)
					if err := m.connect(fd, at); err == nil {
						t.Errorf("%s reached %s", m.name, at)
					}
					m.close(fd)
				}
			}
		})
	}
}

// Two programs that listen on [::] and on 0.0.0.0 conflict, as on a machine; [::] for
// IPv6 only and 0.0.0.0 do not (nginx, sshd).
func TestListenersForBothFamiliesTakeThePort(t *testing.T) {
	g, _ := newGuest(t, www())
	both := g.server(unix.AF_INET6, "[::]:80")
	if err := g.bind(g.tcp4(), "0.0.0.0:80"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("0.0.0.0 beside [::] for both: %v", err)
	}
	g.close(both)
	g.server(unix.AF_INET, "0.0.0.0:80")
	g.server6("[::]:80")
}

// A guest's listener on the wildcard must not receive connections that are meant for
// somebody else.
func TestListenersOfOthersAreLeftAlone(t *testing.T) {
	h := host(t)
	two := netip.MustParsePrefix("10.77.0.11/24")
	t.Run("an address of which others have ports", func(t *testing.T) {
		a, _ := newGuest(t, spec(120, []string{"80/tcp"}, hostAddr, two))
		b, _ := newGuest(t, spec(125, []string{"25/tcp"}, two))
		bl := b.server(unix.AF_INET, "0.0.0.0:0")
		// The kernel gives the port to both: they are at different addresses.
		setting(t, "ip_local_port_range", fmt.Sprint(b.sockname(bl).Port(), " ", b.sockname(bl).Port()))
		al := a.server(unix.AF_INET, "0.0.0.0:0")
		if a.sockname(al).Port() != b.sockname(bl).Port() {
			t.Fatalf("ports %s and %s", a.sockname(al), b.sockname(bl))
		}
		setting(t, "ip_local_port_range", "32768 60999")
		at := netip.AddrPortFrom(two.Addr(), b.sockname(bl).Port()).String()
		exchange(t, b, bl, h, unix.AF_INET, at)
		exchange(t, a, al, a, unix.AF_INET, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.sockname(al).Port()).String())
	})
	t.Run("an address that the guest has not", func(t *testing.T) {
		a, _ := newGuest(t, many())
		a.server(unix.AF_INET6, "[::]:8081")
		hl := h.server(unix.AF_INET, "10.77.0.1:8081")
		defer h.close(hl)
		exchange(t, h, hl, a, unix.AF_INET, "10.77.0.1:8081")
		if err := h.connect(h.tcp4(), "127.0.0.1:8081"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the host's localhost: %v", err)
		}
	})
	t.Run("localhost of two guests", func(t *testing.T) {
		a, _ := newGuest(t, spec(120, []string{"80/tcp"}, hostAddr))
		b, _ := newGuest(t, spec(125, []string{"25/tcp"}, hostAddr))
		al, bl := a.server(unix.AF_INET, "0.0.0.0:80"), b.server(unix.AF_INET, "0.0.0.0:25")
		exchange(t, a, al, a, unix.AF_INET, "127.0.0.1:80")
		exchange(t, b, bl, b, unix.AF_INET, "127.0.0.1:25")
		if err := b.connect(b.tcp4(), "127.0.0.1:80"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("localhost of the other: %v", err)
		}
	})
	t.Run("one's own at just one address of localhost", func(t *testing.T) {
		g, _ := newGuest(t, www())
		stub := g.server(unix.AF_INET, "127.0.0.53:53")
		all := g.server(unix.AF_INET6, "[::]:53")
		exchange(t, g, stub, g, unix.AF_INET, "127.0.0.53:53")
		exchange(t, g, all, g, unix.AF_INET, "127.0.0.54:53")
		g.close(stub)
		exchange(t, g, all, g, unix.AF_INET, "127.0.0.53:53")
	})
}

// haproxy and nginx have several listeners on one port, and continue with those that
// are left.
func TestListenersThatShareAPort(t *testing.T) {
	g, _ := newGuest(t, many())
	h := host(t)
	reuse := func() int {
		fd := g.tcp6()
		g.must("set REUSEPORT", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, word(1)))
		g.must("bind", g.bind(fd, "[::]:8090"))
		g.must("listen", g.listen(fd))
		return fd
	}
	var old []int
	for range 6 {
		old = append(old, reuse())
	}
	next := reuse()
	for _, fd := range old {
		g.close(fd)
	}
	exchange(t, g, next, h, unix.AF_INET6, "[fd77::11]:8090")
	exchange(t, g, next, h, unix.AF_INET, "10.77.0.11:8090")
}

// The part that a guest can fill of the map shared by all is bounded, and freed.
func TestListenersOfAGuestAreBounded(t *testing.T) {
	g, _ := newGuest(t, spec(666, nil, wwwAddr, mailAddr))
	h := host(t)
	reached := func(port int) bool {
		fd := h.tcp4()
		defer h.close(fd)
		return h.connect(fd, fmt.Sprintf("10.77.0.11:%d", port)) == nil
	}
	const bound = 512
	var fds []int
	for port := 1000; port <= 1000+bound; port++ {
		fds = append(fds, g.server(unix.AF_INET, fmt.Sprintf("0.0.0.0:%d", port)))
	}
	if !reached(1000 + bound - 1) {
		t.Error("the last one below the bound is not found")
	}
	if reached(1000 + bound) {
		t.Error("the first one above it is found")
	}
	for _, fd := range fds {
		g.close(fd)
	}
	g.server(unix.AF_INET, "0.0.0.0:80")
	if !reached(80) {
		t.Error("when they are closed, the next one is not found")
	}
}
