package netctx

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// attack is something that a guest tries. It returns what the guest reached, or ""
// if nothing.
type attack struct {
	name string
	// kernel: refused without any programs, by the user namespace alone.
	kernel bool
	try    func(t *testing.T, g, h *machine) (reached string)
}

// bindAttack is reached when the bind succeeds.
func bindAttack(family, kind int, addr string, options ...[2]int) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		fd := g.mustSocket(family, kind, 0)
		defer g.close(fd)
		for _, o := range options {
			if err := g.setsockopt(fd, o[0], o[1], word(1)); err != nil && !errors.Is(err, unix.EPERM) {
				g.must("setsockopt", err)
			}
		}
		err := g.bind(fd, addr)
		if err == nil {
			got, asked := g.sockname(fd), netip.MustParseAddrPort(addr).Port()
			if asked != 0 && got.Port() != asked {
				return "" // the kernel chose the port (is_client in bpf/bind.c)
			}
			return "bound to " + got.String()
		}
		if !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EACCES) {
			t.Errorf("refused with %v, which tells a program nothing", err)
		}
		return ""
	}
}

// connectAttack has the host listen at one address and the guest connect to
// another that leads there. The connection must be refused at once, not hang.
func connectAttack(family int, listen, dial string) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		hostFamily := unix.AF_INET
		if netip.MustParseAddr(listen).Is6() {
			hostFamily = unix.AF_INET6
		}
		l := h.server(hostFamily, netip.AddrPortFrom(netip.MustParseAddr(listen), 0).String())
		defer h.close(l)
		fd := g.mustSocket(family, unix.SOCK_STREAM, 0)
		defer g.close(fd)
		err := g.connect(fd, netip.AddrPortFrom(netip.MustParseAddr(dial), h.sockname(l).Port()).String())
		if err == nil {
			return "connected to " + g.peername(fd).String()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("refused with %v, want ECONNREFUSED as on a machine of its own", err)
		}
		return ""
	}
}

// sendAttack has the host receive at one address and the guest send to another
// that leads there.
func sendAttack(family int, receive, to string, connected bool) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		hostFamily := unix.AF_INET
		if netip.MustParseAddr(receive).Is6() {
			hostFamily = unix.AF_INET6
		}
		r := h.receiver(hostFamily, netip.AddrPortFrom(netip.MustParseAddr(receive), 0).String())
		defer h.close(r)
		fd := g.mustSocket(family, unix.SOCK_DGRAM, 0)
		defer g.close(fd)
		dest := netip.AddrPortFrom(netip.MustParseAddr(to), h.sockname(r).Port()).String()
		if connected {
			if g.connect(fd, dest) == nil {
				g.do(call{Op: "send", FD: fd, Data: []byte("x")})
			}
		} else {
			g.do(call{Op: "sendto", FD: fd, Data: []byte("x"), Addr: netip.MustParseAddrPort(dest)})
		}
		return received(h, r, netip.Addr{})
	}
}

// received waits for a datagram that does not come from the allowed address.
func received(m *machine, fd int, allowed netip.Addr) string {
	m.t.Helper()
	_, from, err := m.recv(fd)
	if errors.Is(err, unix.EAGAIN) || err == nil && from.Addr().Unmap() == allowed {
		return ""
	}
	m.must("receive", err)
	return "received from " + from.String()
}

// spoof sends from an address that the guest chooses.
func spoof(source netip.Addr, connected bool, dest netip.Prefix, own netip.Prefix) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		family := unix.AF_INET
		if dest.Addr().Is6() {
			family = unix.AF_INET6
		}
		r := h.receiver(family, netip.AddrPortFrom(dest.Addr(), 0).String())
		defer h.close(r)
		fd := g.mustSocket(family, unix.SOCK_DGRAM, 0)
		defer g.close(fd)
		c := call{Op: "sendto", FD: fd, Data: []byte("x"), Source: source, Addr: h.sockname(r)}
		if connected {
			g.must("connect", g.connect(fd, c.Addr.String()))
			c.Addr = netip.AddrPort{}
		}
		g.do(c)
		return received(h, r, own.Addr())
	}
}

// dialed has the host connect to a port at an address that is not the guest's.
func dialed(h *machine, addr netip.Addr, port uint16) string {
	h.t.Helper()
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	c := h.mustSocket(family, unix.SOCK_STREAM, 0)
	defer h.close(c)
	if err := h.connect(c, netip.AddrPortFrom(addr, port).String()); err == nil {
		return "reached at " + h.peername(c).String()
	}
	return ""
}

func option(level, opt int, value []byte) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		family, kind := unix.AF_INET, unix.SOCK_STREAM
		if level == unix.IPPROTO_IPV6 {
			family = unix.AF_INET6
		}
		if level == unix.IPPROTO_UDP {
			kind = unix.SOCK_DGRAM
		}
		fd := g.mustSocket(family, kind, 0)
		defer g.close(fd)
		err := g.setsockopt(fd, level, opt, value)
		if err == nil {
			return "option set"
		}
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("refused with %v", err)
		}
		return ""
	}
}

func opened(family, kind, proto int) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		fd, err := g.socket(family, kind, proto)
		if err == nil {
			g.close(fd)
			return "socket made"
		}
		if !errors.Is(err, unix.EPROTONOSUPPORT) && !errors.Is(err, unix.EPERM) {
			t.Errorf("refused with %v", err)
		}
		return ""
	}
}

// The guest is www (10.77.0.10, fd77::10) and owns ports 80 and 8080, the other one
// mail (10.77.0.11, fd77::11), the host 10.77.0.1 and fd77::1. This is the list of
// shared/netctx.md, "What was tried against it", and of reference/runtime.md §5.3.
var attacks = []attack{
	{"bind another guest's address", false, bindAttack(unix.AF_INET, unix.SOCK_STREAM, "10.77.0.11:8080")},
	{"bind another guest's address with UDP", false, bindAttack(unix.AF_INET, unix.SOCK_DGRAM, "10.77.0.11:0")},
	{"bind another guest's IPv6 address", false, bindAttack(unix.AF_INET6, unix.SOCK_STREAM, "[fd77::11]:8080")},
	{"bind the host's address", false, bindAttack(unix.AF_INET, unix.SOCK_STREAM, "10.77.0.1:8080")},
	{"bind another guest's address as IPv6", false, bindAttack(unix.AF_INET6, unix.SOCK_STREAM, "[::ffff:10.77.0.11]:8080")},
	{"bind a multicast group", false, bindAttack(unix.AF_INET, unix.SOCK_DGRAM, "224.0.0.251:5353")},
	{"bind a foreign address with FREEBIND", false,
		bindAttack(unix.AF_INET, unix.SOCK_STREAM, "203.0.113.7:8080", [2]int{unix.IPPROTO_IP, unix.IP_FREEBIND})},
	{"bind another guest's address with BIND_ADDRESS_NO_PORT", false,
		bindAttack(unix.AF_INET, unix.SOCK_STREAM, "10.77.0.11:0", [2]int{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT})},
	{"bind a port that is not owned", false, bindAttack(unix.AF_INET, unix.SOCK_STREAM, "10.77.0.10:8081")},
	{"bind a port that is not owned on the wildcard", false, bindAttack(unix.AF_INET6, unix.SOCK_STREAM, "[::]:8081")},
	{"bind a TCP port that is owned, but of UDP", false, bindAttack(unix.AF_INET, unix.SOCK_DGRAM, "0.0.0.0:8080")},
	{"bind with family 0", false, func(t *testing.T, g, h *machine) string {
		fd := g.tcp4()
		defer g.close(fd)
		if g.do(call{Op: "bind", FD: fd}).err() == nil {
			return "bound"
		}
		return ""
	}},
	{"bind by io_uring", false, func(t *testing.T, g, h *machine) string {
		fd := g.tcp4()
		defer g.close(fd)
		r := g.do(call{Op: "uring", FD: fd, Args: [3]int{uringBind}, Addr: netip.MustParseAddrPort("10.77.0.11:8080")})
		if r.Errno == 0 {
			return "bound to " + g.sockname(fd).String()
		}
		if errors.Is(r.err(), unix.EINVAL) && kernelBefore(t, 6, 11) {
			if g.bind(fd, "10.77.0.11:8080") == nil {
				return "bound without it, which the kernel has not"
			}
			return ""
		}
		switch err := r.err(); {
		case errors.Is(err, unix.EINVAL):
			t.Skip("there is no bind by io_uring before kernel 6.11")
		case !errors.Is(err, unix.EADDRNOTAVAIL):
			t.Errorf("refused with %v", err)
		}
		return ""
	}},
	{"bind the loopback address of another guest", false, func(t *testing.T, g, h *machine) string {
		fd := g.tcp4()
		defer g.close(fd)
		g.must("bind", g.bind(fd, "127.0.125.1:0"))
		g.must("listen", g.listen(fd))
		return dialed(h, Loopback(125), g.sockname(fd).Port())
	}},
	{"bind the IPv6 loopback address of another guest", false,
		bindAttack(unix.AF_INET6, unix.SOCK_STREAM, netip.AddrPortFrom(Loopback6(125), 8080).String())},
	{"be reached on the wildcard through the host's address", false, func(t *testing.T, g, h *machine) string {
		l := g.server(unix.AF_INET, "0.0.0.0:8080")
		defer g.close(l)
		return dialed(h, hostAddr.Addr(), 8080)
	}},
	{"listen without bind", false, func(t *testing.T, g, h *machine) string {
		fd := g.tcp4()
		defer g.close(fd)
		g.must("listen", g.listen(fd))
		return dialed(h, hostAddr.Addr(), g.sockname(fd).Port())
	}},
	{"listen without bind, on the host's localhost", false, func(t *testing.T, g, h *machine) string {
		fd := g.tcp4()
		defer g.close(fd)
		g.must("listen", g.listen(fd))
		return dialed(h, netip.MustParseAddr("127.0.0.1"), g.sockname(fd).Port())
	}},
	{"listen without bind with IPv6", false, func(t *testing.T, g, h *machine) string {
		fd := g.tcp6()
		defer g.close(fd)
		g.must("listen", g.listen(fd))
		return dialed(h, hostAddr6.Addr(), g.sockname(fd).Port())
	}},
	{"receive on a UDP socket that was never bound", false, func(t *testing.T, g, h *machine) string {
		fd := g.udp4()
		defer g.close(fd)
		g.must("send", g.sendto(fd, "x", "10.77.0.1:9"))
		c := h.udp4()
		defer h.close(c)
		h.must("send", h.sendto(c, "x", netip.AddrPortFrom(hostAddr.Addr(), g.sockname(fd).Port()).String()))
		return received(g, fd, netip.Addr{})
	}},
	{"disconnect and listen", false, func(t *testing.T, g, h *machine) string {
		l := h.server(unix.AF_INET, "10.77.0.1:0")
		defer h.close(l)
		fd := g.tcp4()
		defer g.close(fd)
		g.must("connect", g.connect(fd, h.sockname(l).String()))
		g.must("disconnect", g.do(call{Op: "connect", FD: fd}).err())
		g.must("listen", g.listen(fd))
		return dialed(h, hostAddr.Addr(), g.sockname(fd).Port())
	}},

	{"connect to the host's 127.0.0.1", false, connectAttack(unix.AF_INET, "127.0.0.1", "127.0.0.1")},
	{"connect to the host's 127.9.9.9", false, connectAttack(unix.AF_INET, "127.9.9.9", "127.9.9.9")},
	{"connect to the host's 0.0.0.0", false, connectAttack(unix.AF_INET, "127.0.0.1", "0.0.0.0")},
	{"connect to the host's 127.0.0.1 as IPv6", false, connectAttack(unix.AF_INET6, "127.0.0.1", "::ffff:127.0.0.1")},
	{"connect to the host's 0.0.0.0 as IPv6", false, connectAttack(unix.AF_INET6, "127.0.0.1", "::ffff:0.0.0.0")},
	{"connect to the host's ::1", false, connectAttack(unix.AF_INET6, "::1", "::1")},
	{"connect to the host's ::", false, connectAttack(unix.AF_INET6, "::1", "::")},
	{"connect to a wildcard listener of the host as a local user", false, connectAttack(unix.AF_INET, "0.0.0.0", "127.0.0.1")},
	{"connect to an IPv6 wildcard listener of the host as a local user", false, connectAttack(unix.AF_INET6, "::", "::1")},
	{"connect to the loopback address of another guest", false, func(t *testing.T, g, h *machine) string {
		l := h.server(unix.AF_INET, netip.AddrPortFrom(Loopback(125), 0).String())
		defer h.close(l)
		fd := g.tcp4()
		defer g.close(fd)
		if g.connect(fd, h.sockname(l).String()) == nil {
			return "connected"
		}
		return ""
	}},
	{"connect to the IPv6 loopback address of another guest", false, func(t *testing.T, g, h *machine) string {
		l := h.server(unix.AF_INET6, netip.AddrPortFrom(Loopback6(125), 0).String())
		defer h.close(l)
		fd := g.tcp6()
		defer g.close(fd)
		err := g.connect(fd, h.sockname(l).String())
		if err == nil {
			return "connected"
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("refused with %v", err)
		}
		return ""
	}},
	{"connect to the host's localhost by io_uring", false, func(t *testing.T, g, h *machine) string {
		l := h.server(unix.AF_INET, "127.0.0.1:0")
		defer h.close(l)
		fd := g.tcp4()
		defer g.close(fd)
		if g.do(call{Op: "uring", FD: fd, Args: [3]int{uringConnect}, Addr: h.sockname(l)}).Errno == 0 {
			return "connected"
		}
		return ""
	}},
	{"bind by a socket of io_uring", false, func(t *testing.T, g, h *machine) string {
		r := g.do(call{Op: "uring", Args: [3]int{uringSocket, unix.AF_INET, unix.SOCK_STREAM}})
		g.must("make a socket", r.err())
		defer g.close(r.N)
		if g.bind(r.N, "10.77.0.11:8080") == nil {
			return "bound"
		}
		return ""
	}},
	{"connect to the host's localhost with data (fast open)", false, func(t *testing.T, g, h *machine) string {
		l := h.server(unix.AF_INET, "127.0.0.1:0")
		defer h.close(l)
		fd := g.tcp4()
		defer g.close(fd)
		// A signal of Go's own scheduler while it connects has the kernel begin the call
		// again, which then finds the first one under way.
		switch g.do(call{Op: "sendto", FD: fd, Data: []byte("x"), Addr: h.sockname(l), Flags: unix.MSG_FASTOPEN}).Errno {
		case 0, int(unix.EALREADY):
			return "connected"
		}
		return ""
	}},
	{"connect from the loopback address to a wildcard listener of the host", false, func(t *testing.T, g, h *machine) string {
		l := h.server(unix.AF_INET, "0.0.0.0:0")
		defer h.close(l)
		fd := g.tcp4()
		defer g.close(fd)
		g.must("bind", g.bind(fd, "127.0.0.1:0"))
		if g.connect(fd, netip.AddrPortFrom(hostAddr.Addr(), h.sockname(l).Port()).String()) == nil {
			return "connected"
		}
		return ""
	}},

	{"send to the host's 127.0.0.1", false, sendAttack(unix.AF_INET, "127.0.0.1", "127.0.0.1", false)},
	{"send to the host's 127.0.0.1, connected", false, sendAttack(unix.AF_INET, "127.0.0.1", "127.0.0.1", true)},
	{"send to the host's 127.0.0.1 as IPv6", false, sendAttack(unix.AF_INET6, "127.0.0.1", "::ffff:127.0.0.1", false)},
	{"send to the host's ::1", false, sendAttack(unix.AF_INET6, "::1", "::1", false)},
	{"send to the host's ::1, connected", false, sendAttack(unix.AF_INET6, "::1", "::1", true)},
	{"send to a wildcard socket of the host as a local user", false, sendAttack(unix.AF_INET, "0.0.0.0", "127.0.0.1", false)},
	{"send to a wildcard socket of the host as a local user, connected", false, sendAttack(unix.AF_INET, "0.0.0.0", "127.0.0.1", true)},
	{"send to an IPv6 wildcard socket of the host as a local user", false, sendAttack(unix.AF_INET6, "::", "::1", false)},

	{"send from another guest's address", false, spoof(mailAddr.Addr(), false, hostAddr, wwwAddr)},
	{"send from another guest's address, connected", false, spoof(mailAddr.Addr(), true, hostAddr, wwwAddr)},
	{"send from 127.0.0.1, connected", false, spoof(netip.MustParseAddr("127.0.0.1"), true, hostAddr, wwwAddr)},
	{"send from another guest's IPv6 address", false, spoof(mailAddr6.Addr(), false, hostAddr6, wwwAddr6)},
	{"send from another guest's IPv6 address, connected", false, spoof(mailAddr6.Addr(), true, hostAddr6, wwwAddr6)},
	{"ping from another guest's address", false, func(t *testing.T, g, h *machine) string {
		fd := g.mustSocket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
		defer g.close(fd)
		if g.bind(fd, "10.77.0.11:0") != nil {
			return ""
		}
		g.do(call{Op: "sendto", FD: fd, Data: []byte{8, 0, 0, 0, 0, 1, 0, 1}, Addr: netip.MustParseAddrPort("10.77.0.1:0")})
		return received(g, fd, netip.Addr{})
	}},
	{"send with a source route", false, func(t *testing.T, g, h *machine) string {
		r := h.receiver(unix.AF_INET, "10.77.0.1:0")
		defer h.close(r)
		fd := g.udp4()
		defer g.close(fd)
		g.do(call{Op: "sendto", FD: fd, Data: []byte("x"), Addr: h.sockname(r), Options: []byte{1, 1, 1, 0}})
		return received(h, r, netip.Addr{})
	}},

	{"a UDP-Lite socket", false, opened(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE)},
	{"an MPTCP socket", false, opened(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},
	{"an IPv6 MPTCP socket", false, opened(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},
	{"a raw socket", true, opened(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)},

	{"bind to a device", false, option(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("eth0"))},
	{"bind to a device by number", false, option(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, word(2))},
	{"be transparent", true, option(unix.IPPROTO_IP, unix.IP_TRANSPARENT, word(1))},
	{"be transparent with IPv6", true, option(unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, word(1))},
	{"be bound to what is not there", false, option(unix.IPPROTO_IP, unix.IP_FREEBIND, word(1))},
	{"be bound to what is not there with IPv6", false, option(unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, word(1))},
	{"set a source route", false, option(unix.IPPROTO_IP, unix.IP_OPTIONS, []byte{1, 1, 1, 0})},
	{"clear an IPv6 source route", false, option(unix.IPPROTO_IPV6, unix.IPV6_RTHDR, nil)},
	{"hand packets to the host's IPsec", false, option(unix.IPPROTO_UDP, unix.UDP_ENCAP, word(unix.UDP_ENCAP_ESPINUDP))},
}

func TestAttacksAreRefused(t *testing.T) {
	g, _ := newGuest(t, www("80/tcp", "8080/tcp"))
	ensureLoopback6(t, 125)
	refused(t, g, attacks)
}

// TestAttacksWorkWithoutPrograms is the control: a row that is refused even without
// our programs would prove nothing.
func TestAttacksWorkWithoutPrograms(t *testing.T) {
	ensureLoopback6(t, 125)
	working(t, attacks)
}

// refused fails for every row that reaches something.
func refused(t *testing.T, g *machine, rows []attack) {
	h := host(t)
	for _, a := range rows {
		t.Run(a.name, func(t *testing.T) {
			g.t, h.t = t, t
			if reached := a.try(t, g, h); reached != "" {
				t.Error(reached)
			}
		})
	}
}

// working fails for every row that reaches nothing without programs.
func working(t *testing.T, rows []attack) {
	h, g := host(t), guestProcess(t, newCgroup(t), 667)
	for _, a := range rows {
		t.Run(a.name, func(t *testing.T) {
			g.t, h.t = t, t
			if reached := a.try(t, g, h); (reached == "") != a.kernel {
				t.Errorf("reached %q, and the kernel alone is said to refuse it: %v", reached, a.kernel)
			}
		})
	}
}

func ensureLoopback6(t testing.TB, xid int) {
	t.Helper()
	if err := EnsureLoopback6(t.Context(), Loopback6(xid)); err != nil {
		t.Fatal(err)
	}
}

func kernelBefore(t testing.TB, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a < major || a == major && b < minor
}
