package rollout

import (
	"context"
	"errors"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
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
	// judge returns the outcome of a host and ends its way; after "", the host goes
	// along another road. It is also called for hosts whose turn did not come before
	// the run was interrupted.
	judge func(*run, context.Context, *host) outcome.Outcome

	// acts reports whether each does something to the host; nil: it does not. Such a
	// state is not entered once the run has stopped.
	acts func(*host) bool
	// disrupts reports whether guests may be away meanwhile: budgets count the host
	// from here on.
	disrupts func(*host) bool
	timed    bool // the host's timeout bounds it
}

// The states and their methods.
var (
	connect = state{name: "connect", each: (*run).connect}                                                    // to vsnode; take the lease if the run changes the host; ask for its state
	lock    = state{name: "lock", all: (*run).lock}                                                           // wait for the leases of all hosts
	compare = state{name: "compare", each: (*run).compare}                                                    // with the inventory: make the plan
	act     = state{name: "act", each: (*run).act}                                                            // make the plan of what is to be done with guests
	assign  = state{name: "assign", all: (*run).assign}                                                       // who builds or hands out the images that hosts lack, and add the steps for it
	match   = state{name: "match", all: (*run).match}                                                         // the plans with those that were saved
	confirm = state{name: "confirm", all: (*run).confirm}                                                     // that guests are to be deleted
	provide = state{name: "provide", all: (*run).deliver, each: (*run).provide, acts: hasSteps}               // the host with the images that it lacks
	change  = state{name: "change", each: (*run).change, acts: hasSteps, disrupts: changesGuest, timed: true} // the host: take all other steps
	gate    = state{name: "gate", each: (*run).gate, timed: true}                                             // wait until changed guests are healthy
	undo    = state{name: "undo", each: (*run).undo}                                                          // put guests back whose change failed
	verify  = state{name: "verify", judge: (*run).verify}                                                     // the results of the steps
	shadows = state{name: "shadows", each: (*run).shadows}                                                    // what guests that move to another image hide of it
	predict = state{name: "predict", judge: (*run).predict}                                                   // the outcome, in a run that changes nothing
	settle  = state{name: "survey", judge: (*run).settle}                                                     // which hosts have nothing to change, before a run in batches
)

// The roads of Plan, Apply and Guests; and those that hosts take before Apply and
// Guests, if these work in batches. Each has a state of its own in place of the
// comparison and of the change.
var (
	toPlan  = []state{connect, compare, assign, match, shadows, predict}
	toApply = []state{connect, lock, compare, assign, match, confirm, provide, shadows, change, gate, undo, verify}
	toAct   = []state{connect, lock, act, provide, change, gate, undo, verify}

	beforeApply = []state{connect, compare, assign, match, confirm, settle}
	beforeAct   = []state{connect, act, settle}
)

// follow takes the hosts of a run along a road, in batches if it has a strategy, and
// ends the run. The error is that of match or confirm: no other state ends the whole
// run.
func (r *run) follow(ctx context.Context, road ...state) (report.Run, error) {
	r.watchBegin()
	err := r.rollOut(ctx, road)
	r.endRest(err)
	run := r.report()
	r.watch(report.Ended(run))
	return run, err
}

// take takes some of the hosts along a road, and ends their connections.
func (r *run) take(ctx context.Context, hosts []*host, road []state) (err error) {
	r.at = append(slices.Clone(hosts), r.helpers(hosts)...)
	for _, h := range r.at {
		h.forget()
	}
	defer r.close()
	for len(road) > 0 && err == nil {
		n := 1 + slices.IndexFunc(road[1:], func(s state) bool { return s.all != nil })
		if n == 0 {
			n = len(road)
		}
		err = r.pass(ctx, road[:n], n == len(road))
		road = road[n:]
	}
	for _, h := range r.at { // later batches ask who has an image
		h.state.Images, h.gained = append(h.state.Images, h.gained...), nil
	}
	return err
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
	forks := r.Forks
	if r.rule != nil && len(r.rule.budgets) > 0 {
		// All are under way, and wait for their turns where no budget keeps them from
		// their next state.
		r.turns = make(chan struct{}, max(r.Forks, 1))
		forks = len(hosts)
	}
	interrupted := r.eachOf(ctx, forks, hosts, func(ctx context.Context, h *host) { r.walk(ctx, h, states, last) })
	r.turns = nil
	r.delivering.Wait()
	for _, h := range interrupted {
		r.interrupted(ctx, h, states)
	}
	return nil
}

// interrupted ends a host whose turn at some states did not come.
func (r *run) interrupted(ctx context.Context, h *host, states []state) {
	o := outcome.NotStarted
	if judge := states[len(states)-1].judge; judge != nil {
		o = judge(r, ctx, h)
	}
	r.done(h, o)
}

// walk takes one host through states.
func (r *run) walk(ctx context.Context, h *host, states []state, last bool) {
	within, cancel := ctx, func() {}
	defer func() { cancel() }()
	for _, s := range states {
		h.reached = s.name
		if s.judge != nil {
			if o := s.judge(r, ctx, h); o != "" {
				r.done(h, o)
			}
			return
		}
		if s.each == nil {
			continue
		}
		began, err := r.enter(ctx, h, s, func() error {
			r.watchState(h, report.Started)
			if !s.timed {
				return s.each(r, ctx, h)
			}
			if within == ctx {
				within, cancel = r.hostTimeout(ctx)
			}
			return fanout.TimeoutOr(within, s.each(r, within, h))
		})
		if !began && ctx.Err() != nil {
			r.interrupted(ctx, h, states)
			return
		}
		errors.As(context.Cause(within), &h.late)
		if err != nil {
			r.fail(ctx, h, err)
			return
		}
		r.watchState(h, report.Done)
	}
	if last {
		r.done(h, outcome.OK)
	}
}

// enter calls a state's function when the rule, the budgets and the number of hosts at
// a time allow it. Otherwise the error is why not, and began is false.
func (r *run) enter(ctx context.Context, h *host, s state, each func() error) (began bool, err error) {
	if r.rule != nil && s.acts != nil && s.acts(h) {
		if err := r.rule.stopped(); err != nil {
			return false, err
		}
		if s.disrupts != nil && s.disrupts(h) {
			if err := r.rule.disrupt(ctx, h); err != nil {
				return false, err
			}
		}
		h.acted = true
	}
	if r.turns != nil {
		var interrupted <-chan struct{}
		if !h.acted { // what a host under way has changed may have to be put back
			interrupted = ctx.Done()
		}
		select {
		case r.turns <- struct{}{}:
			defer func() { <-r.turns }()
		case <-interrupted:
			return false, context.Cause(ctx)
		}
	}
	return true, each()
}

// hostTimeout returns the context of a host's changes.
func (r *run) hostTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.Strategy.HostTimeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, r.Strategy.HostTimeout, &fanout.TimeoutError{After: r.Strategy.HostTimeout, Flag: "--host-timeout"})
}

func hasSteps(h *host) bool { return len(h.plan.Steps) > 0 }

// changesGuest reports whether a host has steps of guests.
func changesGuest(h *host) bool {
	return slices.ContainsFunc(h.plan.Steps, func(s api.Step) bool { return !plan.ForImage(s) })
}

// always is acts and disrupts of states that know no steps.
func always(*host) bool { return true }

// settle ends the hosts that have nothing to change. The others go on in their batch.
func (r *run) settle(ctx context.Context, h *host) outcome.Outcome {
	switch {
	case ctx.Err() != nil:
		return outcome.NotStarted
	case len(h.plan.Steps) > 0:
		return ""
	}
	return r.predict(ctx, h)
}
