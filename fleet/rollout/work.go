package rollout

import (
	"context"
	"errors"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Stage is a part of a run whose steps are not those of a plan: of a playbook. It has
// one of the functions.
type Stage struct {
	Name string
	// Together is called once for the hosts of a batch, when all of them are here. Its
	// error stops the run.
	Together func(context.Context, []*Worker) error
	// Do works on one host, and reports whether the host goes on. If it does not, a
	// step that was recorded says why.
	Do func(context.Context, *Worker) bool
	// Make returns what the host should have; the plan for that is made and carried
	// out as by Apply. Several such stages may be in a run.
	Make func(*Worker) Want
}

// Want is what a host should have.
type Want struct {
	Guests []*inventory.Guest
	Images []*inventory.Image
	Title  string // of the steps, for people
}

// Ignored begins the error of a step that failed and did not stop its host: a note of
// the report.
const Ignored = "ignored: "

// Worker is a host at work in a [Stage].
type Worker struct {
	run  *run
	host *host
}

// Host returns the host of the inventory.
func (w *Worker) Host() *inventory.Host { return w.host.want }

// State returns what the host had when the run came to it, or to the last stage that
// made something.
func (w *Worker) State() api.State { return w.host.state }

// Try returns how often the host was tried before.
func (w *Worker) Try() int { return w.host.tries }

// Node returns the host's vsnode, for questions.
func (w *Worker) Node() Node { return w.host.node.Node }

// Refresh asks for the state of the host again.
func (w *Worker) Refresh(ctx context.Context) (err error) {
	within, cancel := fanout.WithTimeout(ctx, w.run.Timeout)
	defer cancel()
	w.host.state, err = w.host.node.State(within)
	return fanout.TimeoutOr(within, err)
}

// Made reports whether the last stage that made something has changed the host.
func (w *Worker) Made() bool { return w.host.made }

// Taking is a step for a host to take.
type Taking struct {
	api.Step
	Known *api.StepResult // it is only recorded, in its place among the others
}

// Take has the host take steps in order, in one request, and returns a result for each.
// judge may replace a result of the host's.
func (w *Worker) Take(ctx context.Context, steps []Taking, judge func(int, api.StepResult) api.StepResult) []api.StepResult {
	var sent []api.Step
	var at []int
	for i, s := range steps {
		if s.Known == nil {
			sent, at = append(sent, s.Step), append(at, i)
		}
	}
	results := w.run.send(ctx, w.host, api.Apply{Steps: sent, InOrder: true}, func(n int, r api.StepResult) api.StepResult { return judge(at[n], r) })
	for _, s := range steps {
		w.host.plan.Steps = append(w.host.plan.Steps, s.Step)
		if s.Known != nil {
			w.host.results = append(w.host.results, *s.Known)
			w.run.stepDone(w.host, s.Step, *s.Known)
			continue
		}
		w.host.results = append(w.host.results, results[0])
		results = results[1:]
	}
	w.run.reach(ctx, w.host)
	w.host.guarded = nil
	return w.host.results[len(w.host.results)-len(steps):]
}

// Drop forgets the last step, which is taken again.
func (w *Worker) Drop() {
	n := len(w.host.results) - 1
	w.host.plan.Steps, w.host.results = w.host.plan.Steps[:n], w.host.results[:n]
}

// Broken reports whether the host was lost.
func (w *Worker) Broken() bool { return w.host.node.broken() != nil || w.host.unconfirmed != nil }

// Record adds a step that was taken elsewhere than on the host.
func (w *Worker) Record(step api.Step, result api.StepResult) {
	w.host.plan.Steps = append(w.host.plan.Steps, step)
	w.host.results = append(w.host.results, result)
	if result.Outcome != "" {
		w.run.stepDone(w.host, step, result)
	}
}

// Show keeps how files differ, for the diff of the report.
func (w *Worker) Show(files api.FilesAnswer) {
	have := &w.host.files.Guests
	for _, g := range files.Guests {
		i := slices.IndexFunc(*have, func(h api.GuestFilesState) bool { return h.Guest == g.Guest })
		if i < 0 {
			*have = append(*have, g)
			continue
		}
		(*have)[i].Files = append((*have)[i].Files, g.Files...)
	}
}

// Diffs reports whether the report shows how files differ.
func (w *Worker) Diffs() bool { return w.run.Diff }

// Work takes hosts through stages, in batches as the strategy says. Without a reason
// nothing is changed: no host is locked, and no plan carried out.
func (f *Fleet) Work(ctx context.Context, reason string, inv *inventory.Inventory, hosts []*inventory.Host, stages []Stage) (report.Run, error) {
	r := f.start(reason, hosts).against(inv.Hosts, inv.Image)
	r.survey = nil
	road := []state{connect}
	if reason != "" {
		road = append(road, lock)
	}
	road = append(road, state{name: "begin", each: (*run).beginWork})
	for _, s := range stages {
		road = append(road, s.states(reason != "")...)
	}
	road = append(road, state{name: "end", each: (*run).endWork}, state{name: "verify", judge: (*run).finish})
	return r.follow(ctx, road...)
}

// states returns the states that a stage is made of.
func (s Stage) states(changes bool) []state {
	switch {
	case s.Together != nil:
		return []state{{name: s.Name, all: func(r *run, ctx context.Context) error {
			if err := s.Together(ctx, r.workers()); err != nil {
				r.stopWork(ctx, err)
			}
			return nil
		}}}
	case s.Do != nil:
		return []state{{name: s.Name, acts: always, disrupts: always, timed: true, each: func(r *run, ctx context.Context, h *host) error {
			if !s.Do(ctx, &Worker{r, h}) {
				return r.endEarly(ctx, h)
			}
			return nil
		}}}
	}
	list := []state{{name: "compare", each: func(r *run, ctx context.Context, h *host) error { return r.compareWork(ctx, h, s.Make) }}, assign, match}
	if !changes {
		return append(list, state{name: "keep", each: (*run).keepWork})
	}
	return append(list, confirm, provide, change, gate, undo, state{name: "keep", all: (*run).closeSupplies, each: (*run).keepWork})
}

func (r *run) workers() []*Worker {
	var list []*Worker
	for _, h := range r.remaining() {
		if !h.helper {
			list = append(list, &Worker{r, h})
		}
	}
	return list
}

// errEnded ends the way of a host whose outcome is known already.
var errEnded = errors.New("the host has ended")

// endEarly ends the way of a host of which a step failed.
func (r *run) endEarly(ctx context.Context, h *host) error {
	r.done(h, r.finish(ctx, h))
	return errEnded
}

// stopWork ends all hosts of the batch, and the run.
func (r *run) stopWork(ctx context.Context, err error) {
	if ctx.Err() == nil && r.rule != nil {
		r.rule.stop(err.Error())
	}
	for _, h := range r.remaining() {
		h.recall()
		switch {
		case ctx.Err() != nil:
			r.done(h, r.finish(ctx, h))
		default:
			h.err = stoppedError{err.Error()}
			r.done(h, outcome.Stopped)
		}
	}
}

// stoppedError is the error of a host that had begun when the run was stopped.
type stoppedError struct{ why string }

func (e stoppedError) Error() string { return "stopped: " + e.why }

// ErrorKind is the [outcome.Kind] of the error.
func (stoppedError) ErrorKind() string { return string(outcome.KindStopped) }

func (r *run) beginWork(_ context.Context, h *host) error {
	h.plan, h.results, h.before = plan.Plan{}, nil, taken{}
	return nil
}

func (r *run) endWork(_ context.Context, h *host) error {
	h.through = true
	return nil
}

// taken are steps of earlier stages, with their results.
type taken struct {
	steps   []api.Step
	results []api.StepResult
	refused []plan.Refusal
}

// stash puts the steps of a stage aside, so that the next one makes a plan of its own.
func (h *host) stash() {
	h.recall()
	h.before = taken{h.plan.Steps, h.results, h.plan.Refused}
	h.plan, h.results, h.missed, h.guarded = plan.Plan{}, nil, nil, nil
}

// recall puts the steps of earlier stages before those of this one.
func (h *host) recall() {
	if h.before.steps == nil && h.before.refused == nil {
		return
	}
	results := slices.Clone(h.before.results)
	if len(h.results) > 0 {
		results = append(append(results, make([]api.StepResult, len(h.before.steps)-len(results))...), h.results...)
	}
	h.plan.Steps = slices.Concat(h.before.steps, h.plan.Steps)
	h.plan.Refused = slices.Concat(h.before.refused, h.plan.Refused)
	h.plan.Cuts = nil
	h.results, h.before = results, taken{}
}

// compareWork makes the plan of a stage.
func (r *run) compareWork(ctx context.Context, h *host, wanted func(*Worker) Want) (err error) {
	h.stash()
	if h.helper {
		return nil
	}
	within, cancel := fanout.WithTimeout(ctx, r.Timeout)
	defer cancel()
	if h.state, err = h.node.State(within); err != nil {
		return fanout.TimeoutOr(within, err)
	}
	want := wanted(&Worker{r, h})
	part := *h.want
	part.Guests = want.Guests
	var files api.FilesAnswer
	req, err := plan.FilesRequest(&part, h.state, r.Diff)
	if err != nil {
		return err
	}
	if len(req.Guests) > 0 {
		if files, err = h.node.Files(within, req); err != nil {
			return fanout.TimeoutOr(within, err)
		}
		(&Worker{r, h}).Show(files)
	}
	h.plan = plan.Make(&part, h.state, files, plan.Rules{Image: r.image, Versions: r.Versions})
	h.plan.Foreign, h.plan.Drift = nil, nil // of guests that the stage is not about
	h.plan = h.plan.Bring(want.Images, r.Versions, h.state)
	for i := range h.plan.Steps {
		h.plan.Steps[i].Title = want.Title
	}
	return nil
}

// closeSupplies ends the deliveries of the images of a stage.
func (r *run) closeSupplies(context.Context) error {
	for _, m := range r.supplies {
		m.close()
	}
	r.supplies = nil
	return nil
}

// keepWork ends the way of a host if a step of the stage did not succeed.
func (r *run) keepWork(ctx context.Context, h *host) error {
	bad := len(h.plan.Refused) > 0
	h.made = false
	for _, result := range h.results {
		h.made = h.made || result.Outcome == api.Changed
		bad = bad || result.Outcome == api.Failed || result.Outcome == api.Skipped
	}
	if bad {
		return r.endEarly(ctx, h)
	}
	h.stash()
	return nil
}

// finish returns the outcome of a host by the results of its steps.
func (r *run) finish(ctx context.Context, h *host) outcome.Outcome {
	h.recall()
	if r.reason == "" {
		o := r.predict(ctx, h) // a step without a result would be taken
		if slices.ContainsFunc(h.results, func(r api.StepResult) bool { return r.Outcome == api.Failed }) {
			o = outcome.Failed
		}
		return o
	}
	if h.results == nil {
		h.results = []api.StepResult{}
	}
	o := r.verify(ctx, h)
	if ctx.Err() == nil || h.through || o == outcome.Failed || o == outcome.Reverted {
		return o
	}
	h.err = context.Cause(ctx)
	if o == outcome.Changed {
		return outcome.Failed // it has changed, and is not as wanted
	}
	return outcome.NotStarted
}
