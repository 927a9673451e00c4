package plan

import (
	"slices"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// withHealth appends the step that waits until a guest is healthy to those that change
// it.
func withHealth(steps []api.Step, want *inventory.Guest) []api.Step {
	if len(steps) == 0 || want.Health == nil || want.State != inventory.Running {
		return steps
	}
	return append(steps, api.Step{Kind: api.StepHealth, Name: want.Name, Health: want.Health, Why: want.Health.String()})
}

// Prove returns the plan with a step for each of some guests of the host that waits
// until it is healthy, also where nothing is left to change.
func (p Plan) Prove(host *inventory.Host, guests []string) Plan {
	p.Steps = slices.Clone(p.Steps)
	for _, want := range host.Guests {
		known := slices.ContainsFunc(p.Steps, func(s api.Step) bool { return s.Kind == api.StepHealth && s.Name == want.Name })
		if want.Health != nil && !known && slices.Contains(guests, want.Name) {
			p.Steps = append(p.Steps, api.Step{Kind: api.StepHealth, Name: want.Name, Health: want.Health, Why: want.Health.String()})
		}
	}
	return p
}
