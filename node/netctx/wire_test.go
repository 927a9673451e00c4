package netctx

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The neighbour's end of the wire, and the host's.
const (
	wireHost   = "fd78::1/64"
	wireHost4  = "10.78.0.1/24"
	neighbour  = "fd78::99/64"
	neighbour4 = "10.78.0.99/24"
)

// onTheWire creates a machine with its own network on an Ethernet with the host. It has
// routes to all addresses of the host.
func onTheWire(t *testing.T) *machine {
	t.Helper()
	pair(t, "wire0", "wire1")
	there, inside := newNetns(t)
	end, err := netlink.LinkByName("wire1")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsFd(end, int(there.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := setUp("wire0", wireHost, wireHost4); err != nil {
		t.Fatal(err)
	}
	if err := inside(func() error {
		if err := setUp("wire1", neighbour, neighbour4); err != nil {
			return err
		}
		return errors.Join(
			routeLocalnet("wire1"), // to take answers from 127.0.0.0/8
			netlink.RouteAdd(&netlink.Route{Gw: netip.MustParsePrefix(wireHost).Addr().AsSlice()}),
			netlink.RouteAdd(&netlink.Route{Gw: netip.MustParsePrefix(wireHost4).Addr().AsSlice()}))
	}); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, name: "neighbour", pid: os.Getpid(), do: func(c call) (r result) {
		// A socket stays in the network that it was made in.
		if c.Op != "socket" {
			return perform(c)
		}
		if err := inside(func() error { r = perform(c); return nil }); err != nil {
			t.Fatal(err)
		}
		return r
	}}
	// Until the kernel has noticed that the wire is plugged in, it drops what is sent, and
	// asks for the address again a second later.
	for _, to := range []struct {
		open func() int
		host string
	}{{m.tcp4, wireHost4}, {m.tcp6, wireHost}} {
		waitFor(t, "answers on the wire", func() bool {
			fd := to.open()
			defer m.close(fd)
			return errors.Is(m.connect(fd, netip.AddrPortFrom(netip.MustParsePrefix(to.host).Addr(), 9).String()), unix.ECONNREFUSED)
		})
	}
	return m
}

// newNetns creates a network namespace and returns a function that runs other functions
// in it. Its thread ends with the test, and so does every process that the thread forked
// before, so start guests only after newNetns.
func newNetns(t *testing.T) (f *os.File, inside func(do func() error) error) {
	t.Helper()
	todo, done := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		for do := range todo {
			done <- do()
		}
	}()
	t.Cleanup(func() { close(todo) })
	inside = func(do func() error) error { todo <- do; return <-done }
	if err := inside(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, inside
}

// setUp adds addresses to a device that can be used at once.
func setUp(dev string, addrs ...string) error {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	for _, text := range addrs {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

func routeLocalnet(dev string) error {
	return os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/route_localnet", []byte("1"), 0)
}

// wireAttacks returns attacks of a neighbour on a guest's localhost, and of the guest on
// the neighbour. The guest has XID 666.
func wireAttacks(n *machine) []attack {
	fromWire := func(family, kind int, addr netip.Addr, wildcard bool) func(*testing.T, *machine, *machine) string {
		return func(t *testing.T, g, h *machine) string {
			n.t = t
			at := netip.AddrPortFrom(addr, 7777).String()
			fd := n.mustSocket(family, kind, 0)
			defer n.close(fd)
			if kind == unix.SOCK_STREAM {
				if wildcard {
					l := g.server(unix.AF_INET6, "[::]:7777")
					defer g.close(l)
				} else {
					l := g.server(family, at)
					defer g.close(l)
				}
				if n.connect(fd, at) == nil {
					return "connected to " + n.peername(fd).String()
				}
				return ""
			}
			r := g.receiver(family, at)
			defer g.close(r)
			n.must("send", n.sendto(fd, "x", at))
			return received(g, r, netip.Addr{})
		}
	}
	return []attack{
		{"a neighbour connects to what stands for ::1", false, fromWire(unix.AF_INET6, unix.SOCK_STREAM, Loopback6(666), false)},
		{"a neighbour sends to what stands for ::1", false, fromWire(unix.AF_INET6, unix.SOCK_DGRAM, Loopback6(666), false)},
		{"a neighbour connects to what stands for 127.0.0.1", false, fromWire(unix.AF_INET, unix.SOCK_STREAM, Loopback(666), false)},
		{"a neighbour sends to what stands for 127.0.0.1", false, fromWire(unix.AF_INET, unix.SOCK_DGRAM, Loopback(666), false)},
		{"a neighbour connects to what stands for ::1, of a listener for all", false, fromWire(unix.AF_INET6, unix.SOCK_STREAM, Loopback6(666), true)},
		{"a neighbour connects to what stands for 127.0.0.1, of a listener for all", false, fromWire(unix.AF_INET, unix.SOCK_STREAM, Loopback(666), true)},
		{"send from what stands for ::1 to a neighbour", false, func(t *testing.T, g, h *machine) string {
			n.t = t
			r := n.receiver(unix.AF_INET6, netip.AddrPortFrom(netip.MustParsePrefix(neighbour).Addr(), 7777).String())
			defer n.close(r)
			fd := g.receiver(unix.AF_INET6, netip.AddrPortFrom(Loopback6(666), 0).String())
			defer g.close(fd)
			g.sendto(fd, "x", n.sockname(r).String())
			return received(n, r, netip.Addr{})
		}},
	}
}

// TestNobodyOnTheWireReachesALocalhost: Linux accepts packets for an address of lo on
// any device.
func TestNobodyOnTheWireReachesALocalhost(t *testing.T) {
	n := onTheWire(t)
	if err := routeLocalnet("wire0"); err != nil { // as kube-proxy and docker may have set it
		t.Fatal(err)
	}
	g, _ := newGuest(t, spec(666, nil, wwwAddr, wwwAddr6, netip.MustParsePrefix(wireHost)))
	ensureLoopback6(t, 666)
	rows := wireAttacks(n)
	t.Run("of a guest", func(t *testing.T) { refused(t, g, rows) })
	t.Run("of a guest without programs, which shows that there is a way", func(t *testing.T) { working(t, rows) })

	n.t = t
	l := g.server(unix.AF_INET6, netip.AddrPortFrom(netip.MustParsePrefix(wireHost).Addr(), 80).String())
	exchange(t, g, l, n, unix.AF_INET6, "[fd78::1]:80")
}
