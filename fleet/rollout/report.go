package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// report returns what came of the run.
func (r *run) report() report.Run {
	run := report.Run{
		ID: r.id, Who: r.Owner, Verb: cmp.Or(r.reason, "plan"), When: r.begun, Took: time.Since(r.begun), Notes: r.notes,
	}
	for _, h := range r.hosts {
		run.Hosts = append(run.Hosts, r.hostReport(h))
	}
	return run
}

// result returns what came of the host in three words.
func (h *host) result() report.Result {
	result := report.ResultOf(h.Outcome, h.Err)
	if err := errors.Join(h.problems()...); err != nil {
		result.Error = err.Error()
	}
	return result
}

// hostReport returns what came of a host; of a run that changes nothing, its
// plan.
func (r *run) hostReport(h *host) report.Host {
	rep := report.HostOf(h.Host, h.from.Address, h.Outcome, h.Err)
	rep.Result, rep.State, rep.Text, rep.Took = h.result(), h.Reached, h.Said, h.Took
	for i, s := range h.Plan.Steps {
		step := report.StepOf(s)
		if r.Diff {
			step.Diff = report.Diff(s.Files, h.fileStates(s.Name))
		}
		if r.reason != "" {
			var result api.StepResult
			if i < len(h.Results) {
				result = h.Results[i]
			}
			step = step.Ended(result, outcome.KindOf(h.Err))
		}
		rep.Steps = append(rep.Steps, step)
	}
	for _, refused := range h.Plan.Refused {
		rep.Refused = append(rep.Refused, report.Refusal{Guest: refused.Guest, Error: refused.Err.Error()})
	}
	for _, guest := range h.Plan.Foreign {
		rep.Notes = append(rep.Notes, "guest "+guest+" is not in the inventory: left alone")
	}
	for _, guest := range slices.Sorted(maps.Keys(h.Plan.Unread)) {
		for _, line := range api.Explain(h.Plan.Unread[guest]) {
			rep.Notes = append(rep.Notes, "guest "+guest+": not honoured: "+line)
		}
	}
	return rep
}

// problems are the reasons why a host failed: the host's own, guests that it
// cannot have, steps that failed, images that it did not get because they
// failed elsewhere. Other steps were skipped for the sake of one of these. What
// several have in common is returned once.
func (h *host) problems() []error {
	var list []error
	said := map[string]bool{} // 11 steps of one lost answer are one problem
	add := func(key string, err error) {
		if !said[key] {
			said[key] = true
			list = append(list, err)
		}
	}
	if h.Err != nil {
		add(h.Err.Error(), h.Err)
	}
	for _, refused := range h.Plan.Refused {
		list = append(list, fmt.Errorf("guest %s: %w", refused.Guest, refused.Err))
		said[refused.Err.Error()] = true
	}
	for i, result := range h.Results {
		missed := result.Outcome == api.Skipped && h.Plan.Steps[i].Kind == api.StepImport && h.Err == nil
		if result.Outcome == api.Failed || missed {
			add(result.Error, errors.New(result.Error))
		}
	}
	return list
}

// fileStates returns what the host said of the files of a guest.
func (h *host) fileStates(guest string) []api.FileState {
	for _, g := range h.Files.Guests {
		if g.Guest == guest {
			return g.Files
		}
	}
	return nil
}

func (r *run) watch(e report.Event) {
	if r.Watch != nil {
		e.Run, e.Time = r.id, time.Now()
		r.Watch(e)
	}
}

// watchStep reports an event of a step.
func (r *run) watchStep(h *host, step api.Step, e report.Event) {
	of := report.StepOf(step)
	e.Host, e.Step = h.Host, &of
	r.watch(e)
}

// stepDone reports what came of a step.
func (r *run) stepDone(h *host, step api.Step, result api.StepResult) {
	done := report.StepOf(step).Ended(result, "")
	r.watch(report.Event{Kind: report.Done, Host: h.Host, Step: &done})
}
