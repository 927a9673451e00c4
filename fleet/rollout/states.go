package rollout

import (
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

// state is a place on the way of a host through a run. Each kind of run is a
// road of states, see [Fleet]. A host that cannot go on is done; the others go
// on without it.
type state struct {
	name string
	// all is called once, when all hosts that go on have come here. States
	// without it do not wait: each host goes on by itself. Its error ends the run.
	all func(*run, context.Context) error
	// each is called for every host, for Forks hosts at a time. Its error ends the
	// host's way.
	each func(*run, context.Context, *host) error
	// judge ends the road: it decides what came of a host. It is also called for
	// hosts that the run did not come to before it was interrupted.
	judge func(*run, context.Context, *host) outcome.Outcome
}

// The states, and the methods that take hosts through them.
var (
	connect = state{name: "connect", each: (*run).connect}                     // to vsnode, which says what the host has; with its lease, if it is to be changed
	lock    = state{name: "lock", all: (*run).lock}                            // until no other run changes any of the hosts
	compare = state{name: "compare", each: (*run).compare}                     // with the inventory: a plan
	assign  = state{name: "assign", all: (*run).assign}                        // who builds or hands out the images that hosts lack: steps of the plans, too
	confirm = state{name: "confirm", all: (*run).confirm}                      // that guests are deleted
	provide = state{name: "provide", all: (*run).supply, each: (*run).provide} // the host with the images
	change  = state{name: "change", each: (*run).change}                       // by all other steps
	verify  = state{name: "verify", judge: (*run).verify}                      // what came of the steps
	predict = state{name: "predict", judge: (*run).predict}                    // what would come of them
)

// The roads of Plan and Apply. Those of Guests and Each have a state of their
// own in the place of the plan and of the change.
var (
	toPlan  = []state{connect, compare, assign, predict}
	toApply = []state{connect, lock, compare, assign, confirm, provide, change, verify}
)

// along takes the hosts of a run along a road, and ends it. An error is one of
// the run: of the states above, only confirm has it.
func (r *run) along(ctx context.Context, road ...state) (report.Run, error) {
	defer r.close()
	var err error
	for len(road) > 0 && err == nil {
		n := 1 + slices.IndexFunc(road[1:], func(s state) bool { return s.all != nil })
		if n == 0 {
			n = len(road)
		}
		err = r.pass(ctx, road[:n], n == len(road))
		road = road[n:]
	}
	for _, h := range r.left() {
		h.Err = err
		r.done(h, outcome.NotStarted)
	}
	return r.report(), err
}

// pass takes the hosts through states of which only the first may wait for all
// of them.
func (r *run) pass(ctx context.Context, states []state, last bool) error {
	if all := states[0].all; all != nil {
		for _, h := range r.left() {
			h.Reached = states[0].name
		}
		if err := all(r, ctx); err != nil {
			return err
		}
		if len(states) == 1 && states[0].each == nil {
			return nil
		}
	}
	// Hosts that wait for images come last, so that they hold no place in
	// which others could be done in the meantime.
	hosts := r.left()
	slices.SortStableFunc(hosts, func(a, b *host) int { return imageSteps(a) - imageSteps(b) })
	interrupted := r.each(ctx, hosts, func(ctx context.Context, h *host) { r.walk(ctx, h, states, last) })
	r.supplies.Wait()
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
		h.Reached = s.name
		if s.judge != nil {
			r.done(h, s.judge(r, ctx, h))
			return
		}
		if s.each == nil {
			continue
		}
		r.watch(report.Event{Kind: report.Started, Host: h.Host, State: s.name})
		if err := s.each(r, ctx, h); err != nil {
			r.fail(ctx, h, err)
			return
		}
		r.watch(report.Event{Kind: report.Done, Host: h.Host, State: s.name})
	}
	if last {
		r.done(h, outcome.OK)
	}
}
