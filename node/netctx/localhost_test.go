package netctx

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Nobody owns a port that the kernel chose. Its listener is still found, by the owner
// of the socket.
func TestLocalhostFindsListenersOnEphemeralPorts(t *testing.T) {
	g, _ := newGuest(t, spec(120, []string{"80/tcp"}, hostAddr, hostAddr6))
	other, _ := newGuest(t, spec(125, []string{"25/tcp"}, hostAddr, hostAddr6))
	h := host(t)
	local := map[int]string{unix.AF_INET: "127.0.0.1", unix.AF_INET6: "::1"}
	at := func(family int, m *machine, fd int) string {
		return netip.AddrPortFrom(netip.MustParseAddr(local[family]), m.sockname(fd).Port()).String()
	}
	for _, c := range []struct {
		name   string
		family int
		bind   string // empty: listen without
	}{
		{"on the wildcard", unix.AF_INET, "0.0.0.0:0"},
		{"on the IPv6 wildcard", unix.AF_INET6, "[::]:0"},
		{"never bound", unix.AF_INET, ""},
		{"never bound, IPv6", unix.AF_INET6, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.t, other.t, h.t = t, t, t
			for _, m := range []*machine{g, other, h} {
				l := m.mustSocket(c.family, unix.SOCK_STREAM, 0)
				defer m.close(l)
				if c.bind != "" {
					m.must("bind", m.bind(l, c.bind))
				}
				m.must("listen", m.listen(l))
				dial := at(c.family, m, l)
				if m == g {
					exchange(t, g, l, g, c.family, dial)
					continue
				}
				fd := g.mustSocket(c.family, unix.SOCK_STREAM, 0)
				defer g.close(fd)
				if err := g.connect(fd, dial); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("a listener of %s by the guest's localhost: %v", m.name, err)
				}
			}
		})
	}
	t.Run("UDP", func(t *testing.T) {
		g.t, other.t = t, t
		r, foreign := g.receiver(unix.AF_INET, "0.0.0.0:0"), other.receiver(unix.AF_INET, "0.0.0.0:0")
		defer g.close(r)
		defer other.close(foreign)
		fd := g.udp4()
		defer g.close(fd)
		g.must("send", g.sendto(fd, "x", at(unix.AF_INET, g, r)))
		_, _, err := g.recv(r)
		g.must("receive", err)
		g.sendto(fd, "x", at(unix.AF_INET, other, foreign))
		if reached := received(other, foreign, netip.Addr{}); reached != "" {
			t.Error("another guest ", reached)
		}
	})
}

func TestLocalhostIsTheGuestsOwn(t *testing.T) {
	g, _ := newGuest(t, www())
	for _, c := range []struct {
		name         string
		family       int
		listen, dial string
		peer         string // as the client sees it
		seen         string // the client's address as the server sees it
	}{
		{"a server on localhost", unix.AF_INET, "127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1"},
		{"a server on another address of localhost", unix.AF_INET, "127.0.0.53:53", "127.0.0.53:53", "127.0.0.53:53", "127.0.0.1"},
		{"a server on the wildcard", unix.AF_INET, "0.0.0.0:8080", "127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1"},
		{"a server on the wildcard, by address zero", unix.AF_INET, "0.0.0.0:8080", "0.0.0.0:8080", "127.0.0.1:8080", "127.0.0.1"},
		{"a server on ::1", unix.AF_INET6, "[::1]:8080", "[::1]:8080", "[::1]:8080", "::1"},
		{"a server on the IPv6 wildcard", unix.AF_INET6, "[::]:8080", "[::1]:8080", "[::1]:8080", "::1"},
		{"a server on localhost, asked as IPv6", unix.AF_INET6, "[::ffff:127.0.0.1]:8080", "[::ffff:127.0.0.1]:8080", "[::ffff:127.0.0.1]:8080", "::ffff:127.0.0.1"},
		{"a server on the guest's address", unix.AF_INET, "10.77.0.10:8080", "10.77.0.10:8080", "10.77.0.10:8080", "10.77.0.10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.t = t
			l := g.server(c.family, c.listen)
			defer g.close(l)
			if got := g.sockname(l).String(); got != c.listen {
				t.Errorf("the server is said to be bound to %s", got)
			}
			seen, peer, local := exchange(t, g, l, g, c.family, c.dial)
			if seen.Addr().String() != c.seen || local.Addr().String() != c.seen {
				t.Errorf("the client is %s to the server and %s to itself, want %s", seen, local, c.seen)
			}
			if peer.String() != c.peer {
				t.Errorf("the server is %s to the client, want %s", peer, c.peer)
			}
		})
	}
}

// TestClientsOnTheWildcardAskLocalhostFromLocalhost: access lists of servers rely on
// this (dig @127.0.0.1 binds 0.0.0.0 before it connects).
func TestClientsOnTheWildcardAskLocalhostFromLocalhost(t *testing.T) {
	g, _ := newGuest(t, www())
	for _, c := range []struct {
		name         string
		family       int
		listen, from string
		dial, seen   string
	}{
		{"a server on localhost", unix.AF_INET, "127.0.0.53:8082", "0.0.0.0:0", "127.0.0.53:8082", "127.0.0.1"},
		{"a server on the wildcard", unix.AF_INET, "0.0.0.0:8082", "0.0.0.0:0", "127.0.0.1:8082", "127.0.0.1"},
		{"a server on the wildcard of both families", unix.AF_INET6, "[::]:8082", "[::]:0", "[::1]:8082", "::1"},
		{"a server on ::1", unix.AF_INET6, "[::1]:8082", "[::]:0", "[::1]:8082", "::1"},
		{"the guest's own address", unix.AF_INET, "0.0.0.0:8082", "0.0.0.0:0", "10.77.0.10:8082", "10.77.0.10"},
		{"localhost, from the guest's address", unix.AF_INET, "127.0.0.1:8082", "10.77.0.10:0", "127.0.0.1:8082", "10.77.0.10"},
		{"the guest's own address, from localhost", unix.AF_INET, "0.0.0.0:8082", "127.0.0.1:0", "10.77.0.10:8082", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.t = t
			l := g.server(c.family, c.listen)
			defer g.close(l)
			seen, peer, local := exchangeFrom(t, g, l, g, c.family, c.from, c.dial)
			if seen.Addr().String() != c.seen || local != seen {
				t.Errorf("the client is %s to the server and %s to itself, want %s", seen, local, c.seen)
			}
			if peer.String() != c.dial {
				t.Errorf("the server is %s to the client, want %s", peer, c.dial)
			}
		})
	}
	t.Run("a client that is gone", func(t *testing.T) {
		g.t = t
		l := g.server(unix.AF_INET, "127.0.0.1:8082")
		fd := g.tcp4()
		g.must("bind", g.bind(fd, "0.0.0.0:0"))
		g.must("connect", g.connect(fd, "127.0.0.1:8082"))
		g.must("reset on close", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, append(word(1), word(0)...)))
		g.close(fd)
		if r := g.do(call{Op: "accept", FD: l}); r.Addr.Addr().String() != "127.0.0.1" {
			t.Errorf("the server sees %s, %v", r.Addr, r.err())
		}
	})
}

func TestLocalhostAddressesStayApart(t *testing.T) {
	g, _ := newGuest(t, www())
	for _, addr := range []string{"127.0.0.1:53", "127.0.0.53:53", "127.0.0.54:53"} {
		g.server(unix.AF_INET, addr)
		g.receiver(unix.AF_INET, addr)
	}
}

func TestDatagramsToLocalhost(t *testing.T) {
	www, _ := newGuest(t, www())
	six, _ := newGuest(t, spec(125, nil, mailAddr6, mailAddr)) // IPv6 comes first
	for _, c := range []struct {
		name            string
		family          int
		receive, to     string
		answers, sender string
		bound           string // the client's, if any
	}{
		{"to a server on localhost", unix.AF_INET, "127.0.0.1:53", "127.0.0.1:53", "127.0.0.1:53", "127.0.0.1", ""},
		{"to a server on the wildcard", unix.AF_INET, "0.0.0.0:53", "127.0.0.1:53", "127.0.0.1:53", "127.0.0.1", ""},
		{"to a server on the wildcard, from the wildcard", unix.AF_INET, "0.0.0.0:53", "127.0.0.1:53", "127.0.0.1:53", "127.0.0.1", "0.0.0.0:0"},
		{"to a server on localhost, from the wildcard", unix.AF_INET, "127.0.0.53:53", "127.0.0.53:53", "127.0.0.53:53", "127.0.0.1", "0.0.0.0:0"},
		{"to a server on a port that the kernel chose, from the wildcard", unix.AF_INET, "0.0.0.0:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", "0.0.0.0:0"},
		{"to a server on the wildcard, from a port", unix.AF_INET, "0.0.0.0:53", "127.0.0.1:53", "127.0.0.1:53", "127.0.0.1", "0.0.0.0:5353"},
		{"to a server on the wildcard, from the guest's address", unix.AF_INET, "0.0.0.0:53", "127.0.0.1:53", "127.0.0.1:53", "10.77.0.10", "10.77.0.10:0"},
		{"to a server on ::1, from the wildcard of both families", unix.AF_INET6, "[::1]:53", "[::1]:53", "[::1]:53", "::1", "[::]:0"},
		{"to a server on ::1, from the IPv6 wildcard", unix.AF_INET6, "[::1]:53", "[::1]:53", "[::1]:53", "::1", "v6only [::]:0"},
		{"to a server on the IPv6 wildcard, from it", unix.AF_INET6, "v6only [::]:53", "[::1]:53", "[::1]:53", "::1", "v6only [::]:0"},
		{"to a server on ::1", unix.AF_INET6, "[::1]:53", "[::1]:53", "[::1]:53", "::1", ""},
		{"to a server on the wildcard of both families, where IPv6 comes first", unix.AF_INET6, "[::]:53", "[::1]:53", "[::1]:53", "::1", ""},
		{"to a server on the guest's address", unix.AF_INET, "10.77.0.10:53", "10.77.0.10:53", "10.77.0.10:53", "10.77.0.10", ""},
	} {
		for _, connected := range []bool{false, true} {
			t.Run(c.name+map[bool]string{true: ", connected"}[connected], func(t *testing.T) {
				g := www
				if strings.Contains(c.name, "IPv6 comes first") {
					g = six
				}
				g.t = t
				bind := func(fd int, at string) {
					at, v6only := strings.CutPrefix(at, "v6only ")
					if v6only {
						g.must("set V6ONLY", g.setsockopt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, word(1)))
					}
					g.must("bind", g.bind(fd, at))
				}
				r, fd := g.mustSocket(c.family, unix.SOCK_DGRAM, 0), g.mustSocket(c.family, unix.SOCK_DGRAM, 0)
				defer g.close(r)
				defer g.close(fd)
				bind(r, c.receive)
				if c.bound != "" {
					bind(fd, c.bound)
				}
				port := g.sockname(r).Port()
				c.to = netip.AddrPortFrom(netip.MustParseAddrPort(c.to).Addr(), port).String()
				c.answers = netip.AddrPortFrom(netip.MustParseAddrPort(c.answers).Addr(), port).String()
				if connected {
					g.must("connect", g.connect(fd, c.to))
					g.must("send", g.do(call{Op: "send", FD: fd, Data: []byte("q")}).err())
				} else {
					g.must("send", g.sendto(fd, "q", c.to))
				}
				_, from, err := g.recv(r)
				g.must("receive", err)
				if from.Addr().String() != c.sender {
					t.Errorf("the server sees %s, want %s", from, c.sender)
				}
				g.must("answer", g.sendto(r, "a", from.String()))
				_, from, err = g.recv(fd)
				g.must("receive the answer", err)
				if from.String() != c.answers {
					t.Errorf("the answer came from %s, want %s", from, c.answers)
				}
				if connected && g.peername(fd).String() != c.answers {
					t.Errorf("connected to %s, want %s", g.peername(fd), c.answers)
				}
				if got := g.sockname(fd).Addr().String(); connected && got != c.sender {
					t.Errorf("connected from %s, want %s", got, c.sender)
				}
			})
		}
	}
}

// TestBindToLo: systemd-resolved binds the sockets of its stub to lo, and does not start
// if it cannot. The request does not reach the kernel; our programs keep its promise
// that nobody outside reaches the socket.
func TestBindToLo(t *testing.T) {
	n := onTheWire(t)
	g, _ := newGuest(t, many())
	h := host(t)
	lo := []struct {
		name   string
		option int
		value  []byte
	}{
		{"by number", unix.SO_BINDTOIFINDEX, word(1)},
		{"by name", unix.SO_BINDTODEVICE, []byte("lo")},
		{"by name with a NUL", unix.SO_BINDTODEVICE, []byte("lo\x00garbage")},
	}
	for _, o := range lo {
		t.Run("stub resolvers, bound "+o.name, func(t *testing.T) {
			g.t, h.t = t, t
			socket := func(kind int) int {
				fd := g.mustSocket(unix.AF_INET, kind, 0)
				g.must("bind to lo", g.setsockopt(fd, unix.SOL_SOCKET, o.option, o.value))
				return fd
			}
			for _, at := range []string{"127.0.0.53", "127.0.0.54"} {
				udp, tcp := socket(unix.SOCK_DGRAM), socket(unix.SOCK_STREAM)
				defer g.close(udp)
				defer g.close(tcp)
				g.must("set REUSEADDR", g.setsockopt(tcp, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
				g.must("bind", g.bind(udp, at+":53"))
				g.must("bind", g.bind(tcp, at+":53"))
				g.must("listen", g.listen(tcp))
				exchange(t, g, tcp, g, unix.AF_INET, at+":53")
				client := g.udp4()
				defer g.close(client)
				g.must("bind", g.bind(client, "0.0.0.0:0"))
				g.must("connect", g.connect(client, at+":53"))
				g.must("ask", g.do(call{Op: "send", FD: client, Data: []byte("q")}).err())
				_, from, err := g.recv(udp)
				g.must("receive", err)
				if from != g.sockname(client) {
					t.Errorf("asked from %s, which is %s to itself", from, g.sockname(client))
				}
				// The answer names its source: the address that was asked, or the one that the
				// kernel reported.
				own := Loopback(666).As4()
				own[3] = netip.MustParseAddr(at).As4()[3]
				for _, source := range []netip.Addr{netip.MustParseAddr(at), netip.AddrFrom4(own)} {
					g.must("answer", g.do(call{Op: "sendto", FD: udp, Data: []byte("a"), Addr: g.sockname(client), Source: source}).err())
					if _, from, err = g.recv(client); err != nil || from.String() != at+":53" {
						t.Errorf("the answer from %s comes from %s, %v", source, from, err)
					}
				}
			}
			// One address does not answer for another, nor for the first.
			for _, at := range []string{"127.0.0.1:53", "127.0.0.55:53"} {
				if err := g.connect(g.tcp4(), at); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s: %v, where nobody listens", at, err)
				}
				fd := g.udp4()
				g.must("connect", g.connect(fd, at))
				g.do(call{Op: "send", FD: fd, Data: []byte("q")})
				if _, _, err := g.recv(fd); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s by UDP: %v, where nobody listens", at, err)
				}
				g.close(fd)
			}
		})
		t.Run("the wildcard is localhost alone, bound "+o.name, func(t *testing.T) {
			g.t, h.t = t, t
			l := g.tcp6()
			defer g.close(l)
			g.must("bind to lo", g.setsockopt(l, unix.SOL_SOCKET, o.option, o.value))
			g.must("set REUSEADDR", g.setsockopt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
			g.must("bind", g.bind(l, "[::]:8083"))
			g.must("listen", g.listen(l))
			exchange(t, g, l, g, unix.AF_INET, "127.0.0.1:8083")
			exchange(t, g, l, g, unix.AF_INET6, "[::1]:8083")
			for _, at := range []string{"10.77.0.10:8083", "10.77.0.11:8083"} {
				if err := h.connect(h.tcp4(), at); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("from outside to %s: %v", at, err)
				}
			}
		})
	}
	t.Run("what it is bound to elsewhere", func(t *testing.T) {
		g.t = t
		fd := g.server(unix.AF_INET, "10.77.0.10:8084")
		defer g.close(fd)
		if err := g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("lo")); !errors.Is(err, unix.EPERM) {
			t.Errorf("a listener at the guest's address: %v", err)
		}
		fd = g.udp4()
		defer g.close(fd)
		g.must("bind to lo", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("lo")))
		if err := g.bind(fd, "10.77.0.10:8084"); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("bind to the guest's address: %v", err)
		}
		for _, err := range []error{g.connect(fd, "10.77.0.1:53"), g.sendto(fd, "x", "10.77.0.1:53")} {
			if !errors.Is(err, unix.ENETUNREACH) {
				t.Errorf("to the host: %v", err)
			}
		}
		g.must("bind to no device", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, nil))
		g.must("send to the host", g.sendto(fd, "x", "10.77.0.1:53"))
	})
	t.Run("never bound", func(t *testing.T) {
		g.t, h.t = t, t
		fd := g.tcp4()
		defer g.close(fd)
		g.must("bind to lo", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("lo")))
		g.must("listen", g.listen(fd))
		port := g.sockname(fd).Port()
		exchange(t, g, fd, g, unix.AF_INET, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
		n.t = t
		if err := n.connect(n.tcp4(), netip.AddrPortFrom(wwwAddr.Addr(), port).String()); err == nil {
			t.Error("reached from the wire")
		}
		other := g.tcp4()
		defer g.close(other)
		g.must("listen", g.listen(other))
		n.must("connect to one that is not bound to lo", n.connect(n.tcp4(), netip.AddrPortFrom(wwwAddr.Addr(), g.sockname(other).Port()).String()))
	})
}
