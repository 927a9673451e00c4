package rollout

import (
	"context"
	"errors"
	"slices"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Action is what can be done to guests beside what their inventory says.
type Action string

// What can be done to a guest.
const (
	Start   Action = "start"
	Stop    Action = "stop"
	Restart Action = "restart"
	Delete  Action = "delete"
)

// Actions are all.
func Actions() []Action { return []Action{Start, Stop, Restart, Delete} }

// Guests does one thing to guests, on all their hosts at once.
func (f *Fleet) Guests(ctx context.Context, action Action, guests []inventory.Instance) *Report {
	r := f.start("guest "+string(action), Hosts(guests))
	defer r.close()
	r.reach(ctx)
	for _, h := range r.reached() {
		for _, g := range guests {
			if g.Host == h.from {
				h.Plan.act(action, g.Guest, h.State.Guests)
			}
		}
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
		r.done(h, OK)
	})
	for _, h := range r.reached() { // interrupted before their turn
		r.done(h, NotStarted)
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

// act plans one action on one guest.
func (p *Plan) act(action Action, guest *inventory.Guest, have []api.GuestState) {
	name := guest.Name
	i := slices.IndexFunc(have, func(g api.GuestState) bool { return g.Name == name })
	if i < 0 {
		switch {
		case guest.State == "": // whoever named it knows no more of it
			p.refuse(name, errors.New("it is neither in the inventory nor on the host: vsfleet guest status shows all guests"))
		case action != Delete:
			p.refuse(name, errors.New("it is not on the host: vsfleet apply creates it"))
		}
		return
	}
	running := have[i].Status == api.Running
	step := api.Step{Name: name, Why: "you say so"}
	switch {
	case action == Start && !running:
		step.Kind = api.StepStart
	case action == Stop && running:
		step.Kind = api.StepStop
	case action == Restart:
		step.Kind = api.StepRestart
	case action == Delete:
		step.Kind = api.StepDelete
	default:
		return
	}
	p.Steps = append(p.Steps, step)
}
