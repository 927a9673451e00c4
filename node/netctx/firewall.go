package netctx

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/probe"
)

// Firewall is a chain of the host's packet filter that drops incoming packets unless
// a rule accepts them. It applies to guests in the host's network, too.
type Firewall struct {
	Chain  string // as nft names it: "inet filter input"
	family string // of its table: ip, ip6 or inet
	open   []port.Range
	addrs  []netip.Addr
}

// Firewalls returns the chains that drop incoming packets by default. It does not see
// rules of iptables-legacy, which only iptables-legacy can read.
func Firewalls(ctx context.Context) ([]Firewall, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	const list = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETCHAIN
	if chains, err := linux.Netlink(unix.NETLINK_NETFILTER, list, unix.NLM_F_DUMP, make([]byte, 4)); err == nil && len(chains) == 0 { // struct nfgenmsg
		return nil, nil
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var found []Firewall
	for _, c := range chains {
		family, layer3 := map[nftables.TableFamily]string{
			nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
		}[c.Table.Family]
		if !layer3 || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookInput {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, fmt.Errorf("read rules of table %s %s: %w", family, c.Table.Name, err)
		}
		if !probe.DropsByDefault(c, rules) {
			continue
		}
		f := Firewall{family: family, Chain: fmt.Sprintf("%s %s %s", family, c.Table.Name, c.Name)}
		for _, d := range chains { // it may jump to any chain of its table
			if d.Table.Name != c.Table.Name || d.Table.Family != c.Table.Family {
				continue
			}
			rules, err := conn.GetRules(d.Table, d)
			if err != nil {
				return nil, fmt.Errorf("read rules of %s: %w", f.Chain, err)
			}
			for _, r := range rules {
				if err := f.read(conn, r); err != nil {
					return nil, fmt.Errorf("read rules of %s: %w", f.Chain, err)
				}
			}
		}
		found = append(found, f)
	}
	return found, nil
}

// ClosedPorts returns the ports of a guest that no rule names. It returns none if the
// chain sees no packets to the guest's addresses, or if a rule names one of them: then
// somebody has made rules for it.
func (f Firewall) ClosedPorts(s Spec) (closed []port.Range) {
	sees := false
	for _, p := range s.Addresses {
		if slices.Contains(f.addrs, p.Addr()) {
			return nil
		}
		sees = sees || f.family == "inet" || p.Addr().Is6() == (f.family == "ip6")
	}
	if !sees {
		return nil
	}
	for _, r := range s.Ports {
		if !slices.ContainsFunc(f.open, func(o port.Range) bool { return o.Proto == r.Proto && o.First <= r.First && r.Last <= o.Last }) {
			closed = append(closed, r)
		}
	}
	return closed
}

// read adds the destination ports and addresses of a rule that does not drop.
func (f *Firewall) read(conn *nftables.Conn, r *nftables.Rule) error {
	rule := rule{protos: []port.Proto{port.TCP, port.UDP}}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			rule.meta, rule.loaded = e.Key, nil
		case *expr.Payload:
			rule.loaded = e
		case *expr.Cmp:
			rule.compare(e)
		case *expr.Range:
			if rule.isPort(e.FromData) && len(e.ToData) == 2 && e.Op == expr.CmpOpEq {
				rule.add(binary.BigEndian.Uint16(e.FromData), binary.BigEndian.Uint16(e.ToData))
			}
		case *expr.Lookup:
			if e.Invert || !rule.onPort() {
				break
			}
			elements, err := conn.GetSetElements(&nftables.Set{Table: r.Table, Name: e.SetName})
			if err != nil {
				return err
			}
			for _, el := range elements {
				if rule.isPort(el.Key) {
					rule.add(binary.BigEndian.Uint16(el.Key), binary.BigEndian.Uint16(el.Key))
				}
			}
		case *expr.Match:
			rule.match(e)
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				return nil
			}
		case *expr.Reject:
			return nil
		}
	}
	// A match of all ports counts as none (`-p tcp` with a state or a device).
	ports := slices.DeleteFunc(rule.ports, func(p port.Range) bool { return p.First == 0 && p.Last == 0xffff })
	f.open, f.addrs = append(f.open, ports...), append(f.addrs, rule.addrs...)
	return nil
}

// rule is what the expressions of a rule have said up to one of them.
type rule struct {
	protos []port.Proto
	ports  []port.Range
	addrs  []netip.Addr
	// What the next comparison is with: part of the packet, or else of what the kernel knows of it.
	loaded *expr.Payload
	meta   expr.MetaKey
	low    uint16 // the start of a range of ports
}

// onPort reports whether the next comparison is with the destination port of TCP or UDP.
func (r *rule) onPort() bool {
	return r.loaded != nil && r.loaded.Base == expr.PayloadBaseTransportHeader && r.loaded.Offset == 2 && r.loaded.Len == 2
}

// isPort reports whether data is compared with that.
func (r *rule) isPort(data []byte) bool { return len(data) == 2 && r.onPort() }

// isAddress reports whether a comparison is with the destination address of IPv4 or IPv6.
func (r *rule) isAddress() bool {
	return r.loaded != nil && r.loaded.Base == expr.PayloadBaseNetworkHeader && (r.loaded.Offset == 16 || r.loaded.Offset == 24)
}

func (r *rule) add(first, last uint16) {
	for _, p := range r.protos {
		r.ports = append(r.ports, port.Range{Proto: p, First: first, Last: last})
	}
}

func (r *rule) proto(number byte) {
	switch number {
	case unix.IPPROTO_TCP:
		r.protos = []port.Proto{port.TCP}
	case unix.IPPROTO_UDP:
		r.protos = []port.Proto{port.UDP}
	}
}

// compare takes a comparison of nft's.
func (r *rule) compare(e *expr.Cmp) {
	switch {
	case r.isPort(e.Data) && e.Op == expr.CmpOpGte:
		r.low = binary.BigEndian.Uint16(e.Data)
	case r.isPort(e.Data) && e.Op == expr.CmpOpLte:
		r.add(r.low, binary.BigEndian.Uint16(e.Data))
	case e.Op != expr.CmpOpEq:
	case r.isPort(e.Data):
		r.add(binary.BigEndian.Uint16(e.Data), binary.BigEndian.Uint16(e.Data))
	case r.isAddress():
		if a, ok := netip.AddrFromSlice(e.Data); ok {
			r.addrs = append(r.addrs, a)
		}
	case r.loaded == nil && r.meta == expr.MetaKeyL4PROTO && len(e.Data) == 1:
		r.proto(e.Data[0])
	}
}

// match takes a match of iptables'.
func (r *rule) match(e *expr.Match) {
	switch info := e.Info.(type) {
	case *xt.Tcp:
		r.proto(unix.IPPROTO_TCP)
		r.add(info.DstPorts[0], info.DstPorts[1])
	case *xt.Udp:
		r.proto(unix.IPPROTO_UDP)
		r.add(info.DstPorts[0], info.DstPorts[1])
	case *xt.Unknown: // multiport: flags, a count, ports
		if b := *info; e.Name == "multiport" && len(b) >= 32 {
			for i := range min(int(b[1]), 15) {
				p := binary.NativeEndian.Uint16(b[2+2*i:])
				r.add(p, p)
			}
		}
	}
}

// Problem describes why the guest's clients cannot reach it, and the cure. It is
// empty if they can.
func (f Firewall) Problem(s Spec) string {
	var names []string
	for _, r := range f.ClosedPorts(s) {
		names = append(names, r.String())
	}
	if len(names) == 0 {
		return ""
	}
	r := f.ClosedPorts(s)[0]
	which := fmt.Sprint(r.First)
	if r.Last > r.First {
		which = fmt.Sprintf("%d-%d", r.First, r.Last)
	}
	return fmt.Sprintf("chain %[1]s drops what comes in, and no rule there names %[2]s: accept it, as with `nft insert rule %[3]s %[4]s dport %[5]s accept` (ufw: `ufw allow %[6]s/%[4]s`; firewalld: `firewall-cmd --permanent --add-port=%[5]s/%[4]s`, then `--reload`)",
		f.Chain, strings.Join(names, ", "), f.Chain, r.Proto, which, strings.ReplaceAll(which, "-", ":"))
}
