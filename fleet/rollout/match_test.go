package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// A saved plan, after JSON and back, is carried out as it is, or not at all.
func TestSavedPlan(t *testing.T) {
	for _, tt := range []struct {
		name  string
		since func(f *fakeFleet) // what happens between plan and apply
		want  string             // outcomes; empty: refused
		stale []string           // hosts
	}{
		{"nothing has changed", func(*fakeFleet) {}, "lab1 changed, lab2 changed", nil},
		{"a host cannot be reached", func(f *fakeFleet) { f.hosts["lab2"].unreachable = true }, "lab1 changed, lab2 unreachable", nil},
		{
			"the inventory wants more",
			func(f *fakeFleet) { f.inv.Hosts[1].Guests = append(f.inv.Hosts[1].Guests, www(named("x", 121))) }, "", []string{"lab2"},
		},
		{
			"the inventory wants something else of the same guest",
			func(f *fakeFleet) { f.inv.Hosts[0].Guests = []*inventory.Guest{www(named("www", 121))} }, "", []string{"lab1"},
		},
		{
			"a host has the guest already", func(f *fakeFleet) {
				f.hosts["lab1"].has(bookworm).state.Guests = []api.GuestState{there(func(g *api.GuestState) { g.Image = f.hosts["lab1"].state.Images[0].ID })}
			},
			"", []string{"lab1", "lab2"}, // lab2 would get its image from lab1, and not build it
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, "lab1", "lab2")
			ctx := within(t)
			planned, err := f.fleet().start("", f.inv.Hosts).against(nil, imageNamed).follow(ctx, toPlan...)
			if err != nil {
				t.Fatal(err)
			}
			tt.since(f)
			run, err := f.applySaved(ctx, survivesJSON(t, planned))
			var stale *report.StaleError
			switch {
			case tt.want != "":
				if got := outcomes(run); err != nil || got != tt.want {
					t.Errorf("got %s, %v, want %s", got, err, tt.want)
				}
			case !errors.As(err, &stale):
				t.Fatalf("got %s, %v, want a refusal", outcomes(run), err)
			default:
				var names []string
				for _, h := range stale.Hosts {
					names = append(names, h.Host)
					if len(h.Gone)+len(h.More) == 0 {
						t.Errorf("%s: nothing is said of the difference", h.Host)
					}
				}
				if !slices.Equal(names, tt.stale) {
					t.Errorf("stale is %v, want %v", names, tt.stale)
				}
				for name, h := range f.hosts {
					if len(h.log) > 0 {
						t.Errorf("%s was changed: %q", name, h.log)
					}
				}
			}
		})
	}
}

func (f *fakeFleet) applySaved(ctx context.Context, saved report.Run) (report.Run, error) {
	fleet := f.fleet()
	fleet.Saved = &saved
	return fleet.start("apply", f.inv.Hosts).against(nil, imageNamed).follow(ctx, toApply...)
}

func survivesJSON(t *testing.T, run report.Run) (again report.Run) {
	t.Helper()
	b, err := json.Marshal(run)
	if err == nil {
		err = json.Unmarshal(b, &again)
	}
	if err != nil {
		t.Fatal(err)
	}
	return again
}
