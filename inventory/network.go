package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// networkSpec are the settings that need more than their rows of the table: the
// mode, and the addresses, whose form depends on it.
type networkSpec struct {
	mode, address text
	addresses     []text
	unusable      bool // a mistake in it was reported
}

var modes = []setting.Mode{Shared, Own, NAT}

// network reads a network block. Which keys make sense depends on the mode.
func (d *decoder) network(g *guestSpec, name string, v *yaml.Node) {
	net := &g.network
	given := d.Fields(name, v, "a mapping, as {mode: shared, ports: [80/tcp]}", append(g.settings.keys(d, "network"), []key{
		{Name: "mode", Read: d.Text(&net.mode, orList(modes))},
		{Name: "address", Read: d.Text(&net.address, "host or an address, as 203.0.113.11")},
		{Name: "addresses", Read: d.Texts(&net.addresses, "a list of addresses, as [192.0.2.10/24]")},
	}...))
	if _, named := given["mode"]; given == nil || named && !net.mode.OK() {
		return
	}
	mode := cmp.Or(setting.Mode(net.mode.Value), Shared)
	if err := oneOf("mode", mode, modes); err != nil {
		d.Failed(net.mode.Pos, err)
		net.unusable = true
		return
	}
	for _, row := range setting.In("network") {
		pos, named := given[row.Name()]
		if !named || row.Modes == nil || slices.Contains(row.Modes, mode) {
			continue
		}
		d.Add(pos, fmt.Sprintf("%s belongs to mode: %s", row.Name(), orList(row.Modes))+row.ModesWhy, "network: %s makes no sense in mode %s", row.Name(), mode)
		net.unusable = true
	}
	_, one := given["address"]
	pos, several := given["addresses"]
	if one && several {
		d.Add(pos, "", "network: address and addresses are both given, want one of them")
		net.unusable = true
	}
	if mode == Own && !one && (!several || net.addresses != nil && len(net.addresses) == 0) {
		d.Add(d.At(yamlpos.Target(v)), "give it addresses: [192.0.2.10/24]", "network: mode own has no address")
		net.unusable = true
	}
}

// network sets the mode and the addresses of g, and its device if the host has one
// for guests.
func (r *resolver) network(net *networkSpec, g *Guest) {
	if net.unusable {
		r.failed = true
		return
	}
	to := &g.Network
	to.Mode = cmp.Or(setting.Mode(net.mode.Value), Shared)
	for _, t := range net.allAddresses() {
		r.value(t, "address", func(s string) error {
			if s == "host" && to.Mode == Shared && t == net.address {
				g.HostAddress = true
				return nil
			}
			prefix, err := parsePrefix(s, to.Mode)
			to.Addresses = append(to.Addresses, prefix)
			return err
		})
	}
	g.HostAddress = g.HostAddress || to.Mode == Shared && len(net.allAddresses()) == 0
	if to.Mode == Own && r.scope.host != nil {
		to.Dev = r.scope.host.Netdev
	}
}

// allAddresses returns the addresses, whichever key gave them.
func (net *networkSpec) allAddresses() []text {
	if net.address.OK() {
		return []text{net.address}
	}
	return net.addresses
}

// parsePrefix returns an address of a guest, with its prefix, which in mode own is
// set on the device.
func parsePrefix(s string, mode setting.Mode) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	if addr, bad := netip.ParseAddr(s); bad == nil && mode == Shared && addr.Zone() == "" {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	} else if bad == nil && mode == Own {
		return netip.Prefix{}, &Error{
			Msg:  fmt.Sprintf("address: %s has no prefix, which goes onto the device", s),
			Hint: fmt.Sprintf("write %s/%d, or the length that your network has", s, min(addr.BitLen(), map[bool]int{true: 24, false: 64}[addr.Is4()])),
		}
	}
	addr := prefix.Addr()
	switch {
	case err != nil && mode == Shared:
		return netip.Prefix{}, fmt.Errorf("want host or an address, as 203.0.113.11, have %q", s)
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("want an address with its prefix, as 192.0.2.10/24, have %q", s)
	case addr.Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 address in IPv6 form, write it as %s", s, addr.Unmap())
	case addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Prefix{}, fmt.Errorf("%s is no address that a machine can have", s)
	case addr.Is4() && prefix.Bits() < 31 && (addr == prefix.Masked().Addr() || addr == broadcast(prefix)):
		return netip.Prefix{}, fmt.Errorf("%s is the address of a whole network, not of a machine in it", s)
	}
	return prefix, nil
}

// broadcast returns the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}
