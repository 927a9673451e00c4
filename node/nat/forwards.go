package nat

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vsfleet/vsfleet/internal/claim"
	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/internal/port"
)

// translation is one forward in one family. The table's maps are made from these.
type translation struct {
	addr  netip.Addr // of the host; invalid: each of the family
	proto port.Proto
	port  uint16
	to    netip.AddrPort
	owner string
}

func (w translation) String() string {
	if !w.addr.IsValid() {
		return fmt.Sprintf("%s %d to %s", w.proto, w.port, w.to)
	}
	return fmt.Sprintf("%s %s to %s", w.proto, netip.AddrPortFrom(w.addr, w.port), w.to)
}

// translations resolves the guests' forwards and returns an error if two claim the
// same port. It does not reorder its arguments.
func translations(guests []Guest) ([]translation, error) {
	var all []translation
	var errs []error
	var taken claim.Table[string] // by guest name
	for _, g := range guests {
		if err := checkXID(g.XID); err != nil {
			errs = append(errs, fmt.Errorf("guest %s: %w", g.Name, err))
			continue
		}
		context := claim.OfContext(g.XID)
		if others := taken.Conflicts(context); len(others) > 0 {
			errs = append(errs, fmt.Errorf("guests %s and %s have one context, %d", others[0].Owner, g.Name, g.XID))
		}
		taken.Add(g.Name, context)
		for _, fw := range g.Forwards {
			if err := check(fw); err != nil {
				errs = append(errs, fmt.Errorf("guest %s: forward %s: %w", g.Name, fw, err))
				continue
			}
			forward := claim.OfForward(claim.At(fw.Addr), fw)
			if others := taken.Conflicts(forward); len(others) > 0 {
				errs = append(errs, fmt.Errorf("guests %s and %s both want port %s of the host: give one of them another",
					others[0].Owner, g.Name, fw.Range()))
			}
			taken.Add(g.Name, forward)
			all = append(all, resolve(g, fw)...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	order.Func(all, func(a, b translation) int {
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

// resolve returns a translation for each family of the forward. A forward without
// an address is for every address of both.
func resolve(g Guest, fw port.Forward) []translation {
	var ws []translation
	for _, f := range families() {
		if !fw.Addr.IsValid() || f.has(fw.Addr) {
			to := netip.AddrPortFrom(f.address(g.XID), fw.Guest)
			ws = append(ws, translation{addr: fw.Addr, proto: fw.Proto, port: fw.Host, to: to, owner: g.Name})
		}
	}
	return ws
}

// resolveAll is like translations, for guests whose forwards are known to be valid.
func resolveAll(guests []Guest) []translation {
	var all []translation
	for _, g := range guests {
		for _, fw := range g.Forwards {
			all = append(all, resolve(g, fw)...)
		}
	}
	return all
}
