package netctx

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/internal/port"
)

// Spec describes which parts of the network a guest owns.
type Spec struct {
	XID int
	// Addresses of the guest with the prefixes of their subnets. A connection
	// to a subnet comes from the address in it, any other from the first of its
	// family, which a wildcard bind uses as well.
	Addresses []netip.Prefix
	Ports     []port.Range // ports that it may bind on them
	AllPorts  bool         // the addresses are its own: any port
	Metadata  bool         // it may reach the metadata service of the host's cloud
}

// Limits of bpf/settings.h.
const (
	maxAddresses = len(netctxSettings{}.Addresses)
	maxPorts     = len(netctxSettings{}.Ports)
)

// Loopback returns the address that a guest's 127.0.0.1 stands for: 127.x.y.1 with
// its XID in the middle. The other addresses of that /24 are the guest's too.
func Loopback(xid int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(xid >> 8), byte(xid), 1})
}

// Loopback6 returns the address that a guest's ::1 stands for. EnsureLoopback6 adds
// it to lo. fd is the prefix of unique local addresses; the rest spells "vserver".
func Loopback6(xid int) netip.Addr {
	a := [16]byte{0xfd, 'v', 's', 'e', 'r', 'v', 'e', 'r'}
	binary.BigEndian.PutUint16(a[14:], uint16(xid))
	return netip.AddrFrom16(a)
}

// settings returns the spec in the layout of the programs.
func (s Spec) settings(cgroup uint64) (netctxSettings, error) {
	set := netctxSettings{Cgroup: cgroup, Context: uint32(s.XID)}
	if s.XID < 1 || s.XID > 0xffff {
		return set, fmt.Errorf("network context %d: want 1 to 65535", s.XID)
	}
	loop4 := Loopback(s.XID).As4()
	loop4[3] = 0
	set.Loop4.W = words(netip.AddrFrom4(loop4))
	set.Loop6.W = words(Loopback6(s.XID))
	if s.AllPorts {
		set.AllPorts = 1
	}
	var err error
	if set.Sockets, err = socketsPerGuest(); err != nil {
		return set, err
	}
	if s.Metadata {
		set.Metadata = 1
	}
	if len(s.Addresses) == 0 {
		return set, fmt.Errorf("network context %d has no address", s.XID)
	}
	if len(s.Addresses) > maxAddresses {
		return set, fmt.Errorf("network context %d has %d addresses, more than %d", s.XID, len(s.Addresses), maxAddresses)
	}
	for i, p := range s.Addresses {
		a := p.Addr().Unmap()
		if !p.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Zone() != "" || a != p.Addr() {
			return set, fmt.Errorf("network context %d: %s is no address that a guest can own", s.XID, p)
		}
		set.Addresses[i].Addr.W = words(a)
		set.Addresses[i].Mask.W = mask(p)
		if first := &set.First6; a.Is6() && first.W == [4]uint32{} {
			first.W = words(a)
		}
		if first := &set.First4; a.Is4() && first.W == [4]uint32{} {
			first.W = words(a)
		}
	}
	if s.Addresses[0].Addr().Is4() {
		set.FourFirst = 1
	}
	set.AddressesN = uint32(len(s.Addresses))
	ranges, err := merge(s.Ports)
	if err != nil {
		return set, err
	}
	if len(ranges) > maxPorts {
		return set, fmt.Errorf("network context %d has %d ranges of ports, more than %d", s.XID, len(ranges), maxPorts)
	}
	for i, r := range ranges {
		proto := uint32(unix.IPPROTO_TCP)
		if r.Proto == port.UDP {
			proto = unix.IPPROTO_UDP
		}
		set.Ports[i].First, set.Ports[i].Last = proto<<16|uint32(r.First), proto<<16|uint32(r.Last)
	}
	set.PortsN = uint32(len(ranges))
	return set, nil
}

// merge sorts ranges and joins those that overlap or touch.
func merge(ranges []port.Range) ([]port.Range, error) {
	sorted := slices.Clone(ranges)
	order.Func(sorted, func(a, b port.Range) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First))
	})
	var out []port.Range
	for _, r := range sorted {
		if r.Proto != port.TCP && r.Proto != port.UDP || r.First == 0 || r.Last < r.First {
			return nil, fmt.Errorf("%s is no range of ports", r)
		}
		if n := len(out); n > 0 && out[n-1].Proto == r.Proto && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// words returns an address in network order, IPv4 as ::ffff:a.b.c.d.
func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func mask(p netip.Prefix) [4]uint32 {
	var b [16]byte
	for i := range p.Bits() + 128 - p.Addr().BitLen() {
		b[i/8] |= 0x80 >> (i % 8)
	}
	var w [4]uint32
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}
