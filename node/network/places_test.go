package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/vsfleet/vsfleet/node/api"
)

// A guest of an old tree: addresses on two devices, one with a label and a broadcast
// address, and one that the host has.
func TestAddressesOnSeveralDevices(t *testing.T) {
	ctx := context.Background()
	before := kernelState(t)
	host := netip.MustParseAddr("198.51.100.1")
	n := api.Network{Mode: api.ModeOwn, Addresses: prefixes("198.51.100.78/24", "203.0.113.5/24", "198.51.100.1/24"), Dev: "eth0",
		Places: map[netip.Addr]api.Place{
			netip.MustParseAddr("203.0.113.5"): {Dev: "peer0", Label: "www", Broadcast: netip.MustParseAddr("203.0.113.127")},
			host:                               {NoDev: true},
		}}
	g := newGuest(t, Own, n)
	var warned []string
	g.Warn = func(text string) { warned = append(warned, text) }
	p := newProcess(t, g.Cgroup, g.Context, false)
	attach(t, Own, g)
	if !slices.ContainsFunc(warned, func(s string) bool { return strings.Contains(s, "198.51.100.1 is the host's own") }) {
		t.Errorf("warned %q", warned)
	}
	want := "198.51.100.78/24 eth0 198.51.100.255 on eth0\n203.0.113.5/24 peer0:www 203.0.113.127 on peer0"
	if got := placed(t); got != want {
		t.Errorf("addresses\n%s\nwant\n%s", got, want)
	}
	for _, address := range []string{"203.0.113.5:8080", "198.51.100.1:8080"} {
		if got := p.tell(t, "listen "+address); got != "ok" || !serves(t, address) {
			t.Errorf("%s does not serve: %s", address, got)
		}
	}

	takeAddress(t, "peer0", "203.0.113.5/24")
	gone, err := Own.Drift(ctx, &Survey{}, []*Guest{g})
	must(t, err)
	if len(gone["www"]) != 1 || gone["www"][0] != "address 203.0.113.5 is gone from peer0" {
		t.Errorf("gone: %v", gone)
	}
	must(t, Own.Repair(ctx, g))
	if got := placed(t); got != want {
		t.Errorf("repaired: addresses\n%s\nwant\n%s", got, want)
	}
	release(t, Own, g, p)
	if after := kernelState(t); after != before {
		t.Errorf("there was\n%s\nand is\n%s", before, after)
	}

	// By its settings, if the notes are lost; and an address that the host must have.
	g = newGuest(t, Own, n)
	p = newProcess(t, g.Cgroup, g.Context, false)
	attach(t, Own, g)
	*g.Notes = Own.Assumed(g.Network)
	release(t, Own, g, p)
	if after := kernelState(t); after != before {
		t.Errorf("without notes there was\n%s\nand is\n%s", before, after)
	}
	g.Network.Addresses = prefixes("198.51.100.3/24")
	g.Network.Places = map[netip.Addr]api.Place{netip.MustParseAddr("198.51.100.3"): {NoDev: true}}
	g.places = nil
	if err := Own.Check(ctx, g); err == nil || !strings.Contains(err.Error(), "has nodev, and the host does not have it") {
		t.Errorf("check: %v", err)
	}
}

// placed lists the IPv4 addresses of the guest's devices, but the host's.
func placed(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, dev := range []string{"eth0", "peer0"} {
		link, err := netlink.LinkByName(dev)
		must(t, err)
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		must(t, err)
		for _, a := range addrs {
			if a.IP.String() != "198.51.100.1" {
				lines = append(lines, fmt.Sprintf("%s %s %s on %s", a.IPNet, a.Label, a.Broadcast, dev))
			}
		}
	}
	return strings.Join(lines, "\n")
}
