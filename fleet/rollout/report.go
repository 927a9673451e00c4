package rollout

import (
	"errors"
	"fmt"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/node/api"
)

// Event tells how a host goes on.
type Event struct {
	Host        string    // empty: the run as a whole
	Step        *api.Step // nil: the host as a whole
	Message     string
	Answered    bool // the host has said what it has
	Done, Total int64
	Result      *api.StepResult // of Step, when the host has answered
	Outcome     outcome.Outcome // of the host, when it is done; else ""
}

// Report is what came of a run.
type Report struct {
	Run   string // its id, which the hosts heard as well
	Hosts []HostReport
	Err   error    // nothing was changed: by what Confirm said
	Notes []string // of what differs between hosts and no step makes equal
	Took  time.Duration
}

// HostReport is what came of one host.
type HostReport struct {
	Host    string
	Address string
	Outcome outcome.Outcome
	Reached string // the state in which it ended, see [Fleet]
	Err     error  // of the host as a whole
	State   api.State
	Files   api.FilesAnswer // of the guests' files, when it was planned
	Plan    plan.Plan
	Results []api.StepResult // one for each of Plan.Steps; none if nothing was to be carried out
	Said    string           // by what Each had it do
	Took    time.Duration
}

// report ends the run.
func (r *run) report() *Report {
	rep := &Report{Run: r.id, Notes: r.notes, Took: time.Since(r.begun)}
	for _, h := range r.hosts {
		rep.Hosts = append(rep.Hosts, h.HostReport)
	}
	return rep
}

func (r *run) watch(e Event) {
	if r.Watch != nil {
		r.Watch(e)
	}
}

// Problems are the reasons why a host failed: the host's own, guests that it
// cannot have, steps that failed, images that it did not get because they
// failed elsewhere. Other steps were skipped for the sake of one of these. What
// is the same of several is said once.
func (h *HostReport) Problems() []error {
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

// FileStates is what the host said of the files that a step writes, and nothing
// for other steps.
func (h *HostReport) FileStates(step api.Step) []api.FileState {
	for _, g := range h.Files.Guests {
		if g.Guest == step.Name {
			return g.Files
		}
	}
	return nil
}
