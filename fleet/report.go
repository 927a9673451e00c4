package fleet

import (
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// Hosts returns what came of each host that was asked.
func Hosts[V any](answers Answers[V]) []report.Host {
	list := make([]report.Host, len(answers))
	for i, r := range answers {
		list[i] = report.HostOf(r.Host.Name, r.Host.Address, r.Outcome, r.Err)
	}
	return list
}

// CheckedHosts returns what came of hosts that were checked: those that are not
// able have failed.
func CheckedHosts(answers Answers[api.Check]) []report.Host {
	list := Hosts(answers)
	for i, r := range answers {
		if r.Outcome == outcome.OK && !report.Able(r.Value) {
			list[i].Status = outcome.Failed
		}
	}
	return list
}

// Places returns what came of a command in each place.
func Places(outputs []Output) []report.Host {
	list := make([]report.Host, len(outputs))
	for i, r := range outputs {
		list[i] = report.HostOf(r.Host.Place(), r.Host.Host.Address, r.Outcome, r.Err)
	}
	return list
}
