package netctx

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

// TestResolverThatNamesItsPort does what bind9 does for each query: it binds a UDP
// port that it chose itself, and asks from there.
func TestResolverThatNamesItsPort(t *testing.T) {
	g, _ := newGuest(t, spec(666, []string{"53/udp", "40053/udp"}, wwwAddr, wwwAddr6))
	h := host(t)
	server4, server6 := h.receiver(unix.AF_INET, "10.77.0.1:5300"), h.receiver(unix.AF_INET6, "[fd77::1]:5300")
	defer h.close(server4)
	defer h.close(server6)
	for _, c := range []struct {
		name, bind string
		family     int
		err        error
		kept       bool
	}{
		{"below the kernel's own range", "0.0.0.0:2000", unix.AF_INET, nil, false},
		{"in it", "0.0.0.0:41999", unix.AF_INET, nil, false},
		{"above it", "0.0.0.0:61999", unix.AF_INET, nil, false},
		{"the first that is not a service's", "0.0.0.0:1024", unix.AF_INET, nil, false},
		{"on its address", "10.77.0.10:41999", unix.AF_INET, nil, false},
		{"with IPv6", "[::]:41999", unix.AF_INET6, nil, false},
		{"with IPv6, on its address", "[fd77::10]:41999", unix.AF_INET6, nil, false},
		{"a service's", "0.0.0.0:123", unix.AF_INET, unix.EACCES, false},
		{"one that it owns", "0.0.0.0:53", unix.AF_INET, nil, true},
		{"a high one that it owns", "10.77.0.10:40053", unix.AF_INET, nil, true},
		{"any of its localhost", "127.0.0.1:41999", unix.AF_INET, nil, true},
		{"one of another guest's address", "10.77.0.11:41999", unix.AF_INET, unix.EADDRNOTAVAIL, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.t, h.t = t, t
			fd := g.mustSocket(c.family, unix.SOCK_DGRAM, 0)
			defer g.close(fd)
			if err := g.bind(fd, c.bind); !errors.Is(err, c.err) {
				t.Fatalf("bind %s: %v, want %v", c.bind, err, c.err)
			}
			if c.err != nil {
				return
			}
			asked, got := netip.MustParseAddrPort(c.bind), g.sockname(fd)
			if got.Port() == 0 || (got.Port() == asked.Port()) != c.kept {
				t.Errorf("bound to %s it has %s", asked, got)
			}
			if got.Addr() != asked.Addr() {
				t.Errorf("bound to %s it has %s", asked, got)
			}
			if asked.Addr().IsLoopback() {
				return
			}
			server, at := server4, "10.77.0.1:5300"
			if c.family == unix.AF_INET6 {
				server, at = server6, "[fd77::1]:5300"
			}
			g.must("ask", g.sendto(fd, "question", at))
			_, from, err := h.recv(server)
			h.must("hear", err)
			if from.Port() != got.Port() {
				t.Errorf("the question comes from %s, not from port %d", from, got.Port())
			}
			h.must("answer", h.sendto(server, "answer", from.String()))
			if data, _, err := g.recv(fd); data != "answer" {
				t.Errorf("it hears %q, %v", data, err)
			}
		})
	}
}

// TestRefusedPortsAreCounted covers an ftpd whose passive ports the guest does not own.
func TestRefusedPortsAreCounted(t *testing.T) {
	g, cg := newGuest(t, www("21/tcp"))
	if n, _, err := RefusedPorts(cg); err != nil || n != 0 {
		t.Errorf("of a new guest: %d, %v", n, err)
	}
	for range 3 {
		fd := g.tcp4()
		if err := g.bind(fd, "0.0.0.0:49170"); !errors.Is(err, unix.EACCES) {
			t.Errorf("bind: %v", err)
		}
		g.close(fd)
	}
	want := port.Range{Proto: port.TCP, First: 49170, Last: 49170}
	if n, last, err := RefusedPorts(cg); err != nil || n != 3 || last != want {
		t.Errorf("%d times, last %s, %v", n, last, err)
	}
}
