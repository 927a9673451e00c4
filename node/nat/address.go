package nat

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// group is the device group of all our veths ("vs"). The rules match it, because a
// pattern of names could match somebody else's vswitch0.
const group = 'v'<<8 | 's'

// gatewayXID stands for the host in the pools. No guest has XID 1, which was
// Linux-VServer's watch context.
const gatewayXID = 1

// Addresses returns the addresses of the guest with this XID, one of each family.
func Addresses(xid int) (v4, v6 netip.Prefix) {
	return netip.PrefixFrom(address4(xid), 32), netip.PrefixFrom(address6(xid), 128)
}

// address4 returns an address in 100.64.0.0/16, part of the block that RFC 6598
// keeps from the Internet and that private networks seldom use.
func address4(xid int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, byte(xid >> 8), byte(xid)})
}

// address6 returns an address in fd76:7365:7276:1cad::/64: "vserv" in a unique local prefix
// (RFC 4193), and the subnet for which the prefix is 0 in ones' complement.
// See "Forwards on localhost" in the package's documentation.
func address6(xid int) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfd, 0x76, 0x73, 0x65, 0x72, 0x76, 0x1c, 0xad,
		14: byte(xid >> 8), 15: byte(xid),
	})
}

// localhosts6 contains the addresses on the host's lo that stand for ::1 in
// guests of the host's network (netctx.Loopback6; a test compares the two).
var localhosts6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x76, 0x73, 0x65, 0x72, 0x76, 0x65, 0x72}), 64)

// hardwareAddr returns the address of eth0. It is locally administered and, like
// the IP addresses, always the same, so that no program in a guest takes the
// device for a new card.
func hardwareAddr(xid int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x76, 0x73, 0x00, byte(xid >> 8), byte(xid)}
}

// linkLocal returns the address that the kernel derives from eth0's hardware
// address (RFC 4291, appendix A).
func linkLocal(xid int) netip.Addr {
	m := hardwareAddr(xid)
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// deviceName returns the name of the host's end of a guest's veth.
func deviceName(xid int) string { return fmt.Sprintf("vs%d", xid) }

func checkXID(xid int) error {
	if xid < api.MinContext || xid > api.MaxContext {
		return fmt.Errorf("context %d is not in %d to %d", xid, api.MinContext, api.MaxContext)
	}
	return nil
}

// family holds the differences between IPv4 and IPv6.
type family struct {
	name     string // suffix of sets and maps
	number   byte   // NFPROTO_*, AF_*
	size     uint32 // size of an address
	src, dst uint32 // offsets of the addresses in the header
	kind     nftables.SetDatatype
	pool     netip.Prefix
	gateway  netip.Addr
	loopback netip.Addr   // address of localhost
	local    netip.Prefix // addresses of loopback
	address  func(xid int) netip.Addr
}

func families() [2]family {
	return [2]family{{
		name: "4", number: unix.NFPROTO_IPV4, size: 4, src: 12, dst: 16,
		kind:     nftables.TypeIPAddr,
		pool:     netip.PrefixFrom(address4(0), 16),
		gateway:  address4(gatewayXID),
		loopback: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		local:    netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8),
		address:  address4,
	}, {
		name: "6", number: unix.NFPROTO_IPV6, size: 16, src: 8, dst: 24,
		kind:     nftables.TypeIP6Addr,
		pool:     netip.PrefixFrom(address6(0), 64),
		gateway:  address6(gatewayXID),
		loopback: netip.IPv6Loopback(),
		local:    netip.PrefixFrom(netip.IPv6Loopback(), 128),
		address:  address6,
	}}
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return families()[0]
	}
	return families()[1]
}

func (f family) has(a netip.Addr) bool { return a.Is4() == (f.size == 4) }
