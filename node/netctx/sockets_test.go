package netctx

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// hoard has the guest take one port after another until it is refused, and returns the
// number of ports that it got.
type hoard struct {
	name string
	kind int
	// take returns the socket to keep, or -1.
	take func(g *machine) (fd int, err error)
}

func taking(kind int, then func(g *machine, fd int) error) func(*machine) (int, error) {
	return func(g *machine) (int, error) {
		fd, err := g.socket(unix.AF_INET, kind, 0)
		if err != nil {
			return -1, err
		}
		if err := then(g, fd); err != nil {
			g.close(fd)
			return -1, err
		}
		return fd, nil
	}
}

var hoards = []hoard{
	{"TCP ports by bind", unix.SOCK_STREAM, taking(unix.SOCK_STREAM, func(g *machine, fd int) error { return g.bind(fd, "0.0.0.0:0") })},
	{"TCP ports by listen", unix.SOCK_STREAM, taking(unix.SOCK_STREAM, func(g *machine, fd int) error { return g.listen(fd) })},
	{"TCP ports by connections that it has closed", unix.SOCK_STREAM, func(g *machine) (int, error) {
		fd, err := taking(unix.SOCK_STREAM, func(g *machine, fd int) error {
			return errors.Join(g.bind(fd, "10.77.0.10:0"), g.connect(fd, "10.77.0.1:9999"))
		})(g)
		if err == nil {
			g.close(fd) // first, so that TIME_WAIT is here
		}
		return -1, err
	}},
	{"UDP ports by bind", unix.SOCK_DGRAM, taking(unix.SOCK_DGRAM, func(g *machine, fd int) error { return g.bind(fd, "0.0.0.0:0") })},
	{"UDP ports by connect", unix.SOCK_DGRAM, taking(unix.SOCK_DGRAM, func(g *machine, fd int) error { return g.connect(fd, "10.77.0.1:9999") })},
	{"UDP ports by a datagram", unix.SOCK_DGRAM, taking(unix.SOCK_DGRAM, func(g *machine, fd int) error { return g.sendto(fd, "x", "10.77.0.1:9999") })},
}

// TestNobodyHoardsPorts has a guest try to take all ephemeral ports of the host.
func TestNobodyHoardsPorts(t *testing.T) {
	setting(t, "ip_local_port_range", "44000 45023")
	const all, share = 1024, 256
	for i, c := range hoards {
		try := func(t *testing.T, g *machine) (taken int, hostCan bool) {
			h := host(t)
			l, err := net.Listen("tcp", "10.77.0.1:9999")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() { // and closes when the other side has
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						io.Copy(io.Discard, c)
						c.Close()
					}()
				}
			}()
			var kept []int
			defer func() {
				for _, fd := range kept {
					g.close(fd)
				}
			}()
			for taken = 0; taken < 2*all; taken++ {
				fd, err := c.take(g)
				if err != nil {
					break
				}
				if fd >= 0 {
					kept = append(kept, fd)
				}
			}
			fd := h.mustSocket(unix.AF_INET, c.kind, 0)
			defer h.close(fd)
			if c.kind == unix.SOCK_DGRAM {
				return taken, h.bind(fd, "0.0.0.0:0") == nil
			}
			return taken, h.connect(fd, "10.77.0.1:9999") == nil
		}
		t.Run(c.name, func(t *testing.T) {
			g, _ := newGuest(t, Spec{XID: 700 + i, Addresses: []netip.Prefix{wwwAddr}, AllPorts: true})
			taken, hostCan := try(t, g)
			if taken > share || taken < share/2 || !hostCan {
				t.Errorf("it takes %d, want %d; the host finds one: %v", taken, share, hostCan)
			}
		})
		t.Run(c.name+" without programs, which shows that there is a way", func(t *testing.T) {
			taken, hostCan := try(t, guestProcess(t, newCgroup(t), 720+i))
			if taken < all/2 || hostCan {
				t.Errorf("it takes %d; the host finds one: %v", taken, hostCan)
			}
		})
	}
}

// TestSocketsAreGivenBack: a guest may reopen what it closes, its server's connections
// do not count, and each protocol is counted separately.
func TestSocketsAreGivenBack(t *testing.T) {
	setting(t, "ip_local_port_range", "46000 46999")
	const share = 256
	g, _ := newGuest(t, www("80/tcp"))
	fill := func(kind, proto int) (fds []int) {
		for range 2 * share {
			fd, err := g.socket(unix.AF_INET, kind, proto)
			if err != nil {
				if !errors.Is(err, unix.ENOBUFS) {
					t.Errorf("one more: %v", err)
				}
				return fds
			}
			fds = append(fds, fd)
		}
		return fds
	}
	drop := func(fds []int) {
		for _, fd := range fds {
			g.close(fd)
		}
	}
	server := g.server(unix.AF_INET, "0.0.0.0:80")
	for round := range 2 {
		var open []int
		for _, c := range []struct{ kind, proto, want int }{
			{unix.SOCK_STREAM, 0, share - 1}, {unix.SOCK_DGRAM, 0, share}, {unix.SOCK_DGRAM, unix.IPPROTO_ICMP, share},
		} {
			fds := fill(c.kind, c.proto)
			if len(fds) != c.want {
				t.Errorf("round %d: %d sockets of kind %d, protocol %d, want %d", round, len(fds), c.kind, c.proto, c.want)
			}
			open = append(open, fds...)
		}
		h := host(t)
		fd := h.tcp4()
		h.must("connect", h.connect(fd, "10.77.0.10:80"))
		r := g.do(call{Op: "accept", FD: server})
		g.must("accept while it has all its sockets", r.err())
		g.close(r.N)
		h.close(fd)
		drop(open)
	}
}

func TestSocketsPerGuest(t *testing.T) {
	for ports, want := range map[string]uint32{"32768 60999": 7058, "1024 65535": 16128, "40000 40100": 256} {
		setting(t, "ip_local_port_range", ports)
		if got, err := socketsPerGuest(); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", ports, got, err, want)
		}
	}
}
