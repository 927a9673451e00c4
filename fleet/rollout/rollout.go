package rollout

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Node is the vsnode of one host, as a rollout needs it. Its methods may be
// called by several goroutines. When ctx ends, Apply tells the host and waits
// for what it says came of the steps.
type Node interface {
	State(ctx context.Context) (api.State, error)
	Files(ctx context.Context, req api.FilesRequest) (api.FilesAnswer, error)
	Apply(ctx context.Context, req api.Apply, event func(api.Event)) (api.ApplyResult, error)
	// Lease asks for the right to change the host, Release gives it back; so does
	// Close.
	Lease(ctx context.Context, req api.Lease) (api.LeaseAnswer, error)
	Release(ctx context.Context) error
	RemoveImage(ctx context.Context, req api.RemoveImage) (api.RemovedImage, error)
	// ExportImage writes an image to w, ImportImage has the host take it from r,
	// both beside the requests.
	ExportImage(ctx context.Context, id string, w io.Writer) error
	ImportImage(ctx context.Context, id string, r io.Reader) error
	Close() error
}

// Fleet is how hosts are reached, and how many at once.
type Fleet struct {
	Connect func(context.Context, *inventory.Host) (Node, error)
	Forks   int           // hosts that are worked on at once
	Timeout time.Duration // of a host's answer to what it has; 0: none
	Watch   func(Event)   // may be nil; called by many goroutines

	Diff bool // plans ask for what is in files that differ

	// Confirm is asked, after the plan, before Apply deletes these guests
	// ("web01/www"); may be nil. After an error nothing is changed.
	Confirm func(ctx context.Context, deletes []string) error

	Owner    string        // who changes hosts: user@machine
	LockWait time.Duration // for others who change them
}

// run is one run over a fleet.
type run struct {
	*Fleet
	id     string
	reason string // "apply"; empty: nothing is changed
	hosts  []*host
	begun  time.Time

	inventory []*inventory.Host // all, also those that are not in the run
	asked     bool              // for what those have
	others    []*host
	notes     []string
}

// host is one host of a run.
type host struct {
	HostReport
	from  *inventory.Host
	node  Node
	begun time.Time

	leased bool        // by this run
	busy   *api.Holder // else: who has the lease
	// one request that changes something at a time: the host works on the
	// guests of one request side by side, but knows nothing of another's order
	applying sync.Mutex
	// exports that run on it: each takes a session of its connection, of which
	// sshd gives ten (MaxSessions)
	exports chan struct{}
}

// exportsAtOnce of one host.
const exportsAtOnce = 3

// start begins a run. The reason says what it changes hosts for; one without
// only asks.
func (f *Fleet) start(reason string, hosts []*inventory.Host) *run {
	r := &run{Fleet: f, reason: reason, begun: time.Now()}
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	r.id = r.begun.UTC().Format("20060102T150405Z-") + hex.EncodeToString(b[:])
	for _, h := range hosts {
		r.hosts = append(r.hosts, newHost(h))
	}
	return r
}

func newHost(h *inventory.Host) *host {
	return &host{
		HostReport: HostReport{Host: h.Name, Address: h.Address}, from: h,
		exports: make(chan struct{}, exportsAtOnce),
	}
}

// close ends all connections. What one of them has to say of it changes
// nothing: the results are there.
func (r *run) close() {
	var group sync.WaitGroup
	for _, h := range append(r.others, r.hosts...) {
		if h.node != nil {
			group.Go(func() { h.node.Close() })
		}
	}
	group.Wait()
}

// each works on hosts, so many at once; those that it does not come to before
// ctx ends are left as they are.
func (r *run) each(ctx context.Context, hosts []*host, do func(context.Context, *host)) {
	fanout.Each(ctx, hosts, fanout.Limits{Forks: r.Forks}, func(ctx context.Context, h *host) (struct{}, error) {
		do(ctx, h)
		return struct{}{}, nil
	}, fanout.Watch[*host, struct{}]{})
}

// reach connects to the hosts and asks for their states; where they are to be
// changed, with their leases.
func (r *run) reach(ctx context.Context) {
	r.each(ctx, r.hosts, func(ctx context.Context, h *host) {
		h.begun = time.Now()
		r.watch(Event{Host: h.Host, Message: "connect"})
		within, cancel := fanout.Within(ctx, r.Timeout)
		defer cancel()
		node, err := r.Connect(within, h.from)
		if err != nil {
			r.fail(ctx, h, fanout.Late(within, err))
			return
		}
		h.node = node
		r.question(ctx, h, 0)
	})
	for _, h := range r.hosts {
		if h.Outcome == "" && h.begun.IsZero() {
			r.done(h, outcome.NotStarted)
		}
	}
	r.waitForLeases(ctx)
}

// fail ends a host's part in the run before anything was changed on it.
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
	r.watch(Event{Host: h.Host, Outcome: o})
}

// reached are the hosts that go on.
func (r *run) reached() []*host {
	return slices.DeleteFunc(slices.Clone(r.hosts), func(h *host) bool { return h.Outcome != "" })
}

// Plan says what Apply would do.
func (f *Fleet) Plan(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host) *Report {
	r := f.start("", hosts)
	defer r.close()
	r.inventory = inv.Hosts
	r.planned(ctx, inv.Image)
	return r.report()
}

func (r *run) planned(ctx context.Context, image func(string) *inventory.Image) {
	r.plan(ctx, image)
	for _, h := range r.reached() {
		switch {
		case len(h.Plan.Refused) > 0:
			r.done(h, outcome.Failed)
		case len(h.Plan.Steps) > 0:
			r.done(h, outcome.Changed)
		default:
			r.done(h, outcome.OK)
		}
	}
}

// plan makes the plans of all hosts that can be reached.
func (r *run) plan(ctx context.Context, image func(string) *inventory.Image) []*missing {
	r.reach(ctx)
	r.askFiles(ctx)
	for _, h := range r.reached() {
		h.Plan = plan.Make(h.from, h.State, h.Files, image)
	}
	return r.sources(ctx)
}

// Apply makes the hosts as the inventory says.
func (f *Fleet) Apply(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host) *Report {
	r := f.start("apply", hosts)
	defer r.close()
	r.inventory = inv.Hosts
	images := r.plan(ctx, inv.Image)
	if err := r.confirm(ctx); err != nil {
		for _, h := range r.reached() {
			h.Err = err
			r.done(h, outcome.NotStarted)
		}
		rep := r.report()
		rep.Err = err
		return rep
	}
	r.carryOut(ctx, images)
	return r.report()
}

// confirm has somebody say that guests are to be deleted.
func (r *run) confirm(ctx context.Context) error {
	var deletes []string
	for _, h := range r.reached() {
		for _, s := range h.Plan.Steps {
			if s.Kind == api.StepDelete {
				deletes = append(deletes, h.Host+"/"+s.Name)
			}
		}
	}
	if len(deletes) == 0 || r.Confirm == nil {
		return nil
	}
	return r.Confirm(ctx, deletes)
}

// carryOut takes the steps of all plans.
func (r *run) carryOut(ctx context.Context, images []*missing) {
	for _, h := range r.reached() {
		h.Results = make([]api.StepResult, len(h.Plan.Steps))
	}
	var group sync.WaitGroup
	for _, m := range images {
		defer m.copies.close()
		group.Go(func() { r.provide(ctx, m) })
	}
	// Hosts that wait for images come last, so that they hold no place in
	// which others could be done in the meantime.
	hosts := r.reached()
	slices.SortStableFunc(hosts, func(a, b *host) int { return imageSteps(a) - imageSteps(b) })
	r.each(ctx, hosts, func(ctx context.Context, h *host) { r.apply(ctx, h, images) })
	group.Wait()
	for _, h := range r.reached() {
		for i, result := range h.Results {
			if result.Outcome == "" {
				h.Results[i] = skipped("interrupted")
			}
		}
		r.done(h, h.outcome(ctx))
	}
}

// maxFilesAtOnce is after how many bytes of files the rest goes into another
// request: with the last guest's it stays below wire.MaxMessage, in base64.
const maxFilesAtOnce = 4 << 20

// apply takes the steps of one host.
func (r *run) apply(ctx context.Context, h *host, images []*missing) {
	lost := r.fetch(ctx, h, images)
	var wave []int
	files := 0 // bytes of the wave's
	for i, s := range h.Plan.Steps {
		size := 0
		for _, f := range s.Files {
			size += len(f.Content)
		}
		// The steps of one guest stay together: one that fails ends the others.
		if slices.Contains(h.Plan.Cuts, i) || files > maxFilesAtOnce && s.Name != h.Plan.Steps[i-1].Name {
			r.send(ctx, h, wave)
			wave, files = nil, 0
		}
		files += size
		switch {
		case plan.ForImage(s): // done by now
		case lost[s.Name] != nil:
			h.Results[i] = skipped("%v", lost[s.Name])
		default:
			wave = append(wave, i)
		}
	}
	r.send(ctx, h, wave)
	r.done(h, h.outcome(ctx))
}

// imageSteps counts the images that a host has to get or to build.
func imageSteps(h *host) int {
	n := 0
	for _, s := range h.Plan.Steps {
		if plan.ForImage(s) {
			n++
		}
	}
	return n
}

func skipped(format string, args ...any) api.StepResult {
	return api.StepResult{Outcome: api.Skipped, Error: fmt.Sprintf(format, args...)}
}

// send asks the host to take the steps of these indices and notes their
// results.
func (r *run) send(ctx context.Context, h *host, steps []int) {
	if len(steps) == 0 {
		return
	}
	var list []api.Step
	for _, i := range steps {
		list = append(list, h.Plan.Steps[i])
	}
	for n, result := range r.ask(ctx, h, list) {
		h.Results[steps[n]] = result
	}
}

// ask has the host take steps, and gives a result for each.
func (r *run) ask(ctx context.Context, h *host, steps []api.Step) []api.StepResult {
	all := func(result api.StepResult) []api.StepResult {
		return slices.Repeat([]api.StepResult{result}, len(steps))
	}
	h.applying.Lock()
	defer h.applying.Unlock()
	switch {
	case h.Err != nil:
		return all(skipped("the host failed before"))
	case ctx.Err() != nil:
		return all(skipped("interrupted"))
	}
	req := api.Apply{Run: r.id, Steps: steps}
	res, err := h.node.Apply(ctx, req, func(e api.Event) {
		if e.Step >= 0 && e.Step < len(req.Steps) {
			r.watch(Event{Host: h.Host, Step: &req.Steps[e.Step], Message: e.Message, Done: e.Done, Total: e.Total})
		}
	})
	if err == nil && len(res.Results) != len(steps) {
		err = fmt.Errorf("vsnode answered %d of %d steps", len(res.Results), len(steps))
	}
	if err != nil {
		h.Err = err
		return all(api.StepResult{Outcome: api.Failed, Error: "the host gave no answer: what came of it is not known; run the same again to find out and finish"})
	}
	for n := range steps {
		r.watch(Event{Host: h.Host, Step: &req.Steps[n], Result: &res.Results[n]})
	}
	return res.Results
}

// lost is why nothing more can be asked of the host.
func (h *host) lost() error {
	h.applying.Lock()
	defer h.applying.Unlock()
	return h.Err
}

// outcome is what came of a host whose steps were carried out, as far as they
// were.
func (h *host) outcome(ctx context.Context) outcome.Outcome {
	has := func(o api.Outcome) bool {
		return slices.ContainsFunc(h.Results, func(r api.StepResult) bool { return r.Outcome == o })
	}
	if ctx.Err() != nil && h.Err == nil && has(api.Skipped) {
		h.Err = context.Cause(ctx)
		if !has(api.Changed) && !has(api.Failed) {
			return outcome.NotStarted
		}
	}
	switch {
	case h.Err != nil || len(h.Plan.Refused) > 0 || has(api.Failed) || has(api.Skipped):
		return outcome.Failed
	case has(api.Changed):
		return outcome.Changed
	}
	return outcome.OK
}
