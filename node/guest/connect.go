package guest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// connect gives a guest its network, and keeps it from the rest.
func (h *Host) connect(ctx context.Context, c Config, sp *procctx.Spec, st *state, warn func(string)) error {
	if sp.PrivateNet {
		sp.Connect = func(netns *os.File) (err error) {
			if st.Net, err = netID(fmt.Sprintf("/proc/self/fd/%d", netns.Fd())); err != nil {
				return err
			}
			if err := h.writeState(c.Name, *st); err != nil {
				return err
			}
			return nat.Attach(ctx, netns, c.Context)
		}
		if warn == nil {
			return nil
		}
		problems, err := nat.Problems(ctx)
		if err != nil { // of a look at what others have done: the guest may work all the same
			problems = append(problems, "cannot tell whether this host forwards packets: "+err.Error())
		}
		for _, p := range problems {
			warn(p)
		}
		return nil
	}
	guard, err := netctx.Guard()
	if err != nil {
		return err
	}
	sp.Scope = guard == netctx.GuardLandlock
	on, err := netctx.Places()
	if err != nil {
		return err
	}
	if err := place(c.Network, on, warn); err != nil {
		return err
	}
	ns := c.netSpec()
	taken, err := netctx.Listeners(ctx, ns)
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		err := h.takenError(taken)
		// A port that a guest was given by name has to be its own. Of an address
		// of its own it may never want the one that the host has.
		if c.Network.Mode == api.ModeShared {
			return err
		}
		if warn != nil {
			warn(err.Error())
		}
	}
	if loose, err := netctx.Ephemeral(c.Network.Ports); err == nil && len(loose) > 0 && warn != nil {
		list := strings.Join(texts(loose), ", ")
		warn(fmt.Sprintf("ports %s are in net.ipv4.ip_local_port_range: any connection may have one just when the guest wants it; keep them with sysctl -w net.ipv4.ip_local_reserved_ports=…", list))
	}
	if warn != nil && len(ns.Ports) > 0 {
		firewalls, err := netctx.Firewalls(ctx)
		for _, f := range firewalls {
			if problem := f.Problem(ns); err == nil && problem != "" {
				warn(problem)
			}
		}
	}
	if problem, err := netctx.PingProblem(c.Context); err == nil && problem != "" && warn != nil {
		warn(problem)
	}
	if names := udpPorts(c.Network); len(names) > 0 && len(c.Network.Addresses) > 1 && warn != nil {
		warn(fmt.Sprintf("a service on %s that listens on the wildcard receives on %s alone: bind each address, or put the one that matters first",
			strings.Join(names, ", "), c.Network.Addresses[0].Addr()))
	}
	if err := netctx.Attach(sp.Cgroup, ns); err != nil {
		return err
	}
	if c.Network.Mode == api.ModeOwn {
		// Remembered before it is done: what vsnode may have added is removed,
		// what the host had before is not.
		missing, err := netctx.Missing(c.Network.Dev, c.Network.Addresses)
		if err != nil {
			return err
		}
		st.Dev, st.Added = c.Network.Dev, missing
		if err := h.writeState(c.Name, *st); err != nil {
			return err
		}
		if err := used(ctx, c.Network.Dev, missing, warn); err != nil {
			return err
		}
		if _, err := netctx.AddAddresses(ctx, c.Network.Dev, c.Network.Addresses); err != nil {
			return err
		}
	}
	if err := netctx.EnsureLoopback6(ctx, netctx.Loopback6(c.Context)); err != nil {
		return err
	}
	if err := netctx.PingFrom(ctx, ns, on); err != nil {
		if st.Pings = false; warn != nil {
			warn(fmt.Sprintf("ping in the guest needs -I ADDRESS: %v", err))
		}
		return h.writeState(c.Name, *st)
	}
	return nil
}

// used refuses addresses that somebody else on the wire has: a guest that was moved
// and still runs where it was, for example. Both would lose their connections.
func used(ctx context.Context, dev string, prefixes []netip.Prefix, warn func(string)) error {
	var addrs []netip.Addr
	for _, p := range prefixes {
		addrs = append(addrs, p.Addr())
	}
	conflicts, err := netctx.Probe(ctx, dev, addrs)
	if err != nil {
		return err
	}
	var taken []string
	for _, c := range conflicts {
		if !c.Gateway {
			taken = append(taken, c.String())
		} else if warn != nil {
			warn(fmt.Sprintf("the router %s on %s answers for address %s: if it is not one that answers for all, another machine has the address", c.HW, dev, c.Addr))
		}
	}
	if len(taken) > 0 {
		return fmt.Errorf("another machine on %s already has %s: stop what has it there, or give the guest another address", dev, strings.Join(taken, ", "))
	}
	return nil
}

// udpPorts are those that a guest was given by name.
func udpPorts(n api.Network) (names []string) {
	for _, r := range n.Ports {
		if r.Proto == port.UDP {
			names = append(names, r.String())
		}
	}
	return names
}

// netSpec is the network context of a guest.
func (c Config) netSpec() netctx.Spec {
	return netctx.Spec{
		XID:       c.Context,
		Addresses: c.Network.Addresses,
		Ports:     c.Network.Ports,
		AllPorts:  c.Network.Mode == api.ModeOwn,
		Metadata:  c.Network.Metadata,
	}
}

// takenError names who holds a port that a guest owns. The host's sshd on
// every address is the oldest pitfall of all: a login to the guest would land
// on the host.
func (h *Host) takenError(taken []netctx.Listener) error {
	names := map[int]string{}
	if guests, err := h.configured(); err == nil {
		for _, g := range guests {
			names[g.Context] = g.Name
		}
		delete(names, 0) // of guests that never ran
	}
	var host, guests []string
	for _, l := range taken {
		if name := names[l.Context]; name != "" {
			guests = append(guests, fmt.Sprintf("guest %s, %s", name, l))
		} else {
			host = append(host, l.String())
		}
	}
	if len(host) == 0 {
		return fmt.Errorf("another guest still listens where this one would: %s; restart that guest, or give one of them other ports", strings.Join(guests, "; "))
	}
	return fmt.Errorf("the host itself listens where the guest would: %s; bind these to the host's own address (sshd: ListenAddress) or give the guest other ports", strings.Join(append(host, guests...), ", "))
}

// place makes sure that a guest's addresses are where its mode has them: those
// that it shares on a device of the host's, its own on the device that they are
// to go onto, or nowhere yet.
func place(n api.Network, on map[netip.Addr]netctx.Place, warn func(string)) error {
	dev := 0
	if n.Mode == api.ModeOwn {
		device, err := net.InterfaceByName(n.Dev)
		if err != nil {
			return fmt.Errorf("device %s: %w", n.Dev, err)
		}
		dev = device.Index
	}
	for _, p := range n.Addresses {
		a := p.Addr()
		at, there := on[a]
		switch {
		case n.Mode == api.ModeShared && !there:
			var have []string
			for b, at := range on {
				if b.IsGlobalUnicast() && !at.Ours {
					have = append(have, b.String())
				}
			}
			slices.Sort(have)
			return fmt.Errorf("it shares address %s, which the host does not have (it has %s): use one of these, or mode own", a, strings.Join(have, ", "))
		case n.Mode == api.ModeOwn && there && at.Index != dev:
			name := fmt.Sprint("number ", at.Index)
			if other, err := net.InterfaceByIndex(at.Index); err == nil {
				name = other.Name
			}
			return fmt.Errorf("address %s is on device %s of the host, and is to go onto %s", a, name, n.Dev)
		case n.Mode == api.ModeOwn && there && !at.Ours && warn != nil:
			warn(fmt.Sprintf("address %s is the host's own: the guest has all ports of it", a))
		}
	}
	return nil
}

// unused are the addresses that no other running guest uses.
func (h *Host) unused(name string, addrs []netip.Prefix) ([]netip.Prefix, error) {
	guests, err := h.started()
	if err != nil {
		return nil, err
	}
	delete(guests, name)
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Prefix) bool {
		for _, g := range guests {
			if slices.ContainsFunc(g.Network.Addresses, func(b netip.Prefix) bool { return a.Addr() == b.Addr() }) {
				return true
			}
		}
		return false
	}), nil
}
