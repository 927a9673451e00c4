package netctx

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A port that the kernel chose is nobody's, and its listener is found all the
// same: by whose socket it is.
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
