package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/port"
)

type networkSpec struct {
	mode, address, dev         text
	metadata                   text
	addresses, ports, forwards []text
	raw                        given[bool]
	unusable                   bool // something is wrong with it that was reported
}

var modes = []string{Shared, Own, NAT}

// network reads a network block. Which keys make sense hangs on the mode.
func (d *decoder) network(net *networkSpec, name string, v *yaml.Node) {
	given := d.fields(name, v, "a mapping, as {mode: shared, ports: [80/tcp]}", []key{
		{"mode", d.text(&net.mode, orList(modes))},
		{"address", d.text(&net.address, "host or an address, as 203.0.113.11")},
		{"addresses", d.texts(&net.addresses, "a list of addresses, as [192.0.2.10/24]")},
		{"dev", d.text(&net.dev, "a network device, as eth0")},
		{"ports", d.texts(&net.ports, "a list of ports, as [80/tcp, 443/tcp]")},
		{"metadata", d.text(&net.metadata, "allow or refuse")},
		{"raw", d.flag(&net.raw)},
		{"forward", d.texts(&net.forwards, `a list of forwards, as ["2222:22/tcp"]`)},
	})
	if _, named := given["mode"]; given == nil || named && !net.mode.ok() {
		return
	}
	mode := cmp.Or(net.mode.value, Shared)
	if err := oneOf("mode", mode, modes); err != nil {
		d.failed(net.mode.pos, err)
		net.unusable = true
		return
	}
	for _, k := range modeKeys {
		pos, named := given[k.name]
		if !named || slices.Contains(k.modes, mode) {
			continue
		}
		d.add(pos, fmt.Sprintf("%s belongs to mode: %s", k.name, orList(k.modes))+k.why, "network: %s makes no sense in mode %s", k.name, mode)
		net.unusable = true
	}
	_, one := given["address"]
	pos, several := given["addresses"]
	if one && several {
		d.add(pos, "", "network: address and addresses are both given, want one of them")
		net.unusable = true
	}
	if mode == Own && !one && (!several || net.addresses != nil && len(net.addresses) == 0) {
		d.add(d.at(target(v)), "give it addresses: [192.0.2.10/24]", "network: mode own has no address")
		net.unusable = true
	}
}

// modeKeys says in which modes the keys of a network make sense.
var modeKeys = []struct {
	name  string
	modes []string
	why   string
}{
	{"address", []string{Shared, Own}, ""},
	{"addresses", []string{Shared, Own}, ""},
	{"dev", []string{Own}, ""},
	{"ports", []string{Shared}, ""},
	{"raw", []string{NAT}, ", where a guest has a network of its own; raw and packet sockets would be the host's elsewhere"},
	{"forward", []string{NAT}, ""},
}

func (r *resolver) network(net *networkSpec, g *Guest) {
	if net.unusable {
		r.failed = true
		return
	}
	g.Mode = cmp.Or(net.mode.value, Shared)
	for _, t := range net.allAddresses() {
		r.value(t, "address", func(s string) error {
			if s == "host" && g.Mode == Shared && t == net.address {
				g.HostAddress = true
				return nil
			}
			prefix, err := parsePrefix(s, g.Mode)
			g.Addresses = append(g.Addresses, prefix)
			return err
		})
	}
	g.HostAddress = g.HostAddress || g.Mode == Shared && len(net.allAddresses()) == 0
	if g.Mode == Own && r.scope.host != nil {
		g.Dev = r.scope.host.Netdev
	}
	r.value(net.dev, "dev", func(s string) error {
		g.Dev = s
		return checkDevice(s)
	})
	r.value(net.metadata, "metadata", func(s string) error {
		g.Metadata = s == "allow"
		if err := oneOf("metadata", s, []string{"allow", "refuse"}); err != nil {
			return err
		}
		return nil
	})
	g.Raw = net.raw.ok() && net.raw.value
	for _, t := range net.ports {
		r.value(t, "ports", func(s string) error {
			p, err := port.Parse(s)
			g.Ports = append(g.Ports, p)
			return err
		})
	}
	for _, t := range net.forwards {
		r.value(t, "forward", func(s string) error {
			f, err := port.ParseForward(s)
			g.Forwards = append(g.Forwards, f)
			return err
		})
	}
}

// allAddresses are the addresses as they were given, in either way.
func (net *networkSpec) allAddresses() []text {
	if net.address.ok() {
		return []text{net.address}
	}
	return net.addresses
}

// parsePrefix reads an address of a guest, with the prefix that goes onto the
// device in mode own.
func parsePrefix(s, mode string) (netip.Prefix, error) {
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

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}
