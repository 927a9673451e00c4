package netctx

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSourceIsChosenForEachConnection: a source that connect chose, and not the program,
// ends with the connection.
func TestSourceIsChosenForEachConnection(t *testing.T) {
	g, _ := newGuest(t, www("80/tcp"))
	h := host(t)
	type hop struct {
		family int // of the address given; 0: its own
		to     string
		from   string
	}
	for _, c := range []struct {
		name   string
		family int
		hops   []hop
	}{
		{"from localhost to elsewhere and back", unix.AF_INET, []hop{
			{0, "127.0.0.1:53", "127.0.0.1"}, {0, "10.77.0.1:53", "10.77.0.10"}, {0, "127.0.0.1:53", "127.0.0.1"}}},
		{"the same with IPv6", unix.AF_INET6, []hop{
			{0, "[::1]:53", "::1"}, {0, "[fd77::1]:53", "fd77::10"}, {0, "[::1]:53", "::1"}}},
		{"IPv4 addresses of an IPv6 socket, as IPv4", unix.AF_INET6, []hop{
			{unix.AF_INET, "127.0.0.1:53", "::ffff:127.0.0.1"}, {unix.AF_INET, "10.77.0.1:53", "::ffff:10.77.0.10"},
			{unix.AF_INET, "127.0.0.1:53", "::ffff:127.0.0.1"}}},
		{"IPv4 addresses of an IPv6 socket, as IPv6", unix.AF_INET6, []hop{
			{0, "[::ffff:127.0.0.1]:53", "::ffff:127.0.0.1"}, {0, "[::ffff:10.77.0.1]:53", "::ffff:10.77.0.10"}}},
		{"from IPv4 to IPv6", unix.AF_INET6, []hop{
			{0, "[::ffff:127.0.0.1]:53", "::ffff:127.0.0.1"}, {0, "[fd77::1]:53", "fd77::10"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.t, h.t = t, t
			fd := g.mustSocket(c.family, unix.SOCK_DGRAM, 0)
			defer g.close(fd)
			for i, hop := range c.hops {
				if i > 0 {
					g.disconnect(fd)
					if got := g.sockname(fd); !got.Addr().IsUnspecified() || got.Port() != 0 {
						t.Errorf("disconnected, it is at %s", got)
					}
				}
				g.must("connect to "+hop.to, g.do(call{Op: "connect", FD: fd, Family: hop.family, Addr: netip.MustParseAddrPort(hop.to)}).err())
				if got := g.sockname(fd); got.Addr().String() != hop.from {
					t.Errorf("to %s: from %s, want %s", hop.to, got, hop.from)
				}
			}
		})
	}
	t.Run("datagrams go both ways", func(t *testing.T) {
		g.t, h.t = t, t
		r := h.receiver(unix.AF_INET, "10.77.0.1:0")
		defer h.close(r)
		fd := g.udp4()
		defer g.close(fd)
		g.must("connect", g.connect(fd, "127.0.0.1:53"))
		g.disconnect(fd)
		g.must("connect", g.connect(fd, h.sockname(r).String()))
		g.must("send", g.do(call{Op: "send", FD: fd, Data: []byte("q")}).err())
		_, from, err := h.recv(r)
		h.must("receive", err)
		h.must("answer", h.sendto(r, "a", from.String()))
		_, _, err = g.recv(fd)
		g.must("receive the answer", err)
	})
	t.Run("TCP, after localhost refused", func(t *testing.T) {
		g.t, h.t = t, t
		l := h.server(unix.AF_INET, "10.77.0.1:0")
		defer h.close(l)
		fd := g.tcp4()
		defer g.close(fd)
		if err := g.connect(fd, "127.0.0.1:1"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatalf("nobody listens: %v", err)
		}
		g.must("connect", g.connect(fd, h.sockname(l).String()))
		if got := g.sockname(fd); got.Addr() != wwwAddr.Addr() {
			t.Errorf("from %s", got)
		}
	})
	t.Run("a source that the program bound stays", func(t *testing.T) {
		g.t = t
		fd := g.udp4()
		defer g.close(fd)
		g.must("set NO_PORT", g.setsockopt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, word(1)))
		g.must("bind", g.bind(fd, "127.0.0.53:0"))
		for range 2 {
			g.must("connect", g.connect(fd, "127.0.0.1:53"))
			if got := g.sockname(fd); got.Addr().String() != "127.0.0.53" {
				t.Errorf("from %s", got)
			}
			g.disconnect(fd)
		}
	})
}

// sources does what glibc's getaddrinfo does to sort its results (RFC 6724): it
// connects one datagram socket to each address and asks for the socket's own. A socket
// that does not accept IPv4 is replaced.
func sources(g *machine, to ...string) (from []string) {
	g.t.Helper()
	fd, family := -1, 0
	open := func(f int) {
		if fd >= 0 {
			g.close(fd)
		}
		fd, family = g.mustSocket(f, unix.SOCK_DGRAM, 0), f
	}
	defer func() { g.close(fd) }()
	for _, text := range to {
		addr := netip.MustParseAddrPort(text)
		want := unix.AF_INET6
		if addr.Addr().Is4() {
			want = unix.AF_INET
		}
		if fd < 0 || family == unix.AF_INET && want == unix.AF_INET6 {
			open(want)
		} else {
			g.disconnect(fd)
		}
		err := g.connect(fd, text)
		if errors.Is(err, unix.EAFNOSUPPORT) && family == unix.AF_INET6 && want == unix.AF_INET {
			open(want)
			err = g.connect(fd, text)
		}
		if err != nil {
			from = append(from, err.Error())
			continue
		}
		from = append(from, g.sockname(fd).Addr().Unmap().String())
	}
	return from
}

func TestAddressesAreSortedByTheirSources(t *testing.T) {
	g, _ := newGuest(t, www("80/tcp"))
	want := map[string]string{"[::1]:80": "::1", "127.0.0.1:80": "127.0.0.1", "[fd77::1]:80": "fd77::10", "10.77.0.1:80": "10.77.0.10"}
	for _, order := range [][]string{
		{"[::1]:80", "127.0.0.1:80", "[fd77::1]:80", "10.77.0.1:80"},
		{"10.77.0.1:80", "[fd77::1]:80", "127.0.0.1:80", "[::1]:80"},
		{"127.0.0.1:80", "10.77.0.1:80", "[::1]:80", "[fd77::1]:80"},
		{"[fd77::1]:80", "[::1]:80", "10.77.0.1:80", "127.0.0.1:80"},
	} {
		for i, from := range sources(g, order...) {
			if from != want[order[i]] {
				t.Errorf("of %v: source for %s is %s, want %s", order, order[i], from, want[order[i]])
			}
		}
	}
}
