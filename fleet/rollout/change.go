package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// change has a host take its steps, except those of images and of guests whose
// image it did not get; and then to be reached, if they could have cut it off.
func (r *run) change(ctx context.Context, h *host) error {
	for _, wave := range waves(h.plan) {
		var at []int
		var steps []api.Step
		for _, i := range wave {
			s := h.plan.Steps[i]
			if err := h.missed[s.Name]; err != nil {
				h.results[i] = skipped("%v", err)
				continue
			}
			at, steps = append(at, i), append(steps, s)
		}
		for n, result := range r.request(ctx, h, steps) {
			h.results[at[n]] = result
		}
	}
	r.reach(ctx, h)
	return nil
}

// maxFilesAtOnce is the number of bytes of files after which another request begins.
// With the files of the last guest, a request stays below wire.MaxMessage in base64.
const maxFilesAtOnce = 4 << 20

// waves returns the indices of the steps of a plan that are about guests, one list
// for each request.
func waves(p plan.Plan) [][]int {
	var list [][]int
	var wave []int
	files := 0 // bytes of the wave's
	for i, s := range p.Steps {
		// The steps of one guest stay together: one that fails ends the others.
		if slices.Contains(p.Cuts, i) || files > maxFilesAtOnce && s.Name != p.Steps[i-1].Name {
			list = append(list, wave)
			wave, files = nil, 0
		}
		for _, f := range s.Files {
			files += len(f.Content)
		}
		if !plan.ForImage(s) && s.Kind != api.StepHealth {
			wave = append(wave, i)
		}
	}
	return append(list, wave)
}

// request has a host take steps, and returns a result for each.
func (r *run) request(ctx context.Context, h *host, steps []api.Step) []api.StepResult {
	return r.send(ctx, h, api.Apply{Steps: steps}, nil)
}

// send sends a request, and returns a result for each of its steps. judge may replace a
// result before it is reported; it may be nil.
func (r *run) send(ctx context.Context, h *host, req api.Apply, judge func(int, api.StepResult) api.StepResult) []api.StepResult {
	req.Run = r.id
	steps := req.Steps
	if len(steps) == 0 {
		return nil
	}
	all := func(result api.StepResult) []api.StepResult {
		return slices.Repeat([]api.StepResult{result}, len(steps))
	}
	h.node.turn.Lock()
	defer h.node.turn.Unlock()
	switch {
	case h.node.broken() != nil:
		return all(skipped("the host failed before"))
	case ctx.Err() != nil:
		return all(skipped("interrupted"))
	}
	req.Guard, req.Ready = r.guard(h, steps), h.expected()
	res, err := h.node.Apply(ctx, req, func(e api.Event) {
		if e.Step >= 0 && e.Step < len(req.Steps) {
			r.watchStep(h, req.Steps[e.Step], report.Event{Kind: report.EventKind(e.Kind), Message: e.Message, Done: e.Done, Total: e.Total})
		}
	})
	if err == nil && len(res.Results) != len(steps) {
		err = fmt.Errorf("vsnode answered %d of %d steps", len(res.Results), len(steps))
	}
	if err != nil {
		h.node.setBroken(err)
		return all(api.StepResult{Outcome: api.Failed, Error: noAnswer})
	}
	for n := range steps {
		if judge != nil {
			res.Results[n] = judge(n, res.Results[n])
		}
		r.stepDone(h, req.Steps[n], res.Results[n])
	}
	return res.Results
}

// noAnswer is the error of steps that a host was sent before its connection was lost.
const noAnswer = "the host gave no answer: what came of it is not known; run the same again to find out and finish"

func skipped(format string, args ...any) api.StepResult {
	return api.StepResult{Outcome: api.Skipped, Error: fmt.Sprintf(format, args...)}
}

// verify returns the outcome of a host by the results of its steps. Steps without a
// result were not taken.
func (r *run) verify(ctx context.Context, h *host) outcome.Outcome {
	if h.results == nil {
		h.results = r.buildResults(h)
	}
	for i := range h.results {
		if h.results[i].Outcome == "" {
			h.results[i] = skipped("interrupted")
		}
	}
	if h.unconfirmed != nil {
		h.err = h.unconfirmed
		if back := (*UnconfirmedError)(nil); errors.As(h.err, &back) && back.Reverted.Error == "" {
			return outcome.Reverted
		}
		return outcome.Of(h.err)
	}
	h.err = h.node.broken()
	has := func(outcome api.Outcome) bool {
		return slices.ContainsFunc(h.results, func(r api.StepResult) bool { return r.Outcome == outcome })
	}
	if h.err == nil && h.late != nil && (has(api.Skipped) || has(api.Failed)) {
		h.err = h.late
	}
	if ctx.Err() != nil && h.err == nil && has(api.Skipped) {
		h.err = context.Cause(ctx)
		if !has(api.Changed) && !has(api.Failed) {
			return outcome.NotStarted
		}
	}
	switch {
	case h.node.broken() == nil && len(h.plan.Refused) == 0 && h.reverted():
		if ctx.Err() != nil && h.err != nil {
			h.err = fmt.Errorf("%w before its health was known", h.err)
		}
		return outcome.Reverted
	case h.err != nil || len(h.plan.Refused) > 0 || has(api.Failed) || has(api.Skipped):
		return outcome.Failed
	case has(api.Changed), h.tries > 0 && h.acted: // by a try that was lost
		return outcome.Changed
	}
	return outcome.OK
}

// predict returns what the outcome of a host would be, by its plan.
func (r *run) predict(_ context.Context, h *host) outcome.Outcome {
	switch {
	case len(h.plan.Refused) > 0:
		return outcome.Failed
	case len(h.plan.Steps) > 0:
		return outcome.Changed
	}
	return outcome.OK
}
