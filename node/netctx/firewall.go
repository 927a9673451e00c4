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
	Chain string // as nft names it: "inet filter input"
	open  []port.Range
	addrs []netip.Addr
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
		f := Firewall{Chain: fmt.Sprintf("%s %s %s", family, c.Table.Name, c.Name)}
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

// ClosedPorts returns the ports of a guest that no rule names. It returns none if a
// rule names one of the guest's addresses: then somebody has made rules for it.
func (f Firewall) ClosedPorts(s Spec) (closed []port.Range) {
	for _, p := range s.Addresses {
		if slices.Contains(f.addrs, p.Addr()) {
			return nil
		}
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
	var ports []port.Range
	var addrs []netip.Addr
	var loaded *expr.Payload
	protos := []port.Proto{port.TCP, port.UDP}
	add := func(first, last uint16) {
		for _, p := range protos {
			ports = append(ports, port.Range{Proto: p, First: first, Last: last})
		}
	}
	proto := func(n byte) {
		if i := slices.Index([]byte{6, 17}, n); i >= 0 {
			protos = []port.Proto{[]port.Proto{port.TCP, port.UDP}[i]}
		}
	}
	isPort := func() bool {
		return loaded != nil && loaded.Base == expr.PayloadBaseTransportHeader && loaded.Offset == 2 && loaded.Len == 2
	}
	var meta expr.MetaKey
	var low uint16 // start of a range
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			meta, loaded = e.Key, nil
		case *expr.Payload:
			loaded = e
		case *expr.Cmp:
			switch {
			case isPort() && len(e.Data) == 2 && e.Op == expr.CmpOpGte:
				low = binary.BigEndian.Uint16(e.Data)
			case isPort() && len(e.Data) == 2 && e.Op == expr.CmpOpLte:
				add(low, binary.BigEndian.Uint16(e.Data))
			case e.Op != expr.CmpOpEq:
			case isPort() && len(e.Data) == 2:
				add(binary.BigEndian.Uint16(e.Data), binary.BigEndian.Uint16(e.Data))
			case loaded != nil && loaded.Base == expr.PayloadBaseNetworkHeader && (loaded.Offset == 16 || loaded.Offset == 24):
				if a, ok := netip.AddrFromSlice(e.Data); ok {
					addrs = append(addrs, a)
				}
			case loaded == nil && meta == expr.MetaKeyL4PROTO && len(e.Data) == 1:
				proto(e.Data[0])
			}
		case *expr.Range:
			if isPort() && e.Op == expr.CmpOpEq && len(e.FromData) == 2 && len(e.ToData) == 2 {
				add(binary.BigEndian.Uint16(e.FromData), binary.BigEndian.Uint16(e.ToData))
			}
		case *expr.Lookup:
			if !isPort() || e.Invert {
				break
			}
			elements, err := conn.GetSetElements(&nftables.Set{Table: r.Table, Name: e.SetName})
			if err != nil {
				return err
			}
			for _, el := range elements {
				if len(el.Key) == 2 {
					add(binary.BigEndian.Uint16(el.Key), binary.BigEndian.Uint16(el.Key))
				}
			}
		case *expr.Match: // iptables
			switch info := e.Info.(type) {
			case *xt.Tcp:
				proto(6)
				add(info.DstPorts[0], info.DstPorts[1])
			case *xt.Udp:
				proto(17)
				add(info.DstPorts[0], info.DstPorts[1])
			case *xt.Unknown: // multiport: flags, a count, ports
				if b := *info; e.Name == "multiport" && len(b) >= 32 {
					for i := range min(int(b[1]), 15) {
						p := binary.NativeEndian.Uint16(b[2+2*i:])
						add(p, p)
					}
				}
			}
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				return nil
			}
		case *expr.Reject:
			return nil
		}
	}
	// A match of all ports counts as none (`-p tcp` with a state or a device).
	ports = slices.DeleteFunc(ports, func(p port.Range) bool { return p.First == 0 && p.Last == 0xffff })
	f.open, f.addrs = append(f.open, ports...), append(f.addrs, addrs...)
	return nil
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
