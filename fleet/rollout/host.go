package rollout

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// host is one host of a run. All of it except its node belongs to whoever takes
// the host through a state: one goroutine at a time.
type host struct {
	name    string
	want    *inventory.Host
	reached string // the state that it is in, or in which it ended

	// What connect and lock found.
	begun  time.Time
	node   *vsnodeConn // nil: not connected
	state  api.State
	leased bool        // by this run
	busy   *api.Holder // else: who has the lease

	// What has to change, and the files of guests that it was compared with.
	plan  plan.Plan
	files api.FilesAnswer

	shadowed map[string]*report.Shadows // by guest

	gained  []api.Image      // that it was provided with
	missed  map[string]error // guests whose image the host did not get, and why
	results []api.StepResult // one for each of the plan's steps; none if nothing was to be carried out
	text    string           // what it answered in Each
	notes   []string         // for the report

	guarded     []string // guests that it puts back unless it is reached by a new connection
	unconfirmed error    // why it was not, or not in time
	before      taken    // steps of earlier stages of Work
	through     bool     // all stages of Work
	made        bool     // its last stage that made something has changed the host

	// Its place in the run.
	canary, helper bool                 // a helper builds images for others, and is not in the report
	batch          int                  // from 1; 0: there is one only
	acted          bool                 // something was to be changed on it, and was begun
	tries          int                  // that came before
	again          bool                 // its outcome is not the last: it is tried again
	prove          []string             // guests that an earlier try changed, and did not find healthy
	late           *fanout.TimeoutError // nil: its changes did not take too long

	// The end.
	outcome outcome.Outcome
	err     error // of the host as a whole
	took    time.Duration
}

func newHost(h *inventory.Host) *host {
	return &host{name: h.Name, want: h}
}

// reset makes a host ready for another try.
func (h *host) reset() {
	*h = host{
		name: h.name, want: h.want, state: h.state, plan: h.plan, prove: h.unproven(),
		notes: h.notes, canary: h.canary, helper: h.helper, batch: h.batch, acted: h.acted, tries: h.tries + 1,
	}
}

// forget drops what another road left, so that nothing is decided by what is old.
func (h *host) forget() {
	h.node, h.leased, h.busy = nil, false, nil
}

// vsnodeConn is the connection to the vsnode of a host. The host shares it with the
// images that are built and handed out there.
type vsnodeConn struct {
	Node
	// turn is held during a request that changes something, one at a time: the host
	// works on the guests of one request side by side, and knows nothing of the
	// order between two.
	turn sync.Mutex
	// exports bounds those that run at once: each takes a session of the connection,
	// and sshd allows ten (MaxSessions).
	exports chan struct{}

	mu   sync.Mutex
	lost error
}

// exportsAtOnce of one host.
const exportsAtOnce = 3

func newConn(node Node) *vsnodeConn {
	return &vsnodeConn{Node: node, exports: make(chan struct{}, exportsAtOnce)}
}

// broken returns why the host takes no more requests, or nil.
func (c *vsnodeConn) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c *vsnodeConn) setBroken(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = err
}

// each calls do for the hosts, Forks of them at a time, and returns those whose
// turn did not come before ctx ended.
func (r *run) each(ctx context.Context, hosts []*host, do func(context.Context, *host)) (interrupted []*host) {
	return r.eachOf(ctx, r.Forks, hosts, do)
}

// eachOf is each with another number of hosts at a time.
func (r *run) eachOf(ctx context.Context, forks int, hosts []*host, do func(context.Context, *host)) (interrupted []*host) {
	results := fanout.Each(ctx, hosts, fanout.Limits{Forks: forks}, func(ctx context.Context, h *host) (struct{}, error) {
		do(ctx, h)
		return struct{}{}, nil
	}, fanout.Watch[*host, struct{}]{})
	for _, result := range results {
		if result.Outcome == outcome.NotStarted {
			interrupted = append(interrupted, result.Host)
		}
	}
	return interrupted
}

// fail ends a host's way through the run before anything was changed on it.
func (r *run) fail(ctx context.Context, h *host, err error) {
	if errors.Is(err, errEnded) {
		return
	}
	h.recall()
	h.err = err
	var late *fanout.TimeoutError
	switch {
	case ctx.Err() != nil:
		h.err = context.Cause(ctx)
		r.done(h, outcome.NotStarted)
	case errors.As(err, &late): // it may be there and slow
		r.done(h, outcome.Failed)
	default:
		r.done(h, outcome.Of(err))
	}
}

func (r *run) done(h *host, o outcome.Outcome) {
	h.outcome = o
	if !h.begun.IsZero() {
		h.took = time.Since(h.begun)
	}
	switch {
	case h.helper:
	case r.triesAgain(h):
		h.again = true
	default:
		r.ended(h)
	}
}

// triesAgain reports whether a host that has come to an end is to be tried again.
func (r *run) triesAgain(h *host) bool {
	if r.rule == nil || h.tries >= r.Strategy.Retries {
		return false
	}
	switch h.outcome {
	case outcome.Unreachable:
		return true
	case outcome.Failed, outcome.Reverted:
		return outcome.KindOf(h.err) == outcome.KindTimeout || h.node != nil && h.node.broken() != nil || r.Strategy.RetrySteps && h.acted
	}
	return false
}

// ended tells the rule and the watcher what came of a host.
func (r *run) ended(h *host) {
	if r.rule != nil {
		r.rule.ended(h)
	}
	if r.Watch == nil {
		return
	}
	rep := r.hostReport(h)
	r.watch(report.Event{Kind: report.Done, Host: h.name, Result: &rep.Result, Report: &rep})
}

// remaining returns the hosts under way that have not ended.
func (r *run) remaining() []*host {
	return slices.DeleteFunc(slices.Clone(r.at), func(h *host) bool { return h.outcome != "" })
}
