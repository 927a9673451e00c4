package netctx

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/nat"
)

// privateAttacks are those on private addresses, which node/nat gives to guests:
// its pools and those of bpf/settings.h have to be the same. They lie on the
// host's lo here, which is the way to them that every host has.
func privateAttacks(t *testing.T) (rows []attack) {
	for _, xid := range []int{2, 666, 49151} {
		a4, a6 := nat.Addresses(xid)
		for _, p := range []netip.Prefix{a4, a6} {
			onLoopback(t, p.String())
		}
		mapped := netip.AddrFrom16(a4.Addr().As16())
		rows = append(rows,
			attack{"connect to a private address", false, private(unix.AF_INET, unix.SOCK_STREAM, a4.Addr(), false)},
			attack{"connect to a private IPv6 address", false, private(unix.AF_INET6, unix.SOCK_STREAM, a6.Addr(), false)},
			attack{"connect to a private address as IPv6", false, private(unix.AF_INET6, unix.SOCK_STREAM, mapped, false)},
			attack{"connect to a private address with UDP", false, private(unix.AF_INET, unix.SOCK_DGRAM, a4.Addr(), false)},
			attack{"send to a private address", false, private(unix.AF_INET, unix.SOCK_DGRAM, a4.Addr(), true)},
			attack{"send to a private IPv6 address", false, private(unix.AF_INET6, unix.SOCK_DGRAM, a6.Addr(), true)},
			attack{"send to a private address as IPv6", false, private(unix.AF_INET6, unix.SOCK_DGRAM, mapped, true)},
			attack{"ping a private address", false, func(t *testing.T, g, h *machine) string {
				fd := g.mustSocket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
				defer g.close(fd)
				g.must("bind", g.bind(fd, "10.77.0.10:0"))
				g.do(call{Op: "sendto", FD: fd, Data: []byte{8, 0, 0, 0, 0, 1, 0, 1}, Addr: netip.AddrPortFrom(a4.Addr(), 0)})
				return received(g, fd, netip.Addr{})
			}})
	}
	return rows
}

// onLoopback adds an address to lo while the test runs. The kernel adds the route to
// an IPv6 address a little later.
func onLoopback(t *testing.T, prefix string) {
	t.Helper()
	if err := setUp("lo", prefix); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hostRemoves(t, "lo", prefix) })
	waitFor(t, "the route to "+prefix, func() bool {
		routes, err := netlink.RouteGet(netip.MustParsePrefix(prefix).Addr().AsSlice())
		return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
	})
}

func private(family, kind int, to netip.Addr, unconnected bool) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		at := netip.AddrPortFrom(to, 7777).String()
		var server int
		if kind == unix.SOCK_STREAM {
			server = h.server(family, at)
		} else {
			server = h.receiver(family, at)
		}
		defer h.close(server)
		fd := g.mustSocket(family, kind, 0)
		defer g.close(fd)
		var err error
		if unconnected {
			err = g.sendto(fd, "x", at)
		} else {
			err = g.connect(fd, at)
		}
		if err == nil {
			return "reached " + at
		}
		if !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("refused with %v", err)
		}
		return ""
	}
}

func TestPrivateAddressesAreOutOfReach(t *testing.T) {
	rows := privateAttacks(t)
	g, _ := newGuest(t, www("80/tcp"))
	t.Run("of a guest", func(t *testing.T) { refused(t, g, rows) })
	t.Run("of a guest without programs, which shows that there is a way", func(t *testing.T) { working(t, rows) })

	// Addresses just outside the pools.
	h := host(t)
	for _, p := range []string{"100.63.255.255/32", "100.65.0.1/32", "fd76:7365:7276:1cac::2/128", "fd76:7365:7276:1cae::2/128"} {
		t.Run("but not "+p, func(t *testing.T) {
			onLoopback(t, p)
			g.t, h.t = t, t
			family, a := unix.AF_INET, netip.MustParsePrefix(p).Addr()
			if a.Is6() {
				family = unix.AF_INET6
			}
			l := h.server(family, netip.AddrPortFrom(a, 7777).String())
			defer h.close(l)
			exchange(t, h, l, g, family, h.sockname(l).String())
		})
	}
	t.Run("but not its own", func(t *testing.T) {
		a4, _ := nat.Addresses(666)
		g, _ := newGuest(t, spec(668, nil, a4))
		l := g.server(unix.AF_INET, netip.AddrPortFrom(a4.Addr(), 80).String())
		exchange(t, g, l, g, unix.AF_INET, netip.AddrPortFrom(a4.Addr(), 80).String())
	})
}
