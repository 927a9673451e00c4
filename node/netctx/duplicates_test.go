package netctx

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestProbeFindsWhoHasAnAddress(t *testing.T) {
	onTheWire(t)
	wire := func(dev string) *netlink.LinkAttrs {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs()
	}
	theirs, free := []string{"10.78.0.99", "fd78::99"}, []string{"10.78.0.98", "fd78::98"}
	var addrs []netip.Addr
	for _, a := range append(theirs, free...) {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	for _, a := range theirs { // the wire is there
		waitFor(t, a+" to answer", func() bool { return answers(host(t), "", a) })
	}
	learned, err := netlink.NeighList(wire("wire0").Index, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	found, err := Duplicates(t.Context(), "wire0", addrs)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < neighbourWait/2 || took > 20*neighbourWait {
		t.Errorf("took %v, of %v", took, neighbourWait)
	}
	byAddr := map[string]Duplicate{}
	for _, c := range found {
		byAddr[c.Addr.String()] = c
	}
	for _, a := range theirs {
		hw := ""
		for _, n := range learned {
			if n.IP.String() == a {
				hw = n.HardwareAddr.String()
			}
		}
		if c := byAddr[a]; c.HW.String() != hw || hw == "" || c.Gateway {
			t.Errorf("%s: found %+v, the neighbour is %s", a, c, hw)
		}
	}
	if len(found) != len(theirs) {
		t.Errorf("found %v", found)
	}
	// A router may answer for others.
	if err := netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}, Gw: addrs[0].AsSlice()}); err != nil {
		t.Fatal(err)
	}
	if found, err = Duplicates(t.Context(), "wire0", addrs[:1]); err != nil || len(found) != 1 || !found[0].Gateway {
		t.Errorf("of a gateway: %+v, %v", found, err)
	}
	if found, err := Duplicates(t.Context(), "lo", addrs); err != nil || found != nil {
		t.Errorf("lo: %v, %v", found, err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(uint16(0x0806), arp(make([]byte, 6), netip.MustParseAddr("192.0.2.1")))
	f.Add(uint16(0x86dd), advertisement(make([]byte, 6), netip.MustParseAddr("2001:db8::1")))
	f.Fuzz(func(t *testing.T, proto uint16, p []byte) {
		if a, hw := parseAnswer(proto, p); a.IsValid() != (len(hw) == 6) {
			t.Errorf("%v %v", a, hw)
		}
	})
}
