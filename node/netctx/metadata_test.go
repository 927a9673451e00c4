package netctx

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/nat"
)

// metadataAttacks returns attacks on the metadata services of clouds. The lists of
// node/nat and bpf/settings.h must be the same.
func metadataAttacks(t *testing.T) (rows []attack) {
	for _, text := range []string{
		"169.254.169.254", "169.254.170.2", "169.254.0.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
		"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42",
	} {
		a := netip.MustParseAddr(text)
		onLoopback(t, netip.PrefixFrom(a, a.BitLen()).String())
		family := unix.AF_INET
		if a.Is6() {
			family = unix.AF_INET6
		}
		rows = append(rows,
			attack{"connect to " + text, false, private(family, unix.SOCK_STREAM, a, false)},
			attack{"connect to " + text + " with UDP", false, private(family, unix.SOCK_DGRAM, a, false)},
			attack{"send to " + text, false, private(family, unix.SOCK_DGRAM, a, true)},
		)
		if a.Is4() {
			mapped := netip.AddrFrom16(a.As16())
			rows = append(rows, attack{"connect to " + text + " as IPv6", false, private(unix.AF_INET6, unix.SOCK_STREAM, mapped, false)},
				attack{"ping " + text, false, func(t *testing.T, g, h *machine) string {
					fd := g.mustSocket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
					defer g.close(fd)
					g.must("bind", g.bind(fd, "10.77.0.10:0"))
					g.do(call{Op: "sendto", FD: fd, Data: []byte{8, 0, 0, 0, 0, 1, 0, 1}, Addr: netip.AddrPortFrom(a, 0)})
					return received(g, fd, netip.Addr{})
				}})
		}
	}
	return rows
}

func TestMetadataIsOutOfReach(t *testing.T) {
	rows := metadataAttacks(t)
	s := www("80/tcp")
	g, cg := newGuest(t, s)
	t.Run("of a guest", func(t *testing.T) { refused(t, g, rows) })
	t.Run("of a guest without programs, which shows that there is a way", func(t *testing.T) { working(t, rows) })

	h := host(t)
	for _, at := range []string{"169.254.169.254:53", "168.63.129.16:53", "169.254.169.254:123", "[fd00:ec2::254]:53"} {
		t.Run("but a resolver or a clock there, "+at, func(t *testing.T) {
			g.t, h.t = t, t
			family, to := unix.AF_INET, netip.MustParseAddrPort(at)
			if to.Addr().Is6() {
				family = unix.AF_INET6
			}
			r := h.receiver(family, at)
			defer h.close(r)
			fd := g.mustSocket(family, unix.SOCK_DGRAM, 0)
			defer g.close(fd)
			g.must("sendto", g.sendto(fd, "x", at))
			if data, _, err := h.recv(r); data != "x" {
				t.Errorf("it hears %q, %v", data, err)
			}
			if to.Port() == 53 {
				l := h.server(family, at)
				defer h.close(l)
				exchange(t, h, l, g, family, at)
			}
		})
	}
	t.Run("but one that is a client of the guest", func(t *testing.T) { // Azure's health probes
		g.t, h.t = t, t
		l := g.server(unix.AF_INET, "10.77.0.10:80")
		defer g.close(l)
		fd := h.tcp4()
		defer h.close(fd)
		h.must("bind", h.bind(fd, "168.63.129.16:0"))
		h.must("connect", h.connect(fd, "10.77.0.10:80"))
		r := g.do(call{Op: "accept", FD: l})
		g.must("accept", r.err())
		g.close(r.N)
	})
	for _, p := range []string{"169.253.255.255/32", "169.255.0.0/32", "100.100.100.201/32", "fd00:ec1::254/128", "fd20:ce::253/128"} {
		t.Run("but not "+p+", which is beside", func(t *testing.T) {
			onLoopback(t, p)
			g.t, h.t = t, t
			a := netip.MustParsePrefix(p).Addr()
			family := unix.AF_INET
			if a.Is6() {
				family = unix.AF_INET6
			}
			at := netip.AddrPortFrom(a, 7777).String()
			l := h.server(family, at)
			defer h.close(l)
			exchange(t, h, l, g, family, at)
		})
	}
	t.Run("until it is allowed, live", func(t *testing.T) {
		s.Metadata = true
		if err := Update(cg, s); err != nil {
			t.Fatal(err)
		}
		for _, a := range rows {
			t.Run(a.name, func(t *testing.T) {
				g.t, h.t = t, t
				if a.try(t, g, h) == "" {
					t.Error("refused")
				}
			})
		}
	})
}

// TestMetadataListsAgree compares the lists of node/nat and the programs.
func TestMetadataListsAgree(t *testing.T) {
	g, _ := newGuest(t, www())
	for _, p := range nat.Metadata() {
		for _, a := range []netip.Addr{p.Addr(), p.Addr().Next()} {
			if !p.Contains(a) || a.IsLinkLocalUnicast() && a.Is6() {
				continue
			}
			fd := g.udp6()
			to := netip.AddrFrom16(a.As16())
			if err := g.sendto(fd, "x", netip.AddrPortFrom(to, 80).String()); err != unix.EHOSTUNREACH {
				t.Errorf("%s, of node/nat's %s: %v", a, p, err)
			}
			g.close(fd)
		}
	}
}
