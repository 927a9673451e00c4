package netctx

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLocalhostOfAGuestIsClosedToTheHost has a process of the host connect to services
// on a guest's localhost, which trust clients from there. Like every user of the host,
// it may bind any address of 127.0.0.0/8, and the one that stands for ::1.
func TestLocalhostOfAGuestIsClosedToTheHost(t *testing.T) {
	for _, s := range []Spec{www(), spec(120, []string{"8080/tcp", "8080/udp"}, hostAddr, hostAddr6)} {
		g, _ := newGuest(t, s)
		h := host(t)
		four, six := Loopback(s.XID).String(), Loopback6(s.XID).String()
		other := netip.AddrFrom4([4]byte{127, byte(s.XID >> 8), byte(s.XID), 9}).String()
		for _, c := range []struct {
			family           int
			listen           string
			from, to, inside string
			errno            unix.Errno
		}{
			{unix.AF_INET, "127.0.0.1", "", four, "127.0.0.1", unix.ECONNREFUSED},
			{unix.AF_INET, "0.0.0.0", "", four, "127.0.0.1", unix.ECONNREFUSED},
			{unix.AF_INET, "127.0.0.1", other, four, "127.0.0.1", unix.EINPROGRESS},
			{unix.AF_INET, "0.0.0.0", other, four, "127.0.0.1", unix.EINPROGRESS},
			{unix.AF_INET, "127.0.0.1", hostAddr.Addr().String(), four, "127.0.0.1", unix.EINPROGRESS},
			{unix.AF_INET6, "::1", "", six, "::1", unix.EINPROGRESS},
			{unix.AF_INET6, "::", "", six, "::1", unix.EINPROGRESS},
			{unix.AF_INET6, "::1", hostAddr6.Addr().String(), six, "::1", unix.EINPROGRESS},
		} {
			t.Run(fmt.Sprintf("%d/%s from %q", s.XID, c.listen, c.from), func(t *testing.T) {
				g.t, h.t = t, t
				at := func(addr string) string { return netip.AddrPortFrom(netip.MustParseAddr(addr), 8080).String() }
				client := func(kind int) int {
					fd := h.mustSocket(c.family, kind, 0)
					if c.from != "" {
						h.must("bind", h.bind(fd, netip.AddrPortFrom(netip.MustParseAddr(c.from), 0).String()))
					}
					return fd
				}
				l := g.server(c.family, at(c.listen))
				defer g.close(l)
				r := g.mustSocket(c.family, unix.SOCK_DGRAM, 0)
				defer g.close(r)
				if c.family == unix.AF_INET6 {
					g.must("IPv6 alone", g.setsockopt(r, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, word(1)))
				}
				g.must("bind", g.bind(r, at(c.listen)))

				fd := client(unix.SOCK_STREAM)
				defer h.close(fd)
				if err := h.connect(fd, at(c.to)); err != c.errno {
					t.Errorf("TCP: %v, want %v", err, c.errno)
				}
				d := client(unix.SOCK_DGRAM)
				defer h.close(d)
				h.sendto(d, "from the host", at(c.to))

				// The guest itself is let in, by TCP and UDP, and by no other datagram first.
				exchange(t, g, l, g, c.family, at(c.inside))
				for _, bound := range []string{"", map[int]string{unix.AF_INET: "0.0.0.0:0", unix.AF_INET6: "[::]:0"}[c.family]} {
					own := g.mustSocket(c.family, unix.SOCK_DGRAM, 0)
					if bound != "" {
						g.must("bind", g.bind(own, bound))
					}
					g.must("send", g.sendto(own, "from the guest", at(c.inside)))
					data, from, err := g.recv(r)
					if err != nil || data != "from the guest" {
						t.Fatalf("UDP: the guest receives %q from %v, %v", data, from, err)
					}
					g.must("answer", g.sendto(r, "answer", from.String()))
					if data, _, err := g.recv(own); err != nil || data != "answer" {
						t.Errorf("UDP: the answer is %q, %v", data, err)
					}
					g.close(own)
				}
			})
		}
	}
}
