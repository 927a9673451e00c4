package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/probe"
)

// private is mode nat: a network namespace behind the host.
type private struct{}

func (private) Private() bool        { return true }
func (private) Scope() (bool, error) { return false, nil }

func (private) Needs() []*probe.Ability { return []*probe.Ability{probe.NFTables, probe.Veth} }

func (private) Validate(n api.Network) error {
	if len(n.Addresses) > 0 || len(n.Ports) > 0 {
		return errors.New("a nat guest has forwards, not addresses and ports")
	}
	return nil
}

func (private) Addresses(g api.Guest) []netip.Addr {
	v4, v6 := nat.Addresses(g.Context)
	return []netip.Addr{v4.Addr(), v6.Addr()}
}

func (private) Assumed(api.Network) Notes { return Notes{Place: Place{NAT: true}} }

func (private) filter(g api.Guest) nat.Want { return nat.Want{Guests: []nat.Guest{natGuest(g)}} }

// Check refuses nothing: obstacles to private networks may come and go while the guest
// runs.
func (private) Check(ctx context.Context, g *Guest) error {
	if g.Warn == nil {
		return nil
	}
	problems, err := nat.Problems(ctx)
	if err != nil { // of looking at others' packet filters: the guest may work all the same
		problems = append(problems, "cannot tell whether this host forwards packets: "+err.Error())
	}
	for _, p := range problems {
		g.Warn(p)
	}
	return nil
}

func (private) Attach(ctx context.Context, g *Guest) (err error) {
	if g.Notes.Net, err = namespaceID(fmt.Sprintf("/proc/self/fd/%d", g.Netns.Fd())); err != nil {
		return err
	}
	if err := g.Save(); err != nil {
		return err
	}
	return nat.Attach(ctx, g.Netns, g.Context)
}

// Update has nothing to prepare: forwards are in the packet filter alone.
func (private) Update(context.Context, *Guest) error { return nil }

func (private) Drift(ctx context.Context, _ *Survey, guests []*Guest) (map[string][]string, error) {
	behind := make([]nat.Guest, len(guests))
	names := map[int]string{}
	for i, g := range guests {
		behind[i], names[g.Context] = natGuest(g.Guest), g.Name
	}
	found, err := nat.Drift(ctx, behind)
	all := make(map[string][]string, len(found))
	for xid, texts := range found {
		all[names[xid]] = texts
	}
	return all, err
}

func (private) Repair(ctx context.Context, g *Guest) error {
	if err := nat.Attach(ctx, g.Netns, g.Context); err != nil {
		return err
	}
	return PublishAll(ctx, g.Others)
}

func (private) Release(ctx context.Context, g *Guest) error {
	if g.Context == 0 {
		return nil
	}
	return errors.Join(nat.Detach(ctx, g.Context), PublishAll(ctx, g.Others))
}
