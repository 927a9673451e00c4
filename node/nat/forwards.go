package nat

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vsfleet/vsfleet/internal/port"
)

// inward is one forward in one family: what the table's maps are made of.
type inward struct {
	addr  netip.Addr // of the host; invalid: each of the family
	proto port.Proto
	port  uint16
	to    netip.AddrPort
	owner string
}

func (w inward) String() string {
	if !w.addr.IsValid() {
		return fmt.Sprintf("%s %d to %s", w.proto, w.port, w.to)
	}
	return fmt.Sprintf("%s %s to %s", w.proto, netip.AddrPortFrom(w.addr, w.port), w.to)
}

// clashes says whether a packet to the host could mean both.
func (w inward) clashes(o inward) bool {
	return w.proto == o.proto && w.port == o.port && w.to.Addr().Is4() == o.to.Addr().Is4() &&
		(w.addr == o.addr || !w.addr.IsValid() || !o.addr.IsValid())
}

// inwards resolves the guests' forwards and refuses two that claim one port.
// It changes the order of nothing that it is given.
func inwards(guests []Guest) ([]inward, error) {
	type claim struct {
		proto port.Proto
		port  uint16
	}
	var all []inward
	var errs []error
	claims := map[claim][]inward{}
	xids := map[int]string{}
	for _, g := range guests {
		if err := checkXID(g.XID); err != nil {
			errs = append(errs, fmt.Errorf("guest %s: %w", g.Name, err))
			continue
		}
		if other, taken := xids[g.XID]; taken {
			errs = append(errs, fmt.Errorf("guests %s and %s have one context, %d", other, g.Name, g.XID))
		}
		xids[g.XID] = g.Name
		for _, fw := range g.Forwards {
			if err := check(fw); err != nil {
				errs = append(errs, fmt.Errorf("guest %s: forward %s: %w", g.Name, fw, err))
				continue
			}
			for _, w := range resolve(g, fw) {
				key := claim{w.proto, w.port}
				if i := slices.IndexFunc(claims[key], w.clashes); i >= 0 {
					errs = append(errs, fmt.Errorf("guests %s and %s both want port %s of the host: give one of them another",
						claims[key][i].owner, g.Name, fw.Range()))
					break // of the other family it would say the same
				}
				claims[key] = append(claims[key], w)
				all = append(all, w)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b inward) int {
		return cmp.Or(a.to.Compare(b.to), cmp.Compare(a.proto, b.proto), cmp.Compare(a.port, b.port), a.addr.Compare(b.addr))
	})
	return all, nil
}

func check(fw port.Forward) error {
	switch {
	case fw.Proto != port.TCP && fw.Proto != port.UDP:
		return fmt.Errorf("protocol is %q, want tcp or udp", fw.Proto)
	case fw.Host == 0 || fw.Guest == 0:
		return errors.New("port 0 cannot be forwarded")
	case fw.Addr.IsUnspecified() || fw.Addr.Is4In6():
		return fmt.Errorf("%s is not an address that packets carry: leave it out to mean every address", fw.Addr)
	case fw.Addr.Is6() && fw.Addr.IsLinkLocalUnicast():
		return fmt.Errorf("%s is link-local: name a global address of the host, or none", fw.Addr)
	case fw.Addr.IsLoopback() && fw.Addr != families()[0].loopback && fw.Addr != families()[1].loopback:
		return fmt.Errorf("%s is not the host's: on loopback only 127.0.0.1 and ::1 are", fw.Addr)
	}
	return nil
}

// resolve makes of a forward one for each family that it is for: no address
// means every address of both.
func resolve(g Guest, fw port.Forward) []inward {
	var ws []inward
	for _, f := range families() {
		if !fw.Addr.IsValid() || f.has(fw.Addr) {
			to := netip.AddrPortFrom(f.address(g.XID), fw.Guest)
			ws = append(ws, inward{addr: fw.Addr, proto: fw.Proto, port: fw.Host, to: to, owner: g.Name})
		}
	}
	return ws
}

// resolveAll is inwards for guests whose forwards are known to be in order.
func resolveAll(guests []Guest) []inward {
	var all []inward
	for _, g := range guests {
		for _, fw := range g.Forwards {
			all = append(all, resolve(g, fw)...)
		}
	}
	return all
}
