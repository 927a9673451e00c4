package report

import (
	"cmp"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/node/api"
)

// StepRecord is what came of a step. A guest that is refused has a record
// without a step, and so has a host with neither.
type StepRecord struct {
	Host    string       `json:"host"`
	Step    api.StepKind `json:"step"`
	Name    string       `json:"name"` // of the guest or the image
	Why     string       `json:"why"`
	Outcome api.Outcome  `json:"outcome"` // as the host says it
	Took    float64      `json:"tookSeconds"`
	Result
	Batch int `json:"batch,omitempty"` // of the host, if there were several
}

// StepRecords returns the records of a run that changed hosts.
func StepRecords(run Run) []StepRecord {
	return records(run.Hosts, func(h Host, s Step) StepRecord {
		return StepRecord{Host: h.Name, Step: s.Kind, Name: s.Name, Why: s.Why, Outcome: s.Outcome, Took: Seconds(s.Took), Result: s.Result, Batch: h.Batch}
	})
}

// PlanRecord is a step that would be taken, else as StepRecord.
type PlanRecord struct {
	Host string       `json:"host"`
	Step api.StepKind `json:"step"`
	Name string       `json:"name"` // of the guest or the image
	Why  string       `json:"why"`
	Diff string       `json:"diff,omitempty"` // of the files that it writes
	// Shadows are what a guest that moves to another image hides of it.
	Shadows *Shadows `json:"shadows,omitempty"`
	Result
}

// PlanRecords returns the records of a run that only planned. Each of the run's
// notes has a record as well, without a host.
func PlanRecords(run Run) []PlanRecord {
	list := records(run.Hosts, func(h Host, s Step) PlanRecord {
		return PlanRecord{Host: h.Name, Step: s.Kind, Name: s.Name, Why: s.Why, Diff: s.Diff, Shadows: s.Shadows, Result: s.Result}
	})
	for _, note := range run.Notes {
		list = append(list, PlanRecord{Why: note, Result: Result{Status: Differs}})
	}
	return list
}

// records returns a record for each step of hosts, each refusal, and each host
// with neither.
func records[R any](hosts []Host, record func(Host, Step) R) []R {
	var list []R
	for _, h := range hosts {
		for _, s := range h.Steps {
			s.Status = cmp.Or(s.Status, Planned)
			list = append(list, record(h, s))
		}
		for _, refused := range h.Refused {
			list = append(list, record(h, Step{
				Name: refused.Guest, Result: Result{Status: outcome.Failed, Class: outcome.KindRefused, Error: refused.Error},
			}))
		}
		if len(h.Steps)+len(h.Refused) == 0 {
			list = append(list, record(h, Step{Result: h.Result}))
		}
	}
	return list
}

// Seconds returns a time as records have it, cut to microseconds: what is below
// is noise, and would make records long.
func Seconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }

// SettingRecord is a setting of the controller.
type SettingRecord struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // a flag, an environment variable, a file, or "default"
}
