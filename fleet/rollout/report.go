package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// head returns the report on the run without what came of its hosts.
func (r *run) head() report.Run {
	return report.Run{
		ID: r.id, Who: r.Owner, Verb: cmp.Or(r.reason, "plan"), When: r.begun, Took: time.Since(r.begun), Notes: r.notes,
	}
}

// report returns the report on the run.
func (r *run) report() report.Run {
	run := r.head()
	run.Batches = r.batches
	if r.rule != nil && r.rule.why != nil {
		run.Stopped = r.rule.why.Why
	}
	for _, h := range r.hosts {
		run.Hosts = append(run.Hosts, r.hostReport(h))
	}
	return run
}

// result returns the outcome of the host, with its errors.
func (h *host) result() report.Result {
	result := report.ResultOf(h.outcome, h.err)
	if err := errors.Join(h.problems()...); err != nil {
		result.Error = err.Error()
	}
	return result.On(h.name)
}

// hostReport returns the report on a host; of a run that changes nothing, with its
// plan.
func (r *run) hostReport(h *host) report.Host {
	rep := report.HostOf(h.name, h.want.Address, h.outcome, h.err)
	rep.Result, rep.State, rep.Text, rep.Took = h.result(), h.reached, h.text, h.took
	rep.Batch, rep.Tries = h.batch, h.tries
	for i, s := range h.plan.Steps {
		step := report.StepOf(s)
		if r.Diff {
			step.Diff = h.diff(s)
		}
		if s.Name != "" && h.mover(s.Name) == i {
			if step.Shadows = h.shadowed[s.Name]; step.Shadows != nil && r.Diff {
				step.Diff += step.Shadows.All()
			}
		}
		if r.reason == "" {
			step.Fingerprint = plan.Fingerprint(s)
		} else {
			var result api.StepResult
			if i < len(h.results) {
				result = h.results[i]
			}
			step = step.Ended(result, outcome.KindOf(h.err))
		}
		rep.Steps = append(rep.Steps, step)
	}
	for i, result := range h.results {
		if strings.HasPrefix(result.Error, Ignored) {
			rep.Notes = append(rep.Notes, h.plan.Steps[i].Title+": "+result.Error)
		}
	}
	for _, refused := range h.plan.Refused {
		rep.Refused = append(rep.Refused, report.Refusal{Guest: refused.Guest, Error: refused.Err.Error()})
	}
	for _, d := range h.plan.Drift {
		rep.Drift = append(rep.Drift, report.Drift(d))
	}
	rep.Notes = append(rep.Notes, h.notes...)
	for _, guest := range h.plan.Foreign {
		rep.Notes = append(rep.Notes, "guest "+guest+" is not in the inventory: left alone")
	}
	for _, guest := range slices.Sorted(maps.Keys(h.plan.Unread)) {
		for _, line := range api.Explain(h.plan.Unread[guest]) {
			rep.Notes = append(rep.Notes, "guest "+guest+": no effect: "+line)
		}
	}
	return rep
}

// problems returns the reasons why a host failed, each once: its own error, guests
// that it cannot have, steps that failed, images that it did not get because they
// failed elsewhere. All other steps were skipped because of these.
func (h *host) problems() []error {
	var list []error
	said := map[string]bool{} // 11 steps of one lost answer are one problem
	add := func(key string, err error) {
		if !said[key] {
			said[key] = true
			list = append(list, err)
		}
	}
	if h.err != nil {
		add(h.err.Error(), h.err)
	}
	for _, refused := range h.plan.Refused {
		list = append(list, fmt.Errorf("guest %s: %w", refused.Guest, refused.Err))
		said[refused.Err.Error()] = true
	}
	for i, result := range h.results {
		missed := result.Outcome == api.Skipped && h.plan.Steps[i].Kind == api.StepImport && h.err == nil
		if result.Outcome == api.Failed || missed {
			text := result.Error
			if title := h.plan.Steps[i].Title; title != "" {
				text = title + ": " + text
			}
			add(result.Error, errors.New(text))
		}
	}
	return list
}

// diff returns how the files that a step writes, or the settings that it changes, differ
// from those on the host.
func (h *host) diff(s api.Step) string {
	if s.Guest == nil {
		from := "the inventory"
		if s.Title != "" && s.Why == "" { // a plan's step has a reason
			from = "the playbook"
		}
		return report.Diff(s.Files, from, h.fileStates(s.Name))
	}
	var have *api.Guest
	if i := slices.IndexFunc(h.state.Guests, func(g api.GuestState) bool { return g.Name == s.Guest.Name }); i >= 0 {
		have = &h.state.Guests[i].Guest
	}
	return report.SettingsDiff(have, s.Guest)
}

// fileStates returns the states of a guest's files on the host.
func (h *host) fileStates(guest string) []api.FileState {
	for _, g := range h.files.Guests {
		if g.Guest == guest {
			return g.Files
		}
	}
	return nil
}

func (r *run) watch(e report.Event) {
	if r.Watch != nil {
		e.Run = r.id
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		r.Watch(e)
	}
}

// watchBegin reports that the run begins.
func (r *run) watchBegin() {
	head := r.head()
	for _, h := range r.hosts {
		head.Hosts = append(head.Hosts, report.Host{Name: h.name})
	}
	r.watch(report.Began(head))
}

// watchPlans reports which steps the remaining hosts are going to take.
func (r *run) watchPlans() {
	for _, h := range r.remaining() {
		var steps []report.Step
		for _, s := range h.plan.Steps {
			steps = append(steps, report.StepOf(s))
		}
		r.watch(report.Event{Kind: report.HostPlan, Host: h.name, Steps: steps})
	}
}

// watchState reports that a host enters or leaves a state.
func (r *run) watchState(h *host, kind report.EventKind) {
	if !h.helper {
		r.watch(report.Event{Kind: kind, Host: h.name, State: h.reached})
	}
}

// watchStep reports an event of a step.
func (r *run) watchStep(h *host, step api.Step, e report.Event) {
	of := report.StepOf(step)
	e.Host, e.Step = h.name, &of
	r.watch(e)
}

// stepDone reports what came of a step.
func (r *run) stepDone(h *host, step api.Step, result api.StepResult) {
	done := report.StepOf(step).Ended(result, "")
	r.watch(report.Event{Kind: report.Done, Host: h.name, Step: &done})
}
