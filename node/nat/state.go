package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
)

// tableState is the state of the tables in the kernel.
type tableState struct {
	layout     string
	generation uint32
	recorded   bool        // the record holds what they contain: nobody changed them since
	empty      bool        // there are no tables
	elements   elementSets // as read; nil if recorded, or if the tables have to be made anew
}

// readState reads what the tables hold, and compares the rest of them with the
// layout.
func (l *layout) readState(last record, ports port.Range) (tableState, error) {
	var s tableState
	var err error
	if s.layout, err = l.version(); err != nil {
		return s, err
	}
	s.layout += fmt.Sprintf(" {%d %d}", ports.First, ports.Last)
	if s.generation, err = generation(); err != nil {
		return s, err
	}
	if s.generation == last.Generation && s.layout == last.Layout {
		if s.recorded, s.empty = true, len(last.Want.Guests) == 0; !s.empty {
			s.elements = elementSets{}
		}
		return s, nil
	}
	parts, err := partsOfTables()
	if err != nil {
		return s, err
	}
	s.empty = len(parts) == 0
	if !reflect.DeepEqual(parts, l.parts()) || s.layout != last.Layout {
		return s, nil
	}
	s.elements, err = l.readElements()
	return s, err
}

// next returns the generation that the record may refer to after a change of ours:
// 0 if somebody else changed something in the meantime.
func (s tableState) next() (uint32, error) {
	g, err := generation()
	if g != s.generation && g != s.generation+1 {
		g = 0
	}
	return g, err
}

// part is a chain or a set; rules counts those of a chain.
type part struct {
	family byte
	kind   string
	name   string
}

// parts returns the chains and sets of the layout, with the number of rules per chain.
func (l *layout) parts() map[part]int {
	parts := map[part]int{}
	for _, s := range l.sets {
		parts[part{byte(s.Table.Family), "set", s.Name}] = 0
	}
	for _, c := range l.chains {
		hook := "chain"
		if c.Hooknum != nil {
			hook = fmt.Sprintf("chain of hook %d, priority %d", *c.Hooknum, *c.Priority)
		}
		key := part{byte(c.Table.Family), hook, c.Name}
		parts[key] = 0
		for _, r := range l.rules {
			if r.Chain == c {
				parts[key]++
			}
		}
	}
	return parts
}

// partsOfTables returns the same for the tables in the kernel.
func partsOfTables() (map[part]int, error) {
	parts := map[part]int{}
	chains := map[part]part{} // by family and name
	for _, family := range []byte{unix.NFPROTO_INET, unix.NFPROTO_ARP} {
		if err := dumpTables(family, unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, func(attrs map[uint16][]byte) {
			c := part{family, "chain", cString(attrs[unix.NFTA_CHAIN_NAME])}
			if hook := attrs[unix.NFTA_CHAIN_HOOK]; hook != nil {
				var of [8]int32
				for kind, value := range attributes(hook) {
					if len(value) == 4 && int(kind) < len(of) {
						of[kind] = int32(binary.BigEndian.Uint32(value))
					}
				}
				c.kind = fmt.Sprintf("chain of hook %d, priority %d", of[unix.NFTA_HOOK_HOOKNUM], of[unix.NFTA_HOOK_PRIORITY])
			}
			parts[c] = 0
			chains[part{family, "", c.name}] = c
		}); err != nil {
			return nil, err
		}
		if err := dumpTables(family, unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, func(attrs map[uint16][]byte) {
			parts[chains[part{family, "", cString(attrs[unix.NFTA_RULE_CHAIN])}]]++
		}); err != nil {
			return nil, err
		}
		if err := dumpTables(family, unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, func(attrs map[uint16][]byte) {
			parts[part{family, "set", cString(attrs[unix.NFTA_SET_NAME])}] = 0
		}); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// dumpTables calls visit for all chains, rules or sets of our table of a family.
func dumpTables(family byte, message, table int, visit func(attrs map[uint16][]byte)) error {
	ask := linux.NetlinkAttribute([]byte{family, 0, 0, 0}, uint16(table), append([]byte(tableName), 0)) // behind struct nfgenmsg
	msgs, err := linux.Netlink(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|uint16(message), unix.NLM_F_DUMP, ask)
	if errors.Is(err, unix.ENOENT) { // no such table
		return nil
	}
	if err != nil {
		return fmt.Errorf("read nftables table %s: %w", tableName, err)
	}
	for _, m := range msgs {
		if len(m) < nl.SizeofNfgenmsg {
			continue
		}
		attrs := map[uint16][]byte{}
		for kind, value := range attributes(m[nl.SizeofNfgenmsg:]) {
			attrs[kind] = value
		}
		if cString(attrs[uint16(table)]) == tableName {
			visit(attrs)
		}
	}
	return nil
}

func cString(b []byte) string { return unix.ByteSliceToString(b) }

// without returns the parts of a that b lacks or has with other values.
func without(a, b Want) Want {
	others := map[int]Guest{}
	for _, g := range b.Guests {
		others[g.XID] = g
	}
	var u Want
	for _, g := range a.Guests {
		if o, there := others[g.XID]; !there || !sameGuest(g, o) {
			u.Guests = append(u.Guests, g)
		}
	}
	kept := map[netip.Addr]bool{}
	for _, addr := range b.Reserved {
		kept[addr] = true
	}
	for _, addr := range a.Reserved {
		if !kept[addr] {
			u.Reserved = append(u.Reserved, addr)
		}
	}
	return u
}

func sameGuest(a, b Guest) bool {
	return a.Name == b.Name && a.Metadata == b.Metadata && slices.Equal(a.Forwards, b.Forwards)
}
