package plan

import (
	"cmp"
	"errors"
	"slices"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Action is something to do with guests now, whatever the inventory says.
type Action string

// Actions.
const (
	Start   Action = "start"
	Stop    Action = "stop"
	Restart Action = "restart"
	Delete  Action = "delete"
	Upgrade Action = "upgrade"
	Revert  Action = "revert"
	Forget  Action = "forget"
)

// Actions returns all actions.
func Actions() []Action { return []Action{Start, Stop, Restart, Upgrade, Revert, Forget, Delete} }

// Act plans an action on guests of one host. A revert puts back the generation that the
// host kept before the run to; if that is empty, the newest one.
func Act(action Action, guests []*inventory.Guest, have []api.GuestState, to string) Plan {
	var p Plan
	for _, g := range guests {
		p.act(action, g, have, cmp.Or(to, api.Newest))
	}
	return p
}

// act adds the step for one guest.
func (p *Plan) act(action Action, guest *inventory.Guest, have []api.GuestState, to string) {
	name := guest.Name
	i := slices.IndexFunc(have, func(g api.GuestState) bool { return g.Name == name })
	if i < 0 {
		switch {
		case guest.State == "": // whoever named it knows no more of it
			p.refuse(name, errors.New("it is neither in the inventory nor on the host: vsfleet guest status shows all guests"))
		case action != Delete:
			p.refuse(name, errors.New("it is not on the host: vsfleet apply creates it"))
		}
		return
	}
	running := have[i].Status == api.Running
	step := api.Step{Name: name, Why: "you say so"}
	switch {
	case action == Start && !running:
		step.Kind = api.StepStart
	case action == Stop && running:
		step.Kind = api.StepStop
	case action == Restart:
		step.Kind = api.StepRestart
	case action == Upgrade && !running:
		p.refuse(name, errors.New("it does not run: start it, or update its image (vsfleet image update)"))
		return
	case action == Upgrade:
		step.Kind = api.StepUpgrade
	case action == Delete:
		step.Kind = api.StepDelete
	case action == Revert:
		step.Kind, step.Generation = api.StepRevert, to
	case action == Forget:
		step.Kind = api.StepForget
	default:
		return
	}
	p.Steps = append(p.Steps, step)
	if action == Start || action == Restart || action == Upgrade {
		p.Steps = withHealth(p.Steps, guest)
	}
}
