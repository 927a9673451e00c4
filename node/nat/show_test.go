package nat

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

// Show reads the guests and their forwards back from the kernel, sorted by XID. A
// forward for both families is returned once. Without a table, Show returns none.
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

func show() ([]Guest, error) {
	l, err := newLayout()
	if err != nil {
		return nil, err
	}
	if parts, err := partsOfTables(); err != nil || len(parts) == 0 {
		return nil, err
	}
	elements, err := l.readElements()
	if err != nil {
		return nil, err
	}
	guests := map[int]*Guest{}
	for _, f := range families() {
		for _, e := range elements["guests"+f.name] {
			if len(e.Key) < unix.IFNAMSIZ+int(f.size) {
				return nil, fmt.Errorf("an element of guests%s has %d bytes", f.name, len(e.Key))
			}
			xid := xidOf(e.Key[unix.IFNAMSIZ:][:f.size])
			guests[xid] = cmp.Or(guests[xid], &Guest{XID: xid, Name: e.Comment})
			_, guests[xid].Metadata = elements["metadata"][string(e.Key[:unix.IFNAMSIZ])]
		}
		for name, keyed := range map[string]uint32{"any": 0, "at": f.size} {
			for _, e := range elements[name+f.name] {
				if len(e.Key) < int(keyed)+8 || len(e.Val) < int(f.size)+2 {
					return nil, fmt.Errorf("an element of %s%s has %d and %d bytes", name, f.name, len(e.Key), len(e.Val))
				}
				addr, _ := netip.AddrFromSlice(e.Key[:keyed]) // empty for any address
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

// xidOf is the inverse of address4 and address6.
func xidOf(addr []byte) int { return int(binary.BigEndian.Uint16(addr[len(addr)-2:])) }
