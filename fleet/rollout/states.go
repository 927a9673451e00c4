package rollout

import (
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

// state is a part of the way of a host through a run. Each kind of run is a road of
// states, see [Fleet]. A host that cannot go on ends there; the others go on.
type state struct {
	name string
	// all is called once, when all remaining hosts are here. Its error ends the run.
	// Hosts do not wait for each other at states without it.
	all func(*run, context.Context) error
	// each is called for every host, Forks of them at a time. Its error ends the
	// host's way.
	each func(*run, context.Context, *host) error
	// judge returns the outcome of a host and ends its way. It is also called for
	// hosts whose turn did not come before the run was interrupted.
	judge func(*run, context.Context, *host) outcome.Outcome
}

// The states and their methods.
var (
	connect = state{name: "connect", each: (*run).connect}                      // to vsnode; take the lease if the run changes the host; ask for its state
	lock    = state{name: "lock", all: (*run).lock}                             // wait for the leases of all hosts
	compare = state{name: "compare", each: (*run).compare}                      // with the inventory: make the plan
	assign  = state{name: "assign", all: (*run).assign}                         // who builds or hands out the images that hosts lack, and add the steps for it
	match   = state{name: "match", all: (*run).match}                           // the plans with those that were saved
	confirm = state{name: "confirm", all: (*run).confirm}                       // that guests are to be deleted
	provide = state{name: "provide", all: (*run).deliver, each: (*run).provide} // the host with the images that it lacks
	change  = state{name: "change", each: (*run).change}                        // the host: take all other steps
	verify  = state{name: "verify", judge: (*run).verify}                       // the results of the steps
	predict = state{name: "predict", judge: (*run).predict}                     // the outcome, in a run that changes nothing
)

// The roads of Plan and Apply. Guests and Each have a state of their own each, in
// place of the comparison and of the change.
var (
	toPlan  = []state{connect, compare, assign, match, predict}
	toApply = []state{connect, lock, compare, assign, match, confirm, provide, change, verify}
)

// follow takes the hosts of a run along a road, and ends the run. The error is that
// of match or confirm: no other state ends the whole run.
func (r *run) follow(ctx context.Context, road ...state) (report.Run, error) {
	defer r.close()
	r.watchBegin()
	var err error
	for len(road) > 0 && err == nil {
		n := 1 + slices.IndexFunc(road[1:], func(s state) bool { return s.all != nil })
		if n == 0 {
			n = len(road)
		}
		err = r.pass(ctx, road[:n], n == len(road))
		road = road[n:]
	}
	for _, h := range r.remaining() {
		h.err = err
		r.done(h, outcome.NotStarted)
	}
	run := r.report()
	r.watch(report.Ended(run))
	return run, err
}

// pass takes the hosts through states at which they do not wait for each other,
// except at the first.
func (r *run) pass(ctx context.Context, states []state, last bool) error {
	if all := states[0].all; all != nil {
		for _, h := range r.remaining() {
			h.reached = states[0].name
		}
		if err := all(r, ctx); err != nil {
			return err
		}
		if len(states) == 1 && states[0].each == nil {
			return nil
		}
	}
	// Hosts that wait for images come last: they would take the turns of others
	// that could go on in the meantime.
	hosts := r.remaining()
	slices.SortStableFunc(hosts, func(a, b *host) int { return imageSteps(a) - imageSteps(b) })
	interrupted := r.each(ctx, hosts, func(ctx context.Context, h *host) { r.walk(ctx, h, states, last) })
	r.delivering.Wait()
	for _, h := range interrupted {
		o := outcome.NotStarted
		if judge := states[len(states)-1].judge; judge != nil {
			o = judge(r, ctx, h)
		}
		r.done(h, o)
	}
	return nil
}

// walk takes one host through states.
func (r *run) walk(ctx context.Context, h *host, states []state, last bool) {
	for _, s := range states {
		h.reached = s.name
		if s.judge != nil {
			r.done(h, s.judge(r, ctx, h))
			return
		}
		if s.each == nil {
			continue
		}
		r.watch(report.Event{Kind: report.Started, Host: h.name, State: s.name})
		if err := s.each(r, ctx, h); err != nil {
			r.fail(ctx, h, err)
			return
		}
		r.watch(report.Event{Kind: report.Done, Host: h.name, State: s.name})
	}
	if last {
		r.done(h, outcome.OK)
	}
}
