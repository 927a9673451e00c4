package rollout

import (
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// match compares the plans of the hosts with those that were saved.
func (r *run) match(context.Context) error {
	if r.Saved == nil {
		return nil
	}
	var stale report.StaleError
	for _, h := range r.remaining() {
		if h.helper || h.tries > 0 { // after a try, a part of the plan may be done
			continue
		}
		if differs, ok := h.stale(r.Saved, r.surveyed); ok {
			stale.Hosts = append(stale.Hosts, differs)
		}
	}
	if stale.Hosts == nil {
		return nil
	}
	return &stale
}

// stale reports how the plan of a host differs from the saved one, if it does. In a
// batch, the steps of images are not compared: another batch may have built them.
func (h *host) stale(saved *report.Run, inBatch bool) (report.StalePlan, bool) {
	var before report.Host
	if i := slices.IndexFunc(saved.Hosts, func(s report.Host) bool { return s.Name == h.name }); i >= 0 {
		before = saved.Hosts[i]
	}
	now := make([]report.Step, len(h.plan.Steps))
	for i, s := range h.plan.Steps {
		now[i] = report.StepOf(s)
		now[i].Fingerprint = plan.Fingerprint(s)
	}
	if inBatch {
		ofImage := func(s report.Step) bool { return s.Kind == api.StepImport || s.Kind == api.StepBuildImage }
		before.Steps = slices.DeleteFunc(slices.Clone(before.Steps), ofImage)
		now = slices.DeleteFunc(now, ofImage)
	}
	same := func(a, b report.Step) bool { return a.Fingerprint == b.Fingerprint }
	if slices.EqualFunc(before.Steps, now, same) && slices.Equal(refusedNames(before), h.refusedNames()) {
		return report.StalePlan{}, false
	}
	return report.StalePlan{Host: h.name, Gone: without(before.Steps, now), More: without(now, before.Steps)}, true
}

// without returns the steps that are not among others.
func without(steps, others []report.Step) []report.Step {
	return slices.DeleteFunc(slices.Clone(steps), func(s report.Step) bool {
		return slices.ContainsFunc(others, func(o report.Step) bool { return o.Fingerprint == s.Fingerprint })
	})
}

func refusedNames(h report.Host) []string {
	var names []string
	for _, refused := range h.Refused {
		names = append(names, refused.Guest)
	}
	return names
}

func (h *host) refusedNames() []string {
	var names []string
	for _, refused := range h.plan.Refused {
		names = append(names, refused.Guest)
	}
	return names
}
