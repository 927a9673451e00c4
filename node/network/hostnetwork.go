package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/probe"
)

// hostNetwork is the common part of modes shared and own: guests in the host's network
// namespace, kept apart by programs on their cgroups.
type hostNetwork struct {
	allPorts bool // the guest has all ports of its addresses
}

func (hostNetwork) Private() bool { return false }

func (hostNetwork) Needs() []*probe.Ability {
	return []*probe.Ability{probe.CgroupBPF, probe.BPFFS, probe.AbstractSockets, probe.SocketDiag}
}

func (hostNetwork) Scope() (bool, error) {
	guard, err := netctx.Guard()
	return guard == netctx.GuardLandlock, err
}

func validateHostNetwork(n api.Network) error {
	switch {
	case len(n.Addresses) == 0:
		return fmt.Errorf("a guest in mode %s needs an address", n.Mode)
	case len(n.Forwards) > 0:
		return errors.New("only a nat guest has forwards")
	case n.Raw:
		return errors.New("only a nat guest has raw and packet sockets: they would be in the host's network")
	}
	return nil
}

func (hostNetwork) Addresses(g api.Guest) []netip.Addr {
	addrs := make([]netip.Addr, len(g.Network.Addresses))
	for i, p := range g.Network.Addresses {
		addrs[i] = p.Addr()
	}
	return addrs
}

// reserveLoopback6 keeps forwards from the address that stands for a guest's ::1.
func reserveLoopback6(g api.Guest) nat.Want {
	return nat.Want{Reserved: []netip.Addr{netctx.Loopback6(g.Context)}}
}

// spec returns the network context of a guest.
func (m hostNetwork) spec(g *Guest) netctx.Spec {
	return netctx.Spec{
		XID:       g.Context,
		Addresses: g.Network.Addresses,
		Ports:     g.Network.Ports,
		AllPorts:  m.allPorts,
		Metadata:  g.Network.Metadata,
	}
}

// warnings returns warnings of what may not work as the guest expects.
func (m hostNetwork) warnings(ctx context.Context, g *Guest) {
	if g.Warn == nil {
		return
	}
	spec := m.spec(g)
	if loose, err := netctx.EphemeralPorts(spec.Ports); err == nil && len(loose) > 0 {
		g.warn("ports %s are in net.ipv4.ip_local_port_range: any connection may have one just when the guest wants it; keep them with sysctl -w net.ipv4.ip_local_reserved_ports=…", join(loose))
	}
	if len(spec.Ports) > 0 {
		firewalls, err := netctx.Firewalls(ctx)
		for _, f := range firewalls {
			if problem := f.Problem(spec); err == nil && problem != "" {
				g.Warn(problem)
			}
		}
	}
	if problem, err := netctx.PingProblem(g.Context); err == nil && problem != "" {
		g.Warn(problem)
	}
	var udp []port.Range
	for _, r := range spec.Ports {
		if r.Proto == port.UDP {
			udp = append(udp, r)
		}
	}
	if len(udp) > 0 && len(spec.Addresses) > 1 {
		g.warn("a service on %s that listens on the wildcard receives on %s alone: bind each address, or put the one that matters first", join(udp), spec.Addresses[0].Addr())
	}
}

func join(ports []port.Range) string {
	texts := make([]string, len(ports))
	for i, r := range ports {
		texts[i] = r.String()
	}
	return strings.Join(texts, ", ")
}

// attachPrograms must be called before the guest's first process starts: a socket is
// judged by the cgroup that it was made in.
func (m hostNetwork) attachPrograms(g *Guest) error {
	return g.inCgroup(func(dir *os.File) error { return netctx.Attach(dir, m.spec(g)) })
}

// attachLocalhost gives the guest its ::1, and its pings their source address.
func (m hostNetwork) attachLocalhost(ctx context.Context, g *Guest) error {
	if err := netctx.EnsureLoopback6(ctx, netctx.Loopback6(g.Context)); err != nil {
		return err
	}
	on, err := g.hostAddresses()
	if err != nil {
		return err
	}
	if err := netctx.PingFrom(ctx, m.spec(g), on); err != nil {
		g.warn("ping in the guest needs -I ADDRESS: %v", err)
		g.Notes.Pings = false
		return g.Save()
	}
	return nil
}

// eachDrift calls f for each guest.
func eachDrift(guests []*Guest, f func(*Guest) ([]string, error)) (map[string][]string, error) {
	all := map[string][]string{}
	for _, g := range guests {
		gone, err := f(g)
		if err != nil {
			return nil, err
		}
		if len(gone) > 0 {
			all[g.Name] = gone
		}
	}
	return all, nil
}

// drift returns what is missing of what attachPrograms and attachLocalhost gave.
func (m hostNetwork) drift(host *Survey, g *Guest) ([]string, error) {
	view, err := host.netctx()
	if err != nil {
		return nil, err
	}
	gone, err := view.Loopback6Drift(netctx.Loopback6(g.Context))
	if err != nil {
		return nil, err
	}
	if g.Notes.Pings {
		more, err := view.PingDrift(m.spec(g))
		if err != nil {
			return nil, err
		}
		gone = append(gone, more...)
	}
	err = g.inCgroup(func(dir *os.File) error {
		more, err := view.ProgramDrift(dir)
		gone = append(gone, more...)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it has just been stopped
	}
	return gone, err
}

// repair repeats what attachPrograms and attachLocalhost did; all of it may still be
// there.
func (m hostNetwork) repair(ctx context.Context, g *Guest) error {
	if err := netctx.EnsureLoopback6(ctx, netctx.Loopback6(g.Context)); err != nil {
		return err
	}
	if g.Notes.Pings {
		on, err := g.hostAddresses()
		if err != nil {
			return err
		}
		if err := netctx.PingFrom(ctx, m.spec(g), on); err != nil {
			return err
		}
	}
	return g.inCgroup(func(dir *os.File) error { return netctx.Restore(dir, m.spec(g)) })
}

// release undoes attachLocalhost. The programs are removed with the cgroup.
func (hostNetwork) release(ctx context.Context, g *Guest) error {
	if g.Context == 0 {
		return nil
	}
	return errors.Join(netctx.DropPing(ctx, g.Context), netctx.DropLoopback6(ctx, netctx.Loopback6(g.Context)))
}

// inCgroup opens the directory of the guest's cgroup.
func (g *Guest) inCgroup(f func(*os.File) error) error {
	dir, err := linux.Open(g.Cgroup, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(dir)
}
