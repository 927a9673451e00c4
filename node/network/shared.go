package network

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
)

// shared is mode shared: ports of addresses that the host has anyway.
type shared struct{ hostNetwork }

func (shared) Validate(n api.Network) error { return validateHostNetwork(n) }

func (shared) Assumed(api.Network) Notes { return Notes{} }

func (shared) filter(g api.Guest) nat.Want { return reserveLoopback6(g) }

// Check refuses addresses that the host does not have, and ports that somebody else
// holds: a port given to a guest explicitly has to be its own.
func (m shared) Check(ctx context.Context, g *Guest) error {
	on, err := g.hostAddresses()
	if err != nil {
		return err
	}
	for _, p := range g.Network.Addresses {
		if _, there := on[p.Addr()]; there {
			continue
		}
		var have []string
		for b, at := range on {
			if b.IsGlobalUnicast() && !at.Ours {
				have = append(have, b.String())
			}
		}
		slices.Sort(have)
		return fmt.Errorf("it shares address %s, which the host does not have (it has %s): use one of these, or mode own (interfaces/dev; vserver NAME build --interface DEV:ADDRESS)", p.Addr(), strings.Join(have, ", "))
	}
	if err := m.listeners(ctx, g); err != nil {
		return err
	}
	m.warnings(ctx, g)
	return nil
}

func (m shared) Attach(ctx context.Context, g *Guest) error {
	if err := m.attachPrograms(g); err != nil {
		return err
	}
	return m.attachLocalhost(ctx, g)
}

// Update takes effect at once. Connections to ports that the guest keeps stay open.
func (m shared) Update(ctx context.Context, g *Guest) error {
	if err := m.listeners(ctx, g); err != nil {
		return err
	}
	return g.inCgroup(func(dir *os.File) error { return netctx.Update(dir, m.spec(g)) })
}

func (m shared) Drift(_ context.Context, host *Survey, guests []*Guest) (map[string][]string, error) {
	return eachDrift(guests, func(g *Guest) ([]string, error) { return m.drift(host, g) })
}

func (m shared) Repair(ctx context.Context, g *Guest) error { return m.repair(ctx, g) }

func (m shared) Release(ctx context.Context, g *Guest) error { return m.release(ctx, g) }
