package netctx

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// localPortRange is IP_LOCAL_PORT_RANGE (kernel 6.3), which x/sys does not have.
const localPortRange = 51

// scarce leaves the kernel two ports to choose from while the test runs.
func scarce(t *testing.T) [2]uint16 {
	t.Helper()
	setting(t, "ip_local_port_range", "40000 40001")
	return [2]uint16{40000, 40001}
}

// steal has the host receive on every port that the kernel may choose, with an option
// that lets others share it, and has the guest make the kernel choose one. The sender
// is 10.77.0.1:9999 or [fd77::1]:9999, to which the guest may connect.
func steal(family, option int, take func(g *machine, fd int)) func(*testing.T, *machine, *machine) string {
	wildcard, at, peer := "0.0.0.0", wwwAddr.Addr(), "10.77.0.1:9999"
	if family == unix.AF_INET6 {
		wildcard, at, peer = "::", wwwAddr6.Addr(), "[fd77::1]:9999"
	}
	return func(t *testing.T, g, h *machine) string {
		ports := scarce(t)
		for _, p := range ports {
			victim := h.mustSocket(family, unix.SOCK_DGRAM, 0)
			defer h.close(victim)
			h.must("set the option", h.setsockopt(victim, unix.SOL_SOCKET, option, word(1)))
			h.must("bind", h.bind(victim, netip.AddrPortFrom(netip.MustParseAddr(wildcard), p).String()))
		}
		sender := h.receiver(family, peer)
		defer h.close(sender)
		fd := g.mustSocket(family, unix.SOCK_DGRAM, 0)
		defer g.close(fd)
		g.must("set the option", g.setsockopt(fd, unix.SOL_SOCKET, option, word(1)))
		take(g, fd)
		got := g.sockname(fd)
		if got.Port() == 0 {
			return ""
		}
		if !got.Addr().IsUnspecified() { // without programs the route determines the source
			at = got.Addr()
		}
		for _, p := range ports {
			h.must("send", h.sendto(sender, "secret", netip.AddrPortFrom(at, p).String()))
		}
		return received(g, fd, netip.Addr{})
	}
}

// busy has a bind to a port of the guest fail, and continues.
func busy(next func(g *machine, fd int)) func(g *machine, fd int) {
	return func(g *machine, fd int) {
		first := g.receiver(unix.AF_INET, "10.77.0.10:5353")
		defer g.close(first)
		if err := g.bind(fd, "10.77.0.10:5353"); !errors.Is(err, unix.EADDRINUSE) {
			g.t.Fatalf("bind of a port that is taken: %v", err)
		}
		next(g, fd)
	}
}

// ambush lets the guest get a port before the host's service binds it.
func ambush(then func(g *machine, fd int)) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		scarce(t)
		fd := g.udp4()
		defer g.close(fd)
		g.must("bind", g.bind(fd, "0.0.0.0:0"))
		g.must("set REUSEADDR", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
		then(g, fd)
		victim := h.udp4()
		defer h.close(victim)
		h.must("set REUSEADDR", h.setsockopt(victim, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
		if h.bind(victim, fmt.Sprintf("0.0.0.0:%d", g.sockname(fd).Port())) == nil {
			return "both have the port"
		}
		return ""
	}
}

var (
	byBind    = func(g *machine, fd int) { g.bind(fd, "0.0.0.0:0") }
	byConnect = func(g *machine, fd int) { g.connect(fd, "10.77.0.1:9999") }
	bySend    = func(g *machine, fd int) { g.sendto(fd, "x", "10.77.0.1:9999") }
)

// The guest is www and owns 5353/udp: neither of the two ports.
var stealAttacks = []attack{
	{"take a UDP port of the host by a bind to port 0", false, steal(unix.AF_INET, unix.SO_REUSEADDR, byBind)},
	{"take a UDP port of the host by connect", false, steal(unix.AF_INET, unix.SO_REUSEADDR, byConnect)},
	{"take a UDP port of the host by a datagram", false, steal(unix.AF_INET, unix.SO_REUSEADDR, bySend)},
	{"take a UDP port of the host after a bind that failed, by another", false, steal(unix.AF_INET, unix.SO_REUSEADDR, busy(byBind))},
	{"take a UDP port of the host after a bind that failed, by connect", false, steal(unix.AF_INET, unix.SO_REUSEADDR, busy(byConnect))},
	{"take a UDP port of the host after a bind that failed, by a datagram", false, steal(unix.AF_INET, unix.SO_REUSEADDR, busy(bySend))},
	{"come between a UDP service and a client of it", false, func(t *testing.T, g, h *machine) string {
		victims := map[uint16]int{}
		for _, p := range scarce(t) {
			fd := h.udp4()
			defer h.close(fd)
			h.must("set REUSEADDR", h.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
			h.must("bind", h.bind(fd, netip.AddrPortFrom(hostAddr.Addr(), p).String()))
			victims[p] = fd
		}
		client := h.receiver(unix.AF_INET, "10.77.0.1:9999")
		defer h.close(client)
		fd := g.udp4()
		defer g.close(fd)
		g.must("set REUSEADDR", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
		busy(func(g *machine, fd int) { bySend(g, fd); byConnect(g, fd) })(g, fd)
		for p, victim := range victims {
			h.must("send", h.sendto(client, "x", netip.AddrPortFrom(hostAddr.Addr(), p).String()))
			if _, _, err := h.recv(victim); err != nil {
				return fmt.Sprintf("port %d received nothing", p)
			}
		}
		return ""
	}},
	{"take a UDP port of the host with IPv6, by a bind to port 0", false,
		steal(unix.AF_INET6, unix.SO_REUSEADDR, func(g *machine, fd int) { g.bind(fd, "[::]:0") })},
	{"take a UDP port of the host with IPv6, by connect", false,
		steal(unix.AF_INET6, unix.SO_REUSEADDR, func(g *machine, fd int) { g.connect(fd, "[fd77::1]:9999") })},
	{"take a UDP port of the host with SO_REUSEPORT, by a bind to port 0", true, steal(unix.AF_INET, unix.SO_REUSEPORT, byBind)},
	{"take a UDP port of the host with SO_REUSEPORT, by a datagram", true, steal(unix.AF_INET, unix.SO_REUSEPORT, bySend)},
	{"let the host's service bind beside a socket that waits for it", false, ambush(func(g *machine, fd int) {})},
	{"let the host's service bind beside a socket that waits for it, after another bind", false, ambush(func(g *machine, fd int) {
		if err := g.bind(fd, "10.77.0.10:5353"); !errors.Is(err, unix.EINVAL) {
			g.t.Errorf("a second bind: %v", err)
		}
	})},
	{"take a UDP port of the host by its number", false,
		steal(unix.AF_INET, unix.SO_REUSEADDR, func(g *machine, fd int) { g.bind(fd, "0.0.0.0:40000") })},
	{"take a UDP port of the host by its number, with IPv6", false,
		steal(unix.AF_INET6, unix.SO_REUSEADDR, func(g *machine, fd int) { g.bind(fd, "[fd77::10]:40001") })},
	{"name the port that the kernel chooses", false, func(t *testing.T, g, h *machine) string {
		if kernelBefore(t, 6, 3) {
			t.Skip("there is no IP_LOCAL_PORT_RANGE before kernel 6.3")
		}
		return option(unix.IPPROTO_IP, localPortRange, word(40000<<16|40000))(t, g, h)
	}},
}

func TestPortsOfOthersAreNotShared(t *testing.T) {
	for name, s := range map[string]Spec{"by a guest with ports": www("5353/udp"), "by a guest with all ports": www()} {
		t.Run(name, func(t *testing.T) {
			g, _ := newGuest(t, s)
			rows := stealAttacks
			if s.AllPorts {
				rows = rows[:len(rows)-3] // on its own address it may bind any port
			}
			refused(t, g, rows)
		})
	}
	t.Run("without programs, which shows that there is a way", func(t *testing.T) { working(t, stealAttacks) })
}

// TestAGuestSharesItsOwnPorts: ntpd and nmbd bind the wildcard and each address, and
// the later socket receives the datagrams.
func TestAGuestSharesItsOwnPorts(t *testing.T) {
	g, _ := newGuest(t, www("5353/udp"))
	h := host(t)
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		var fds [2]int
		for i, at := range []string{"0.0.0.0:5353", "10.77.0.10:5353"} {
			fds[i] = g.udp4()
			g.must("set the option", g.setsockopt(fds[i], unix.SOL_SOCKET, option, word(1)))
			g.must("bind "+at, g.bind(fds[i], at))
		}
		h.must("send", h.sendto(h.udp4(), "x", "10.77.0.10:5353"))
		if option == unix.SO_REUSEADDR {
			_, _, err := g.recv(fds[1])
			g.must("receive", err)
		}
		g.close(fds[0])
		g.close(fds[1])
	}
	fd := g.udp4()
	g.must("set REUSEADDR", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
	g.must("set REUSEADDR off", g.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(0)))
	g.must("bind", g.bind(fd, "0.0.0.0:5353"))
	second := g.udp4()
	g.must("set REUSEADDR", g.setsockopt(second, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
	if err := g.bind(second, "0.0.0.0:5353"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("bound beside a socket that does not share: %v", err)
	}
}
