package plan

import (
	"slices"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// Guarded returns the guests whose steps could cut the controller off from their host,
// in the order of these steps. have are the guests of the host, ssh the port that its
// sshd listens on.
//
// A start or stop puts a guest's own addresses onto a device of the host or takes them
// off, with the routes that come with them; in mode nat it adds a device and writes the
// host's nat table. A guest that shares the host's address takes nothing but its ports,
// among which sshd's could be. What only a start makes true does no harm before it.
func Guarded(steps []api.Step, have []api.GuestState, ssh int) []string {
	known := map[string][]api.Guest{} // each guest as it runs, as it is configured, and as it will be
	runs := map[string]bool{}
	for _, g := range have {
		known[g.Name] = []api.Guest{g.Guest}
		if runs[g.Name] = g.Status == api.Running; runs[g.Name] && g.Runs != nil {
			known[g.Name] = append(known[g.Name], *g.Runs)
		}
	}
	var guests []string
	for _, s := range steps {
		acts := false
		switch s.Kind {
		case api.StepCreate:
			known[s.Name] = append(known[s.Name], *s.Guest)
		case api.StepConfigure: // a guest that runs takes its ports and forwards at once
			acts = runs[s.Name] && slices.ContainsFunc(known[s.Name], func(g api.Guest) bool { return !sameNetwork(g, *s.Guest) })
			known[s.Name] = append(known[s.Name], *s.Guest)
		case api.StepStop, api.StepDelete:
			acts = runs[s.Name]
			runs[s.Name] = false
		case api.StepStart, api.StepRestart:
			acts, runs[s.Name] = true, true
		case api.StepRepair: // and no revert: with what it puts back, the host was reached
			acts = true
		}
		touches := func(g api.Guest) bool { return touchesHost(g.Network, ssh) }
		if acts && slices.ContainsFunc(known[s.Name], touches) && !slices.Contains(guests, s.Name) {
			guests = append(guests, s.Name)
		}
	}
	return guests
}

func sameNetwork(a, b api.Guest) bool {
	differs := func(row *setting.Row) bool { return !row.Same(&a, &b) }
	return !slices.ContainsFunc(setting.In("network"), differs)
}

// touchesHost reports whether a guest that starts or stops changes what the controller
// reaches its host by.
func touchesHost(n api.Network, ssh int) bool {
	return n.Mode != api.ModeShared || slices.ContainsFunc(n.Ports, func(r port.Range) bool {
		return r.Proto == port.TCP && int(r.First) <= ssh && ssh <= int(r.Last)
	})
}
