package rollout

import (
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/inventory"
)

// Guests does one thing to guests, on all their hosts at once.
func (f *Fleet) Guests(ctx context.Context, action plan.Action, guests []inventory.Instance) *Report {
	r := f.start("guest "+string(action), Hosts(guests))
	defer r.close()
	r.reach(ctx)
	for _, h := range r.reached() {
		var here []*inventory.Guest
		for _, g := range guests {
			if g.Host == h.from {
				here = append(here, g.Guest)
			}
		}
		h.Plan = plan.Act(action, here, h.State.Guests)
	}
	r.carryOut(ctx, nil)
	return r.report()
}

// Each has every host do something that changes it and is not a step: do
// returns what the host said of it.
func (f *Fleet) Each(ctx context.Context, reason string, hosts []*inventory.Host, do func(context.Context, Node) (string, error)) *Report {
	r := f.start(reason, hosts)
	defer r.close()
	r.reach(ctx)
	r.each(ctx, r.reached(), func(ctx context.Context, h *host) {
		if h.Said, h.Err = do(ctx, h.node); h.Err != nil {
			r.fail(ctx, h, h.Err)
			return
		}
		r.done(h, outcome.OK)
	})
	for _, h := range r.reached() { // interrupted before their turn
		r.done(h, outcome.NotStarted)
	}
	return r.report()
}

// Hosts returns the hosts of the guests, each once, in their order.
func Hosts(guests []inventory.Instance) []*inventory.Host {
	var hosts []*inventory.Host
	for _, g := range guests {
		if !slices.Contains(hosts, g.Host) {
			hosts = append(hosts, g.Host)
		}
	}
	return hosts
}
