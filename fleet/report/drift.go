package report

import (
	"fmt"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// Drift is one difference between a host and the inventory.
type Drift struct {
	Guest string `json:"guest"`
	What  string `json:"what"` // "guest", "state", "file /etc/motd", "running", or a setting
	Have  string `json:"have"` // empty: none
	Want  string `json:"want"` // empty: as it was set up
}

// DriftRecord is one difference between a host and the inventory. A host without
// differences has one record with an empty Drift, and so has a host that did not
// answer.
type DriftRecord struct {
	Host string `json:"host"`
	Drift
	Result
}

// DriftRecords returns the records of a run that only planned.
func DriftRecords(run Run) []DriftRecord {
	var list []DriftRecord
	for _, h := range run.Hosts {
		if len(h.Drift) == 0 {
			list = append(list, DriftRecord{Host: h.Name, Result: h.Result})
		}
		for _, d := range h.Drift {
			list = append(list, DriftRecord{Host: h.Name, Drift: d, Result: Result{Status: Differs}})
		}
	}
	return list
}

// Drifted reports whether any host differs from the inventory.
func (r Run) Drifted() bool {
	for _, h := range r.Hosts {
		if len(h.Drift) > 0 {
			return true
		}
	}
	return false
}

// StaleError means that a saved plan differs from the current one.
type StaleError struct {
	Hosts []StalePlan
}

// StalePlan is a host whose plan differs from the saved one. Gone and More may both be
// empty if only the order of the steps or the refused guests differ.
type StalePlan struct {
	Host       string
	Gone, More []Step // only in the saved plan; only in the new one
}

func (e *StaleError) Error() string {
	names := make([]string, len(e.Hosts))
	for i, h := range e.Hosts {
		names[i] = h.Host
	}
	return fmt.Sprintf("the plan of %s is not the saved one any more, as the hosts or the inventory have changed since: nothing was changed", nodeset.Fold(names))
}

// ErrorKind is the [outcome.Kind] of the error.
func (*StaleError) ErrorKind() string { return string(outcome.KindRefused) }

// Hint returns what to do about the error.
func (*StaleError) Hint() string { return "plan again, and save that: vsfleet plan --out" }
