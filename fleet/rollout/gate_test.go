package rollout

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/health"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// healthy gives a guest a check that its init is ready.
func healthy(g *inventory.Guest) {
	g.Health = &health.Health{Checks: []health.Check{{Ready: true}}, Deadline: time.Minute}
}

// gated returns six hosts whose guest runs and is to get another hostname.
func gated(t *testing.T) *fakeFleet {
	f := six(t)
	for _, h := range f.inv.Hosts {
		on := f.hosts[h.Name]
		is := there(func(g *api.GuestState) { g.Image = on.state.Images[0].ID })
		on.state.Guests, on.kept = []api.GuestState{is}, []api.GuestState{is}
		h.Guests[0] = www(healthy, func(g *inventory.Guest) { g.Hostname = "other" })
	}
	return f
}

func TestGates(t *testing.T) {
	steps := func(list ...string) string { return strings.Join(list, ", ") }
	const sick = "guest www: not healthy: READY=1: it has not come"
	for _, row := range []struct {
		name     string
		strategy Strategy
		fault    func(*fakeHost, *inventory.Guest)
		status   outcome.Outcome
		steps    string // of lab1
		hostname string // of its guest in the end
	}{
		{"a guest that is healthy", Strategy{}, func(*fakeHost, *inventory.Guest) {}, outcome.Changed,
			steps("guest.configure www changed", "guest.restart www changed", "guest.health www unchanged"), "other"},
		{"a guest that is not is put back", Strategy{}, func(h *fakeHost, _ *inventory.Guest) { h.unhealthy = "READY=1: it has not come" }, outcome.Reverted,
			steps("guest.configure www changed", "guest.restart www changed", "guest.health www failed: "+sick, "guest.revert www changed"), "www"},
		{"a guest that is not stays for somebody to look at it", Strategy{OnFailure: Keep}, func(h *fakeHost, _ *inventory.Guest) { h.unhealthy = "READY=1: it has not come" }, outcome.Failed,
			steps("guest.configure www changed", "guest.restart www changed", "guest.health www failed: "+sick), "other"},
		{"a guest of which nothing was kept", Strategy{}, func(h *fakeHost, _ *inventory.Guest) { h.unhealthy, h.kept = "READY=1: it has not come", nil }, outcome.Failed,
			steps("guest.configure www changed", "guest.restart www changed", "guest.health www failed: "+sick, "guest.revert www unchanged"), "other"},
		{"a revert that fails", Strategy{}, func(h *fakeHost, _ *inventory.Guest) {
			h.unhealthy, h.failStep = "READY=1: it has not come", "guest.revert www"
		}, outcome.Failed,
			steps("guest.configure www changed", "guest.restart www changed", "guest.health www failed: "+sick, "guest.revert www failed: guest.revert www: it does not work"), "other"},
		{"a guest that does not start is put back as well", Strategy{}, func(h *fakeHost, _ *inventory.Guest) { h.failStep = "guest.restart www" }, outcome.Reverted,
			steps("guest.configure www changed", "guest.restart www failed: guest.restart www: it does not work", "guest.health www skipped: an earlier step of the guest did not succeed", "guest.revert www changed"), "www"},
		{"a guest without checks stays as the failure left it", Strategy{}, func(h *fakeHost, g *inventory.Guest) { h.failStep, g.Health = "guest.restart www", nil }, outcome.Failed,
			steps("guest.configure www changed", "guest.restart www failed: guest.restart www: it does not work"), "other"},
		{"a guest without checks is put back if that is asked for", Strategy{OnFailure: Revert}, func(h *fakeHost, g *inventory.Guest) { h.failStep, g.Health = "guest.restart www", nil }, outcome.Reverted,
			steps("guest.configure www changed", "guest.restart www failed: guest.restart www: it does not work", "guest.revert www changed"), "www"},
		{"a guest that nothing has changed needs none", Strategy{OnFailure: Revert}, func(h *fakeHost, _ *inventory.Guest) { h.failStep = "guest.configure www" }, outcome.Failed,
			steps("guest.configure www failed: guest.configure www: it does not work", "guest.restart www skipped: an earlier step of the guest did not succeed", "guest.health www skipped: an earlier step of the guest did not succeed"), "www"},
		{"a host that is lost in its gate", Strategy{}, func(h *fakeHost, _ *inventory.Guest) { h.dieAt = "guest.health www" }, outcome.Failed,
			steps("guest.configure www changed", "guest.restart www changed", "guest.health www failed: guest www: changed, its health was not checked: the host gave no answer: what came of it is not known; run the same again to find out and finish"), "other"},
		{"a host that takes too long in its gate is put back", Strategy{HostTimeout: 300 * time.Millisecond}, func(h *fakeHost, _ *inventory.Guest) {
			h.unhealthy = "READY=1: it has not come"
			h.before = func(step string) {
				if step == "guest.health www" {
					time.Sleep(400 * time.Millisecond) // longer than the host may take
				}
			}
		}, outcome.Reverted, "", "www"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := gated(t)
			h := f.hosts["lab1"]
			row.fault(h, f.inv.Hosts[0].Guests[0])
			fleet := f.fleet()
			fleet.Strategy = row.strategy
			run := applied(within(t), fleet, f.inv.Hosts[:1])
			if got := run.Hosts[0]; got.Status != row.status {
				t.Errorf("%s, want %s: %s", got.Status, row.status, got.Error)
			}
			if got := steps(results(run.Hosts[0])...); row.steps != "" && got != row.steps {
				t.Errorf("got  %s\nwant %s", got, row.steps)
			}
			if got := h.state.Guests[0].Hostname; got != row.hostname {
				t.Errorf("its hostname is %s, want %s", got, row.hostname)
			}
			if row.status == outcome.Reverted && run.Hosts[0].Error == "" {
				t.Errorf("why is not said: %q", run.Hosts[0].Error)
			}
		})
	}
}

// A change whose gate fails is put back, the run stops by its rule, and the exit status
// says so.
func TestAFailedGateStopsARunInBatches(t *testing.T) {
	f := gated(t)
	f.hosts["lab2"].unhealthy = "READY=1: it has not come"
	fleet := f.fleet()
	fleet.Forks = 1
	fleet.Strategy.Serial = sizes(t, "1,2")
	run := applied(within(t), fleet, f.inv.Hosts)
	if got, want := outcomes(run), "lab1 changed, lab2 reverted, lab3 stopped, lab4 stopped, lab5 stopped, lab6 stopped"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if code := outcome.ExitCode(false, run.Outcomes()...); code != outcome.ExitStopped {
		t.Errorf("exit status %d", code)
	}
	if got := f.hosts["lab2"].state.Guests[0].Hostname; got != "www" {
		t.Errorf("lab2 has %s", got)
	}
	if !slices.Equal(f.hosts["lab1"].ready, []string{"www"}) {
		t.Errorf("lab1 was not told that www will say when it is ready: %q", f.hosts["lab1"].ready)
	}
}

// A host that was lost after its change has nothing to change when it is tried again,
// and has to be healthy nevertheless.
func TestAHostThatIsTriedAgainPassesItsGates(t *testing.T) {
	for _, row := range []struct {
		name      string
		unhealthy string
		want      outcome.Outcome
	}{
		{"it is healthy", "", outcome.Changed},
		{"it is not", "READY=1: it has not come", outcome.Failed},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := gated(t)
			h := f.hosts["lab1"]
			h.dieAt = "guest.health www"
			fleet := f.fleet()
			fleet.Strategy.Retries = 1
			fleet.Watch = func(e report.Event) {
				if strings.HasPrefix(e.Message, "trying again") {
					h.dieAt, h.unhealthy = "", row.unhealthy
				}
			}
			run := applied(within(t), fleet, f.inv.Hosts[:1])
			if got := run.Hosts[0]; got.Status != row.want || got.Tries != 1 || len(got.Steps) != 1 {
				t.Errorf("%s after %d tries: %q", got.Status, got.Tries, results(got))
			}
		})
	}
}

// A guest of which nobody knows whether it is healthy does not stay: the next run would
// find nothing to change, and not check it.
func TestAGateIsInterrupted(t *testing.T) {
	for _, row := range []struct {
		name     string
		strategy Strategy
		at       string // the step within which it happens
		fault    func(*fakeHost)
		status   outcome.Outcome
		hostname string
		text     string // of the error
	}{
		{"in the gate", Strategy{}, "guest.health www", nil, outcome.Reverted, "www", "interrupted before its health was known"},
		{"in the gate of a run with a budget", Strategy{Budget: []Budget{{Label: "site", Most: sizes(t, "1")[0]}}}, "guest.health www", nil, outcome.Reverted, "www", "interrupted before its health was known"},
		{"between the last step and the gate", Strategy{}, "gate", nil, outcome.Reverted, "www", "interrupted before its health was known"},
		{"before the last step, which the next run takes", Strategy{}, "guest.restart www", nil, outcome.Failed, "other", "interrupted"},
		{"the guest is to stay", Strategy{OnFailure: Keep}, "guest.health www", nil, outcome.Failed, "other", "guest www: changed, its health was not checked"},
		{"the guest cannot be put back", Strategy{}, "guest.health www", func(h *fakeHost) { h.failStep = "guest.revert www" }, outcome.Failed, "other", "guest www: changed, its health was not checked"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := gated(t)
			ctx, interrupt := context.WithCancelCause(within(t))
			h := f.hosts["lab1"]
			if row.fault != nil {
				row.fault(h)
			}
			h.before = func(step string) {
				if step == row.at {
					interrupt(outcome.ErrInterrupted)
				}
			}
			fleet := f.fleet()
			fleet.Watch = func(e report.Event) { h.before(e.State) }
			fleet.Strategy = row.strategy
			run := applied(ctx, fleet, f.inv.Hosts[:1])
			got := run.Hosts[0]
			if got.Status != row.status || got.Class != outcome.KindInterrupted || h.state.Guests[0].Hostname != row.hostname {
				t.Errorf("%s: %+v", h.state.Guests[0].Hostname, got.Result)
			}
			if all := got.Error + strings.Join(results(got), ", "); !strings.Contains(all, row.text) {
				t.Errorf("got %s", all)
			}
		})
	}
}

func TestARestartHasAGate(t *testing.T) {
	f := gated(t)
	f.hosts["lab2"].unhealthy = "READY=1: it has not come"
	f.hosts["lab2"].kept = nil
	var guests []inventory.Instance
	for _, h := range f.inv.Hosts[:2] {
		guests = append(guests, inventory.Instance{Host: h, Guest: h.Guests[0]})
	}
	run := f.fleet().Guests(within(t), plan.Restart, guests)
	if got, want := outcomes(run), "lab1 changed, lab2 failed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
