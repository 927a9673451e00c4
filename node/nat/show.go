package nat

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

// Show reads back from the kernel what the table does: the guests by XID with
// their forwards. One that is for both families is shown once. Without a table,
// there are none.
func Show(ctx context.Context) ([]Guest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	guests, err := show()
	if err != nil {
		return nil, fmt.Errorf("read nftables table inet %s: %w", tableName, err)
	}
	return guests, nil
}

// Holds says whether the table does for these guests what Sync would have it do:
// its rules are there, and so are the guests.
func Holds(ctx context.Context, guests []Guest) (bool, error) {
	if whole, err := rulesThere(); err != nil || !whole {
		return false, err
	}
	shown, err := Show(ctx)
	if err != nil {
		return false, err
	}
	for _, g := range guests {
		i := slices.IndexFunc(shown, func(s Guest) bool { return s.XID == g.XID })
		if i < 0 || len(shown[i].Forwards) != len(g.Forwards) || shown[i].Metadata != g.Metadata {
			return false, nil
		}
		for _, f := range g.Forwards {
			if !slices.Contains(shown[i].Forwards, f) {
				return false, nil
			}
		}
	}
	return true, nil
}

// rulesThere looks for a chain of ours that was emptied: each has rules.
func rulesThere() (bool, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return false, err
	}
	defer conn.CloseLasting()
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables chains: %w", err)
	}
	ours := 0
	for _, c := range chains {
		if c.Table.Name != tableName {
			continue
		}
		ours++
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return false, fmt.Errorf("read nftables chain %s: %w", c.Name, err)
		}
		if len(rules) == 0 {
			return false, nil
		}
	}
	return ours > 0, nil
}

func show() ([]Guest, error) {
	if there, err := hasTable(); err != nil || !there {
		return nil, err
	}
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	sets, err := conn.GetSets(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	if err != nil {
		return nil, err
	}
	elements := map[string][]nftables.SetElement{}
	for _, s := range sets {
		if elements[s.Name], err = conn.GetSetElements(s); err != nil {
			return nil, err
		}
	}
	guests := map[int]*Guest{}
	for _, f := range families() {
		for _, e := range elements["guests"+f.name] {
			if len(e.Key) < unix.IFNAMSIZ+int(f.size) {
				return nil, fmt.Errorf("an element of guests%s has %d bytes", f.name, len(e.Key))
			}
			xid := xidOf(e.Key[unix.IFNAMSIZ:][:f.size])
			guests[xid] = cmp.Or(guests[xid], &Guest{XID: xid, Name: e.Comment})
			guests[xid].Metadata = slices.ContainsFunc(elements["metadata"], func(m nftables.SetElement) bool {
				return bytes.Equal(m.Key, e.Key[:unix.IFNAMSIZ])
			})
		}
		for name, keyed := range map[string]uint32{"any": 0, "at": f.size} {
			for _, e := range elements[name+f.name] {
				if len(e.Key) < int(keyed)+8 || len(e.Val) < int(f.size)+2 {
					return nil, fmt.Errorf("an element of %s%s has %d and %d bytes", name, f.name, len(e.Key), len(e.Val))
				}
				addr, _ := netip.AddrFromSlice(e.Key[:keyed]) // none, for any
				fw := port.Forward{
					Addr: addr, Proto: port.TCP,
					Host:  binary.BigEndian.Uint16(e.Key[keyed+4:]),
					Guest: binary.BigEndian.Uint16(e.Val[f.size:]),
				}
				if e.Key[keyed] == unix.IPPROTO_UDP {
					fw.Proto = port.UDP
				}
				g := guests[xidOf(e.Val[:f.size])]
				if g != nil && !slices.Contains(g.Forwards, fw) {
					g.Forwards = append(g.Forwards, fw)
				}
			}
		}
	}
	all := make([]Guest, 0, len(guests))
	for _, g := range guests {
		slices.SortFunc(g.Forwards, func(a, b port.Forward) int {
			return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Proto, b.Proto), a.Addr.Compare(b.Addr))
		})
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b Guest) int { return cmp.Compare(a.XID, b.XID) })
	return all, nil
}

// xidOf is the other way round of address4 and address6.
func xidOf(addr []byte) int { return int(binary.BigEndian.Uint16(addr[len(addr)-2:])) }
