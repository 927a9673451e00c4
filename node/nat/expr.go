package nat

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The functions below return the parts of which the rules of table.go consist. Each
// is one condition or statement of nft's language, as the kernel takes it. A part may
// use registers from 1 on as scratch.

type exprs = []expr.Any

func rule(words ...exprs) exprs {
	var all exprs
	for _, w := range words {
		all = append(all, w...)
	}
	return all
}

// reg returns the n-th register of four bytes. A concatenated key fills them in
// order, and each of its parts begins in a new one.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

func is(data []byte) expr.Any  { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: data} }
func not(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: data} }

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// fromGuest and toGuest return "iifgroup" and "oifgroup" with our group.
func fromGuest() exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: reg(0)}, is(ourGroup())}
}

func toGuest() exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyOIFGROUP, Register: reg(0)}, is(ourGroup())}
}

func toElsewhere() exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyOIFGROUP, Register: reg(0)}, not(ourGroup())}
}

func ourGroup() []byte { return binaryutil.NativeEndian.PutUint32(group) }

// deviceAndSource loads "iifname . saddr" or "oifname . saddr".
func (f family) deviceAndSource(key expr.MetaKey) exprs {
	return exprs{&expr.Meta{Key: key, Register: reg(0)}, f.load(f.src, reg(unix.IFNAMSIZ/4))}
}

// matches must come before any condition on an address of the family.
func (f family) matches() exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg(0)}, is([]byte{f.number})}
}

func (f family) load(offset, register uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.size, DestRegister: register}
}

func (f family) addrIs(offset uint32, a netip.Addr) exprs {
	return exprs{f.load(offset, reg(0)), is(a.AsSlice())}
}

func (f family) addrNot(offset uint32, a netip.Addr) exprs {
	return exprs{f.load(offset, reg(0)), not(a.AsSlice())}
}

func (f family) addrIn(offset uint32, p netip.Prefix) exprs {
	return exprs{
		f.load(offset, reg(0)),
		&expr.Bitwise{
			SourceRegister: reg(0), DestRegister: reg(0), Len: f.size,
			Mask: net.CIDRMask(p.Bits(), int(f.size)*8), Xor: make([]byte, f.size),
		},
		is(p.Masked().Addr().AsSlice()),
	}
}

// setSource and setDest write an address into the packet. With IPv6 no checksum has
// to be corrected: see "Forwards on localhost" in the package's documentation.
func (f family) setSource(a netip.Addr) exprs { return f.write(f.src, a) }
func (f family) setDest(a netip.Addr) exprs   { return f.write(f.dst, a) }

func (f family) write(offset uint32, a netip.Addr) exprs {
	w := &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: reg(0),
		Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.size,
	}
	if f.size == 4 {
		w.CsumType = expr.CsumTypeInet
		w.CsumOffset = 10 // the header's checksum; the flag is for that of TCP or UDP
		w.CsumFlags = unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR
	}
	return exprs{&expr.Immediate{Register: reg(0), Data: a.AsSlice()}, w}
}

// loadPort puts "meta l4proto . th dport" into two registers.
func loadPort(first uint32) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(first)},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: reg(first + 1)},
	}
}

func in(s *nftables.Set) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg(0), SetName: s.Name}}
}

func notIn(s *nftables.Set) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg(0), SetName: s.Name, Invert: true}}
}

// countsOver returns "add @flows { saddr ct count over most }": it matches the first
// packet of a connection that exceeds the limit.
func countsOver(s *nftables.Set, most uint32) exprs {
	return exprs{&expr.Dynset{
		SrcRegKey: reg(0), SetName: s.Name, Operation: unix.NFT_DYNSET_OP_ADD,
		Exprs: []expr.Any{&expr.Connlimit{Count: most, Flags: expr.NFT_CONNLIMIT_F_INV}},
	}}
}

// arpSource loads "iifname . arp saddr ip".
func arpSource() exprs {
	const senderIP = 14 // in an ARP header for Ethernet and IPv4 (RFC 826)
	return exprs{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: senderIP, Len: 4, DestRegister: reg(unix.IFNAMSIZ / 4)},
	}
}

// dnat sends the packet to the destination that the map has for it.
func (f family) dnat(m *nftables.Set) exprs {
	return exprs{
		&expr.Lookup{SourceRegister: reg(0), DestRegister: reg(0), IsDestRegSet: true, SetName: m.Name},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: uint32(f.number),
			RegAddrMin: reg(0), RegProtoMin: reg(f.size / 4), Specified: true,
		},
	}
}

// service returns "meta l4proto … th dport …".
func service(proto byte, port uint16) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(0)}, is([]byte{proto}),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: reg(0)}, is(bigEndian(port)),
	}
}

// opensNoTCP returns "tcp flags & (syn | ack) != syn".
func opensNoTCP() exprs {
	const syn, ack = 0x02, 0x10
	return exprs{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(0)}, is([]byte{unix.IPPROTO_TCP}),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1, DestRegister: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
		not([]byte{syn}),
	}
}

func icmp(proto, first, last byte) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(0)}, is([]byte{proto}),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1, DestRegister: reg(0)},
		&expr.Range{Op: expr.CmpOpEq, Register: reg(0), FromData: []byte{first}, ToData: []byte{last}},
	}
}

// ofHost returns "fib daddr type local": it matches the host's addresses.
func ofHost() exprs {
	return exprs{
		&expr.Fib{Register: reg(0), FlagDADDR: true, ResultADDRTYPE: true},
		is(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

func conntrack(key expr.CtKey, bits uint32) exprs {
	return exprs{
		&expr.Ct{Key: key, Register: reg(0)},
		&expr.Bitwise{
			SourceRegister: reg(0), DestRegister: reg(0), Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4),
		},
		not(make([]byte, 4)),
	}
}

func established() exprs {
	return conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

func isNew() exprs { return conntrack(expr.CtKeySTATE, expr.CtStateBitNEW) }

func destinationTranslated() exprs {
	const ipsDstNAT = 1 << 5 // enum ip_conntrack_status of linux/netfilter/nf_conntrack_common.h
	return conntrack(expr.CtKeySTATUS, ipsDstNAT)
}

func verdict(k expr.VerdictKind) exprs { return exprs{&expr.Verdict{Kind: k}} }

func jump(c *nftables.Chain) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name}}
}

func masquerade() exprs { return exprs{&expr.Masq{}} }

func reject() exprs {
	return exprs{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}
