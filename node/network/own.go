package network

import (
	"cmp"
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
func (own) Assumed(n api.Network) Notes {
	return Notes{Dev: n.Dev, Added: n.Addresses, Devs: devices(n)}
}

// devices returns the devices of addresses that are not on Dev.
func devices(n api.Network) map[netip.Addr]string {
	var devs map[netip.Addr]string
	for addr, place := range n.Places {
		if place.Dev != "" {
			if devs == nil {
				devs = map[netip.Addr]string{}
			}
			devs[addr] = place.Dev
		}
	}
	return devs
}

// onDevice are addresses of one device.
type onDevice struct {
	dev      string
	prefixes []netip.Prefix
}

// byDevice groups addresses by device, without those for which on returns "".
func byDevice(prefixes []netip.Prefix, on func(netip.Addr) string) (groups []onDevice) {
	for _, p := range prefixes {
		dev := on(p.Addr())
		if dev == "" {
			continue
		}
		i := slices.IndexFunc(groups, func(g onDevice) bool { return g.dev == dev })
		if i < 0 {
			i = len(groups)
			groups = append(groups, onDevice{dev: dev})
		}
		groups[i].prefixes = append(groups[i].prefixes, p)
	}
	return groups
}

// devices returns the guest's addresses by the devices that they went onto.
func (g *Guest) devices() []onDevice {
	n := g.Network
	n.Dev = cmp.Or(g.Notes.Dev, n.Dev)
	return byDevice(n.Addresses, n.On)
}

// looks returns how the guest's addresses are to appear.
func (g *Guest) looks() map[netip.Addr]netctx.Appearance {
	looks := map[netip.Addr]netctx.Appearance{}
	for addr, place := range g.Network.Places {
		look := netctx.Appearance{Broadcast: place.Broadcast}
		if place.Label != "" {
			look.Label = g.Network.On(addr) + ":" + place.Label
		}
		looks[addr] = look
	}
	return looks
}

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
	for _, p := range g.Network.Addresses {
		if err := m.checkPlace(g, p.Addr(), on); err != nil {
			return err
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

// checkPlace refuses an address that is not where it is to be.
func (own) checkPlace(g *Guest, addr netip.Addr, on map[netip.Addr]netctx.HostAddress) error {
	at, there := on[addr]
	dev := g.Network.On(addr)
	if dev == "" {
		if !there {
			return fmt.Errorf("address %s has nodev, and the host does not have it: put it onto a device of the host, or take nodev away", addr)
		}
		g.warn("address %s is the host's own: the guest has all ports of it", addr)
		return nil
	}
	device, err := net.InterfaceByName(dev)
	if err != nil {
		return fmt.Errorf("device %s: %w", dev, err)
	}
	switch {
	case !there:
	case at.Index != device.Index:
		name := fmt.Sprint("number ", at.Index)
		if other, err := net.InterfaceByIndex(at.Index); err == nil {
			name = other.Name
		}
		return fmt.Errorf("address %s is on device %s of the host, and is to go onto %s", addr, name, dev)
	case !at.Ours:
		g.warn("address %s is the host's own: the guest has all ports of it", addr)
	}
	return nil
}

func (m own) Attach(ctx context.Context, g *Guest) error {
	if err := m.attachPrograms(g); err != nil {
		return err
	}
	// What vsnode may have added is removed; what the host had before is not.
	groups := byDevice(g.Network.Addresses, g.Network.On)
	g.Notes.Dev, g.Notes.Devs, g.Notes.Added = g.Network.Dev, devices(g.Network), nil
	missing := make([][]netip.Prefix, len(groups))
	for i, on := range groups {
		var err error
		if missing[i], err = netctx.MissingAddresses(on.dev, on.prefixes); err != nil {
			return err
		}
		g.Notes.Added = append(g.Notes.Added, missing[i]...)
	}
	if err := g.Save(); err != nil {
		return err
	}
	for i, on := range groups {
		if err := refuseDuplicates(ctx, g, on.dev, missing[i]); err != nil {
			return err
		}
	}
	for _, on := range groups {
		if _, err := netctx.AddAddresses(ctx, on.dev, on.prefixes, g.looks()); err != nil {
			return err
		}
	}
	return m.attachLocalhost(ctx, g)
}

// refuseDuplicates refuses addresses that another machine on the network has: for
// example because a guest was moved and still runs on its old host. Both would lose
// their connections.
func refuseDuplicates(ctx context.Context, g *Guest, dev string, prefixes []netip.Prefix) error {
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
		var gone []string
		for _, on := range g.devices() {
			lost, err := view.Drift(on.dev, on.prefixes)
			if err != nil {
				return nil, err
			}
			gone = append(gone, lost...)
		}
		more, err := m.drift(host, g)
		return append(gone, more...), err
	})
}

// Repair first notes addresses that were removed and that vsnode had not added: the
// host's own.
func (m own) Repair(ctx context.Context, g *Guest) error {
	g.Notes.Added = slices.Clone(g.Notes.Added)
	for _, on := range g.devices() {
		missing, err := netctx.MissingAddresses(on.dev, on.prefixes)
		if err != nil {
			return err
		}
		for _, p := range missing {
			if !slices.Contains(g.Notes.Added, p) {
				g.Notes.Added = append(g.Notes.Added, p)
			}
		}
	}
	if err := g.Save(); err != nil {
		return err
	}
	for _, on := range g.devices() {
		if _, err := netctx.AddAddresses(ctx, on.dev, on.prefixes, g.looks()); err != nil {
			return err
		}
	}
	return m.repair(ctx, g)
}

func (m own) Release(ctx context.Context, g *Guest) error {
	if len(g.Notes.Added) > 0 {
		unused, err := g.unused()
		if err != nil {
			return err
		}
		for _, on := range byDevice(unused, func(a netip.Addr) string { return cmp.Or(g.Notes.Devs[a], g.Notes.Dev) }) {
			if err := netctx.RemoveAddresses(ctx, on.dev, on.prefixes); err != nil {
				return err
			}
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
