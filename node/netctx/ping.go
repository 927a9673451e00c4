package netctx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/probe"
)

// No cgroup hook sees the socket that sends a ping (sendto, not connected), so the
// route chooses its source: the host's first address, from which the guest may send
// nothing. An nftables table replaces it with the guest's address, according to the
// user that owns the socket, before the packet is checked. It changes only ICMP packets
// from the host's own sockets, and exists only while a guest needs it.
const pingTable = "vservers_ping"

const pingLock = "ping.lock"

// uidsOfGuest masks the part of a user id that holds the XID (see procctx.BaseID).
const uidsOfGuest = 0xffff0000

// pingFamily holds the parts of the table for one family.
type pingFamily struct {
	number, icmp  byte
	next          uint32 // offset of the protocol in the header
	offset, size  uint32 // of the source in the header
	checksum      uint32 // offset from the beginning of the header
	kind          nftables.SetDatatype
	local         netip.Prefix
	sources, owns *nftables.Set // uid : address; uid . address
}

type pings struct {
	conn     *nftables.Conn
	table    *nftables.Table
	there    bool
	families [2]*pingFamily
}

// PingFrom makes a guest's pings leave from its first address of each family. It
// does nothing if the host has no other address that could be chosen as the source. on
// holds the host's addresses. All guests share the table; other guests' entries stay.
func PingFrom(ctx context.Context, s Spec, on map[netip.Addr]HostAddress) error {
	var want []netip.Addr
	if s.mayBeMistaken(on) {
		for _, p := range s.Addresses {
			want = append(want, p.Addr())
		}
	}
	if err := setPings(ctx, s.XID, want); err != nil {
		return fmt.Errorf("set the source of pings of network context %d: %w", s.XID, err)
	}
	return nil
}

// behindHost lists the networks behind the host (is_private of bpf/settings.h). The
// host's address in them is a source only for packets to their guests.
var behindHost = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16"), netip.MustParsePrefix("fd76:7365:7276:1cad::/64")}

// mayBeMistaken reports whether the host has an address that is not the guest's, is of
// a family that the guest has, and could become the source. Addresses added for other
// guests do not count: the kernel prefers the host's own, and they come and go while
// others run.
func (s Spec) mayBeMistaken(on map[netip.Addr]HostAddress) bool {
	owns := func(a netip.Addr) bool {
		return slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	}
	localhosts := netip.PrefixFrom(Loopback6(0), 64)
	for a, place := range on {
		behind := slices.ContainsFunc(behindHost, func(p netip.Prefix) bool { return p.Contains(a) })
		if a.IsGlobalUnicast() && !localhosts.Contains(a) && !behind && !place.Ours && !owns(a) &&
			slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() }) {
			return true
		}
	}
	return false
}

// DropPing removes the guest from the table.
func DropPing(ctx context.Context, xid int) error {
	if err := setPings(ctx, xid, nil); err != nil {
		return fmt.Errorf("remove the source of pings of network context %d: %w", xid, err)
	}
	return nil
}

// PingProblem returns what keeps a guest's groups from opening a ping socket, and the
// cure. It is empty if nothing does.
func PingProblem(xid int) (string, error) {
	first, last, err := probe.PingGroups()
	if err != nil {
		return "", err
	}
	base := int64(xid) << 16
	switch {
	case first <= base && base+0xffff <= last:
		return "", nil
	case base > 1<<31-1:
		return "ping is not permitted in the guest: net.ipv4.ping_group_range ends at context 32767; give it a lower context", nil
	}
	return fmt.Sprintf(`ping is not permitted in the guest: net.ipv4.ping_group_range is %d %d; sysctl -w net.ipv4.ping_group_range="0 2147483647"`, first, last), nil
}

// setPings replaces a guest's addresses in the table. The first of each family is its
// source.
func setPings(ctx context.Context, xid int, addrs []netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// Most guests need no entry. Without nftables there is nothing to remove.
	if there, err := pingsThere(); len(addrs) == 0 && (err != nil || !there) {
		return nil
	}
	unlock, err := lock(ctx, pingLock)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := openPings()
	if err != nil {
		return err
	}
	if !p.there && len(addrs) == 0 { // removed meanwhile
		return nil
	}
	if !p.there {
		if err := p.create(); err != nil {
			return err
		}
	}
	left := len(addrs) // elements that the table has afterwards
	for _, f := range p.families {
		uid := binaryutil.NativeEndian.PutUint32(uint32(xid) << 16)
		var own []nftables.SetElement
		var source []nftables.SetElement
		for _, a := range addrs {
			if a.Is4() != (f.size == 4) {
				continue
			}
			if source == nil {
				source = []nftables.SetElement{{Key: uid, Val: a.AsSlice()}}
			}
			own = append(own, nftables.SetElement{Key: slices.Concat(uid, a.AsSlice())})
		}
		for set, want := range map[*nftables.Set][]nftables.SetElement{f.sources: source, f.owns: own} {
			others, err := p.replace(set, uid, want)
			if err != nil {
				return err
			}
			left += others
		}
	}
	if left == 0 {
		p.conn.DelTable(p.table)
	}
	return p.conn.Flush()
}

// replace adds changes to the transaction that give the set these elements of a guest,
// and returns the number of elements of others.
func (p *pings) replace(set *nftables.Set, uid []byte, want []nftables.SetElement) (others int, err error) {
	var old []nftables.SetElement
	if p.there {
		have, err := p.conn.GetSetElements(set)
		if err != nil {
			return 0, fmt.Errorf("read set %s: %w", set.Name, err)
		}
		for _, e := range have {
			if bytes.HasPrefix(e.Key, uid) {
				old = append(old, nftables.SetElement{Key: e.Key, Val: e.Val})
			} else {
				others++
			}
		}
	}
	if len(old) > 0 {
		if err := p.conn.SetDeleteElements(set, old); err != nil {
			return 0, err
		}
	}
	if len(want) > 0 {
		err = p.conn.SetAddElements(set, want)
	}
	return others, err
}

// pingContexts returns the XIDs of the guests in the table.
func pingContexts() (map[int]bool, error) {
	on := map[int]bool{}
	p, err := openPings()
	if err != nil {
		return nil, err
	}
	for _, f := range p.families {
		if !p.there {
			break
		}
		have, err := p.conn.GetSetElements(f.sources)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", f.sources.Name, err)
		}
		for _, e := range have {
			on[int(binaryutil.NativeEndian.Uint32(e.Key)>>16)] = true
		}
	}
	return on, nil
}

// pingsThere reports whether there is a table.
func pingsThere() (bool, error) {
	ask := linux.NetlinkAttribute([]byte{unix.NFPROTO_INET, 0, 0, 0}, unix.NFTA_TABLE_NAME, append([]byte(pingTable), 0)) // behind struct nfgenmsg
	_, err := linux.Netlink(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, 0, ask)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// openPings begins a transaction and finds the table.
func openPings() (*pings, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	p := &pings{conn: conn, table: &nftables.Table{Name: pingTable, Family: nftables.TableFamilyINet}}
	p.families = [2]*pingFamily{
		{number: unix.NFPROTO_IPV4, icmp: unix.IPPROTO_ICMP, next: 9, offset: 12, size: 4, checksum: 10, kind: nftables.TypeIPAddr,
			local: netip.MustParsePrefix("127.0.0.0/8")},
		{number: unix.NFPROTO_IPV6, icmp: unix.IPPROTO_ICMPV6, next: 6, offset: 8, size: 16, checksum: 40 + 2, kind: nftables.TypeIP6Addr,
			local: netip.PrefixFrom(netip.IPv6Loopback(), 128)},
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	p.there = slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == pingTable })
	for i, f := range p.families {
		name := []string{"4", "6"}[i]
		f.sources = &nftables.Set{Table: p.table, Name: "source" + name, KeyType: nftables.TypeUID, DataType: f.kind, IsMap: true}
		f.owns = &nftables.Set{Table: p.table, Name: "own" + name, Concatenation: true}
		if f.owns.KeyType, err = nftables.ConcatSetType(nftables.TypeUID, f.kind); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// create adds the creation of the table, without guests, to the transaction.
func (p *pings) create() error {
	p.conn.AddTable(p.table)
	// Before conntrack (-200), so that it records the packet as it is sent.
	accept, raw := nftables.ChainPolicyAccept, nftables.ChainPriority(-310)
	output := p.conn.AddChain(&nftables.Chain{
		Table: p.table, Name: "output", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: &raw, Policy: &accept,
	})
	for _, f := range p.families {
		if err := errors.Join(p.conn.AddSet(f.sources, nil), p.conn.AddSet(f.owns, nil)); err != nil {
			return err
		}
		c := p.conn.AddChain(&nftables.Chain{Table: p.table, Name: f.sources.Name})
		add := func(to *nftables.Chain, words ...expr.Any) {
			p.conn.AddRule(&nftables.Rule{Table: p.table, Chain: to, Exprs: words})
		}
		is := func(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: pingReg(0), Data: b} }
		source := func(n uint32) expr.Any {
			return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.size, DestRegister: pingReg(n)}
		}
		user := []expr.Any{
			&expr.Meta{Key: expr.MetaKeySKUID, Register: pingReg(0)},
			&expr.Bitwise{SourceRegister: pingReg(0), DestRegister: pingReg(0), Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(uidsOfGuest), Xor: make([]byte, 4)},
		}
		write := &expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: pingReg(0), Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.size}
		// In IPv4 the header has a checksum of its own. In ICMPv6 the message after the
		// header has one, which includes the addresses.
		write.CsumType, write.CsumOffset = expr.CsumTypeInet, f.checksum
		add(output,
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: pingReg(0)}, is([]byte{f.number}),
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.next, Len: 1, DestRegister: pingReg(0)}, is([]byte{f.icmp}),
			&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name})
		// An address that the program bound stays, as does localhost.
		add(c, append(slices.Clone(user), source(1),
			&expr.Lookup{SourceRegister: pingReg(0), SetName: f.owns.Name, SetID: f.owns.ID},
			&expr.Verdict{Kind: expr.VerdictAccept})...)
		add(c, source(0),
			&expr.Bitwise{SourceRegister: pingReg(0), DestRegister: pingReg(0), Len: f.size,
				Mask: prefixMask(f.local), Xor: make([]byte, f.size)},
			is(f.local.Addr().AsSlice()), &expr.Verdict{Kind: expr.VerdictAccept})
		add(c, append(slices.Clone(user),
			&expr.Lookup{SourceRegister: pingReg(0), DestRegister: pingReg(0), IsDestRegSet: true, SetName: f.sources.Name, SetID: f.sources.ID},
			write)...)
	}
	return nil
}

// pingReg returns the n-th register of four bytes.
func pingReg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

func prefixMask(p netip.Prefix) []byte {
	b := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}
