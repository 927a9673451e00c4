package netctx

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

func loaderMain() int { return 0 }

func www(ports ...string) Spec  { return spec(666, wwwAddr, wwwAddr6, ports) }
func mail(ports ...string) Spec { return spec(125, mailAddr, mailAddr6, ports) }

func spec(xid int, a, a6 netip.Prefix, ports []string) Spec {
	s := Spec{XID: xid, Addresses: []netip.Prefix{a, a6}, AllPorts: len(ports) == 0}
	for _, text := range ports {
		r, err := port.Parse(text)
		if err != nil {
			panic(err)
		}
		s.Ports = append(s.Ports, r)
	}
	return s
}

func TestWildcardIsTheGuestsAddress(t *testing.T) {
	g, _ := newGuest(t, www("80/tcp"))
	h := host(t)
	l := g.server(unix.AF_INET, "0.0.0.0:80")
	c := h.tcp4()
	h.must("connect to the guest", h.connect(c, "10.77.0.10:80"))
	_, peer, err := g.accept(l)
	g.must("accept", err)
	t.Log(peer, g.sockname(l))
}
