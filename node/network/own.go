package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
)

// own is mode own: addresses that are added to a device of the host for the guest, with
// all their ports.
type own struct{ hostNetwork }

func (own) Validate(n api.Network) error {
	switch err := validateHostNetwork(n); {
	case err != nil:
		return err
	case n.Dev == "":
		return errors.New("a guest with addresses of its own needs the device that they go onto")
	case len(n.Ports) > 0:
		return errors.New("a guest with addresses of its own has all their ports")
	}
	return nil
}

// Assumed names all addresses; of these, only those marked as vsnode's are removed.
func (own) Assumed(n api.Network) Notes { return Notes{Dev: n.Dev, Added: n.Addresses} }

func (own) filter(g api.Guest) nat.Want {
	want := reserveLoopback6(g)
	for _, a := range g.Network.Addresses {
		want.Reserved = append(want.Reserved, a.Addr())
	}
	return want
}

// Check refuses addresses that another device has. A listener on one of the guest's
// addresses only causes a warning: the guest may never want the port.
func (m own) Check(ctx context.Context, g *Guest) error {
	on, err := g.hostAddresses()
	if err != nil {
		return err
	}
	device, err := net.InterfaceByName(g.Network.Dev)
	if err != nil {
		return fmt.Errorf("device %s: %w", g.Network.Dev, err)
	}
	for _, p := range g.Network.Addresses {
		at, there := on[p.Addr()]
		switch {
		case !there:
		case at.Index != device.Index:
			name := fmt.Sprint("number ", at.Index)
			if other, err := net.InterfaceByIndex(at.Index); err == nil {
				name = other.Name
			}
			return fmt.Errorf("address %s is on device %s of the host, and is to go onto %s", p.Addr(), name, g.Network.Dev)
		case !at.Ours:
			g.warn("address %s is the host's own: the guest has all ports of it", p.Addr())
		}
	}
	err = m.listeners(ctx, g)
	if taken := (*takenError)(nil); errors.As(err, &taken) {
		g.warn("%v", err)
	} else if err != nil {
		return err
	}
	m.warnings(ctx, g)
	return nil
}

func (m own) Attach(ctx context.Context, g *Guest) error {
	if err := m.attachPrograms(g); err != nil {
		return err
	}
	// What vsnode may have added is removed; what the host had before is not.
	missing, err := netctx.MissingAddresses(g.Network.Dev, g.Network.Addresses)
	if err != nil {
		return err
	}
	g.Notes.Dev, g.Notes.Added = g.Network.Dev, missing
	if err := g.Save(); err != nil {
		return err
	}
	if err := refuseDuplicates(ctx, g, missing); err != nil {
		return err
	}
	if _, err := netctx.AddAddresses(ctx, g.Network.Dev, g.Network.Addresses); err != nil {
		return err
	}
	return m.attachLocalhost(ctx, g)
}

// refuseDuplicates refuses addresses that another machine on the network has: for
// example because a guest was moved and still runs on its old host. Both would lose
// their connections.
func refuseDuplicates(ctx context.Context, g *Guest, prefixes []netip.Prefix) error {
	dev := g.Network.Dev
	var addrs []netip.Addr
	for _, p := range prefixes {
		addrs = append(addrs, p.Addr())
	}
	conflicts, err := netctx.Duplicates(ctx, dev, addrs)
	if err != nil {
		return err
	}
	var taken []string
	for _, c := range conflicts {
		if c.Gateway {
			g.warn("the router %s on %s answers for address %s: if it is not one that answers for all, another machine has the address", c.HW, dev, c.Addr)
		} else {
			taken = append(taken, c.String())
		}
	}
	if len(taken) > 0 {
		return fmt.Errorf("another machine on %s already has %s: stop what has it there, or give the guest another address", dev, strings.Join(taken, ", "))
	}
	return nil
}

func (m own) Update(_ context.Context, g *Guest) error {
	return g.inCgroup(func(dir *os.File) error { return netctx.Update(dir, m.spec(g)) })
}

func (m own) Drift(_ context.Context, host *Survey, guests []*Guest) (map[string][]string, error) {
	return eachDrift(guests, func(g *Guest) ([]string, error) {
		view, err := host.netctx()
		if err != nil {
			return nil, err
		}
		gone, err := view.Drift(g.Notes.Dev, g.Network.Addresses)
		if err != nil {
			return nil, err
		}
		more, err := m.drift(host, g)
		return append(gone, more...), err
	})
}

// Repair first notes addresses that were removed and that vsnode had not added: the
// host's own.
func (m own) Repair(ctx context.Context, g *Guest) error {
	missing, err := netctx.MissingAddresses(g.Notes.Dev, g.Network.Addresses)
	if err != nil {
		return err
	}
	g.Notes.Added = slices.Clone(g.Notes.Added)
	for _, p := range missing {
		if !slices.Contains(g.Notes.Added, p) {
			g.Notes.Added = append(g.Notes.Added, p)
		}
	}
	if err := g.Save(); err != nil {
		return err
	}
	if _, err := netctx.AddAddresses(ctx, g.Notes.Dev, g.Network.Addresses); err != nil {
		return err
	}
	return m.repair(ctx, g)
}

func (m own) Release(ctx context.Context, g *Guest) error {
	if len(g.Notes.Added) > 0 {
		unused, err := g.unused()
		if err != nil {
			return err
		}
		if err := netctx.RemoveAddresses(ctx, g.Notes.Dev, unused); err != nil {
			return err
		}
	}
	return m.release(ctx, g)
}

// unused returns the added addresses that no other running guest uses.
func (g *Guest) unused() ([]netip.Prefix, error) {
	guests, err := g.Others.Networks()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(g.Notes.Added), func(a netip.Prefix) bool {
		for name, o := range guests {
			if name != g.Name && slices.ContainsFunc(o.Network.Addresses, func(b netip.Prefix) bool { return a.Addr() == b.Addr() }) {
				return true
			}
		}
		return false
	}), nil
}
