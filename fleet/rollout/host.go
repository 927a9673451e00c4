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

// host is one host of a run. All of it but its node belongs to whoever takes
// the host through a state: one goroutine at a time.
type host struct {
	from  *inventory.Host
	node  *vsnodeConn // nil: not connected
	begun time.Time

	leased bool             // by this run
	busy   *api.Holder      // else: who has the lease
	missed map[string]error // guests whose image the host did not get, and why

	Host    string // its name
	Reached string // the state that it is in, or in which it ended
	Outcome outcome.Outcome
	Err     error // of the host as a whole
	State   api.State
	Files   api.FilesAnswer // of the guests' files, when it was planned
	Plan    plan.Plan
	Results []api.StepResult // one for each of Plan.Steps; none if nothing was to be carried out
	Said    string           // by what Each had it do
	Took    time.Duration
}

func newHost(h *inventory.Host) *host {
	return &host{from: h, Host: h.Name}
}

// vsnodeConn is the vsnode of a host. A run shares it between the host and the
// images that are built and handed out there.
type vsnodeConn struct {
	Node
	// turn is held for a request that changes something, one at a time: the host
	// works on the guests of one request side by side, but knows nothing of
	// another's order.
	turn sync.Mutex
	// exports that run: each takes a session of the connection, of which sshd
	// gives ten (MaxSessions).
	exports chan struct{}

	mu   sync.Mutex
	lost error
}

// exportsAtOnce of one host.
const exportsAtOnce = 3

func newConn(node Node) *vsnodeConn {
	return &vsnodeConn{Node: node, exports: make(chan struct{}, exportsAtOnce)}
}

// broken returns why nothing more can be asked of the host, or nil.
func (c *vsnodeConn) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c *vsnodeConn) breaks(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = err
}

// each calls do for the hosts, Forks of them at a time, and returns those that
// it did not come to before ctx ended.
func (r *run) each(ctx context.Context, hosts []*host, do func(context.Context, *host)) (interrupted []*host) {
	results := fanout.Each(ctx, hosts, fanout.Limits{Forks: r.Forks}, func(ctx context.Context, h *host) (struct{}, error) {
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

// fail ends a host's way before anything was changed on it.
func (r *run) fail(ctx context.Context, h *host, err error) {
	h.Err = err
	var late *fanout.TimeoutError
	switch {
	case ctx.Err() != nil:
		h.Err = context.Cause(ctx)
		r.done(h, outcome.NotStarted)
	case errors.As(err, &late): // it may be there and slow
		r.done(h, outcome.Failed)
	default:
		r.done(h, outcome.Of(err))
	}
}

func (r *run) done(h *host, o outcome.Outcome) {
	h.Outcome = o
	if !h.begun.IsZero() {
		h.Took = time.Since(h.begun)
	}
	result := h.result()
	r.watch(report.Event{Kind: report.Done, Host: h.Host, Result: &result})
}

// left returns the hosts that go on.
func (r *run) left() []*host {
	return slices.DeleteFunc(slices.Clone(r.hosts), func(h *host) bool { return h.Outcome != "" })
}
