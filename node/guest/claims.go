package guest

import (
	"fmt"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
)

// conflict says what g wants that another guest of the host has: a context, an
// address, a port of a shared address, a port of the host that is forwarded.
// Two guests that claim one thing are refused when they are configured, not
// when one of them binds.
func conflict(g api.Guest, others []api.Guest) error {
	for _, o := range others {
		if o.Name == g.Name {
			continue
		}
		if o.Context == g.Context && g.Context != 0 {
			return fmt.Errorf("context %d is guest %s's", g.Context, o.Name)
		}
		if err := addressConflict(g, o); err != nil {
			return err
		}
		if err := portConflict(g, o); err != nil {
			return err
		}
	}
	return nil
}

func addressConflict(g, o api.Guest) error {
	for _, a := range g.Network.Addresses {
		for _, b := range o.Network.Addresses {
			if a.Addr() == b.Addr() && (g.Network.Mode == api.ModeOwn || o.Network.Mode == api.ModeOwn) {
				return fmt.Errorf("address %s is guest %s's (to use one address with several guests, give each mode shared and its ports)", a.Addr(), o.Name)
			}
		}
	}
	return nil
}

func portConflict(g, o api.Guest) error {
	if f, on := forwardOn(g, o); on {
		return fmt.Errorf("forward %s: address %s is guest %s's own: forward from one of the host's", f, f.Addr, o.Name)
	}
	if f, on := forwardOn(o, g); on {
		return fmt.Errorf("address %s is forwarded to guest %s (%s): a guest's own address cannot be", f.Addr, o.Name, f)
	}
	for _, mine := range g.Network.Ports {
		if o.Network.Mode == api.ModeShared && shareAddress(g, o) {
			for _, theirs := range o.Network.Ports {
				if mine.Overlaps(theirs) {
					return fmt.Errorf("port %s of the shared address is guest %s's (%s)", mine, o.Name, theirs)
				}
			}
		}
		for _, f := range o.Network.Forwards {
			if mine.Overlaps(f.Range()) && reaches(f, g) {
				return fmt.Errorf("port %s is forwarded to guest %s (%s)", mine, o.Name, f)
			}
		}
	}
	for _, mine := range g.Network.Forwards {
		for _, f := range o.Network.Forwards {
			if mine.Range().Overlaps(f.Range()) && (!mine.Addr.IsValid() || !f.Addr.IsValid() || mine.Addr == f.Addr) {
				return fmt.Errorf("port %d/%s of the host is forwarded to guest %s (%s)", mine.Host, mine.Proto, o.Name, f)
			}
		}
		for _, theirs := range o.Network.Ports {
			if theirs.Overlaps(mine.Range()) && reaches(mine, o) {
				return fmt.Errorf("port %d/%s is guest %s's on the address that it shares (%s)", mine.Host, mine.Proto, o.Name, theirs)
			}
		}
	}
	return nil
}

// forwardOn is a forward of g's from an address of o's own, where it would never
// be reached.
func forwardOn(g, o api.Guest) (port.Forward, bool) {
	for _, f := range g.Network.Forwards {
		if o.Network.Mode == api.ModeOwn && f.Addr.IsValid() && reaches(f, o) {
			return f, true
		}
	}
	return port.Forward{}, false
}

func shareAddress(g, o api.Guest) bool {
	for _, a := range g.Network.Addresses {
		for _, b := range o.Network.Addresses {
			if a.Addr() == b.Addr() {
				return true
			}
		}
	}
	return false
}

// reaches says whether a forward takes packets to an address of g.
func reaches(f port.Forward, g api.Guest) bool {
	if !f.Addr.IsValid() {
		return true
	}
	for _, a := range g.Network.Addresses {
		if a.Addr() == f.Addr {
			return true
		}
	}
	return false
}
