package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// gate waits until the guests of a host that were changed are healthy.
func (r *run) gate(ctx context.Context, h *host) error {
	var at []int
	var steps []api.Step
	for i, s := range h.plan.Steps {
		if s.Kind != api.StepHealth {
			continue
		}
		if !h.went(s.Name) {
			h.results[i] = skipped("an earlier step of the guest did not succeed")
			continue
		}
		at, steps = append(at, i), append(steps, s)
	}
	for n, result := range r.request(ctx, h, steps) {
		unknown := result.Outcome == api.Skipped && ctx.Err() != nil || h.node.broken() != nil
		if unknown && h.changed(steps[n].Name) {
			result.Error = fmt.Sprintf("guest %s: changed, its health was not checked: %s", steps[n].Name, result.Error)
		}
		h.results[at[n]] = result
	}
	return nil
}

// went reports whether the steps of a guest succeeded that come before its gate.
func (h *host) went(guest string) bool {
	for i, s := range h.plan.Steps {
		if o := h.results[i].Outcome; s.Name == guest && s.Kind != api.StepHealth && o != api.Changed && o != api.Unchanged {
			return false
		}
	}
	return true
}

// undoGrace is how long an interrupted run waits for a host to put guests back.
const undoGrace = time.Minute

// undo puts the guests of a host back whose change failed, or whose health is not known
// because the run was interrupted or took too long. The steps for that are added to the
// plan.
func (r *run) undo(ctx context.Context, h *host) error {
	interrupted := ctx.Err() != nil
	var steps []api.Step
	for i, result := range h.results {
		s := h.plan.Steps[i]
		known := slices.ContainsFunc(steps, func(other api.Step) bool { return other.Name == s.Name })
		// The next run does the rest of a change that was interrupted, and checks then.
		unknown := s.Kind == api.StepHealth && result.Outcome == api.Skipped && (h.late != nil || interrupted && h.went(s.Name))
		if (result.Outcome == api.Failed || unknown) && !known && h.changed(s.Name) && r.puts(h, s.Name) {
			steps = append(steps, api.Step{Kind: api.StepRevert, Name: s.Name, Why: why(s, unknown && interrupted)})
		}
	}
	// What the host has put back by itself is in the results of the steps already.
	if len(steps) == 0 || h.node.broken() != nil || h.unconfirmed != nil {
		return nil
	}
	if interrupted {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), undoGrace)
		defer cancel()
	}
	h.guarded = nil // what was guarded until now has been confirmed
	results := r.request(ctx, h, steps)
	h.plan.Steps, h.results = append(slices.Clip(h.plan.Steps), steps...), append(h.results, results...)
	if !interrupted {
		r.holdBack(ctx, h)
	}
	r.reach(ctx, h)
	return nil
}

// puts reports whether the strategy has a guest put back.
func (r *run) puts(h *host, guest string) bool {
	switch r.Strategy.OnFailure {
	case Keep:
		return false
	case Revert:
		return true
	}
	return slices.ContainsFunc(h.plan.Steps, func(s api.Step) bool { return s.Kind == api.StepHealth && s.Name == guest })
}

// changed reports whether a step has changed a guest.
func (h *host) changed(guest string) bool {
	for i, s := range h.plan.Steps {
		if s.Name == guest && h.results[i].Outcome == api.Changed {
			return true
		}
	}
	return false
}

// why returns the reason of a revert.
func why(failed api.Step, interrupted bool) string {
	switch {
	case interrupted:
		return "interrupted before its health was known"
	case failed.Kind == api.StepHealth:
		return "it is not healthy"
	}
	return "its change failed"
}

// reverted reports whether all guests whose change failed were put back.
func (h *host) reverted() bool {
	some := false
	for i, result := range h.results {
		if result.Outcome != api.Failed && result.Outcome != api.Skipped {
			continue
		}
		if s := h.plan.Steps[i]; s.Kind == api.StepRevert || !h.putBack(s.Name) {
			return false
		}
		some = true
	}
	return some
}

func (h *host) putBack(guest string) bool {
	for i, s := range h.plan.Steps {
		if s.Kind == api.StepRevert && s.Name == guest && h.results[i].Outcome == api.Changed {
			return true
		}
	}
	return false
}

// unproven returns the guests that were changed, or may have been, and whose gates have
// not been passed.
func (h *host) unproven() []string {
	list := slices.Clone(h.prove)
	for i, s := range h.plan.Steps {
		if s.Kind != api.StepHealth {
			continue
		}
		passed := i < len(h.results) && h.results[i].Outcome == api.Unchanged
		if passed {
			list = slices.DeleteFunc(list, func(name string) bool { return name == s.Name })
		} else if h.acted {
			list = append(list, s.Name)
		}
	}
	return list
}

// expected returns the guests whose inits are to say that they are ready.
func (h *host) expected() []string {
	var list []string
	for _, s := range h.plan.Steps {
		if s.Kind == api.StepHealth && s.Health.NeedsReady() {
			list = append(list, s.Name)
		}
	}
	return list
}
