package rollout

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// TestReach has a guest start whose network could cut the host off.
func TestReach(t *testing.T) {
	grace := reachGrace
	t.Cleanup(func() { reachGrace = grace })
	reachGrace = 2 * time.Second
	for _, row := range []struct {
		name     string
		is       func(h *fakeHost, f *Fleet)
		outcome  outcome.Outcome
		confirms int
		exit     int
		text     string // of the error
	}{
		{"the host is reached again", nil, outcome.Changed, 1, 0, ""},
		{"it is reached at the second attempt", func(h *fakeHost, _ *Fleet) { h.away = 1 }, outcome.Changed, 1, 0, ""},
		{"nobody asked for it", func(_ *fakeHost, f *Fleet) { f.ConfirmWithin = 0 }, outcome.Changed, 0, 0, ""},
		{"the host has put the guest back", func(h *fakeHost, _ *Fleet) { h.late = true }, outcome.Reverted, 1, 2,
			"after the change the host could not be reached by a new connection, and has put back guest www"},
		{"the host could not put the guest back", func(h *fakeHost, _ *Fleet) { h.late, h.unreverted = true, "disk full" }, outcome.Failed, 1, 2,
			"putting back guest www has failed: disk full"},
		{"the host is never reached again", func(h *fakeHost, _ *Fleet) { h.away = -1 }, outcome.Unreachable, 0, 4,
			"could not be reached for 2.01s; it puts back guest www by itself, and the next run is told: no route to host"},
		{"the connection breaks within the steps, and the host has put the guest back", func(h *fakeHost, _ *Fleet) {
			h.dieAt, h.late = "guest.start www", true
		}, outcome.Reverted, 1, 2, "has put back guest www"},
		{"the host does not take the steps", func(h *fakeHost, _ *Fleet) { h.unguarded = "guard the connection: disk full" }, outcome.Failed, 1, 2,
			"guard the connection: disk full"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFleet(t, "web01")
			g := www()
			g.HostAddress, g.Network = false, api.Network{Mode: api.ModeNAT}
			f.inv.Hosts[0].Guests = []*inventory.Guest{g}
			h := f.hosts["web01"].has(bookworm)
			fleet := f.fleet()
			fleet.ConfirmWithin = 10 * time.Millisecond
			if row.is != nil {
				row.is(h, fleet)
			}
			run := applied(t.Context(), fleet, f.inv.Hosts)
			got := run.Hosts[0]
			if got.Result.Status != row.outcome || !strings.Contains(got.Result.Error, row.text) || row.text == "" && got.Result.Error != "" || h.confirms != row.confirms {
				t.Errorf("%d confirmations, %+v", h.confirms, got.Result)
			}
			if h.late && strings.Contains(got.Result.Error, "gave no answer") {
				t.Errorf("what came of it is known: %s", got.Result.Error)
			}
			if exit := outcome.ExitCode(false, got.Result.Status); exit != row.exit {
				t.Errorf("exit status %d", exit)
			}
			for _, s := range got.Steps {
				if (s.Status == outcome.Changed) == (h.late || h.unguarded != "") && s.Kind != api.StepBuildImage {
					t.Errorf("step %+v", s)
				}
			}
		})
	}
}

// A run that is interrupted within the steps confirms what the host has done by then.
func TestReachAfterAnInterrupt(t *testing.T) {
	f := newFleet(t, "web01")
	g := www()
	g.HostAddress, g.Network = false, api.Network{Mode: api.ModeNAT}
	f.inv.Hosts[0].Guests = []*inventory.Guest{g}
	h := f.hosts["web01"].has(bookworm)
	ctx, cancel := context.WithCancel(t.Context())
	h.before = func(step string) {
		if step == "guest.start www" {
			cancel()
		}
	}
	fleet := f.fleet()
	fleet.ConfirmWithin = time.Minute
	applied(ctx, fleet, f.inv.Hosts)
	if h.confirms != 1 || h.guard != nil {
		t.Errorf("%d confirmations", h.confirms)
	}
}

// What cannot cut the host off costs no connection.
func TestReachOnlyWhereItHasTo(t *testing.T) {
	f := newFleet(t, "web01")
	h := f.hosts["web01"].has(bookworm)
	fleet := f.fleet()
	fleet.ConfirmWithin = time.Minute
	if run := applied(t.Context(), fleet, f.inv.Hosts); run.Hosts[0].Result.Status != outcome.Changed || h.confirms != 0 {
		t.Errorf("%d confirmations, %+v", h.confirms, run.Hosts[0].Result)
	}
}

// The first run that leases a host is told what the host has put back.
func TestNotesOfWhatWasPutBack(t *testing.T) {
	f := newFleet(t, "web01", "web02")
	f.hosts["web01"].has(bookworm)
	f.hosts["web02"].has(bookworm)
	f.hosts["web01"].putBack = &api.Reverted{
		Run: "20261128T120000Z-0123abcd", Owner: "root@ctl", Reason: "apply", Guests: []string{"www", "db"}, Time: time.Now(), Error: errors.New("disk full").Error(),
	}
	run := f.apply(t.Context())
	if notes := strings.Join(run.Hosts[0].Notes, ";"); !strings.HasPrefix(notes, "guests www, db could not be put back at ") ||
		!strings.HasSuffix(notes, ": run 20261128T120000Z-0123abcd (root@ctl, apply) could not reach the host after its change: disk full") {
		t.Error(notes)
	}
	if notes := run.Hosts[1].Notes; notes != nil {
		t.Error(notes)
	}
}
