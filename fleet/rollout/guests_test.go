package rollout

import (
	"slices"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func TestGuests(t *testing.T) {
	stopped := func(g *api.GuestState) { g.Status = api.Stopped }
	tests := []struct {
		name   string
		action plan.Action
		have   []api.GuestState
		want   outcome.Outcome
		log    []string
	}{
		{"a stopped guest is started", plan.Start, []api.GuestState{there(stopped)}, outcome.Changed, []string{"guest.start www"}},
		{"a running guest stays started", plan.Start, []api.GuestState{there()}, outcome.OK, nil},
		{"a running guest is stopped", plan.Stop, []api.GuestState{there()}, outcome.Changed, []string{"guest.stop www"}},
		{"a stopped guest stays stopped", plan.Stop, []api.GuestState{there(stopped)}, outcome.OK, nil},
		{"a stopped guest is started by restart, too", plan.Restart, []api.GuestState{there(stopped)}, outcome.Changed, []string{"guest.restart www"}},
		{"a running guest is deleted", plan.Delete, []api.GuestState{there()}, outcome.Changed, []string{"guest.delete www"}},
		{"a guest that is not there is as good as deleted", plan.Delete, nil, outcome.OK, nil},
		{"a guest that is not there cannot be started", plan.Start, nil, outcome.Failed, nil},
	}
	t.Run("a guest that nobody knows cannot even be deleted", func(t *testing.T) {
		f := newFleet(t, "lab1")
		r := f.fleet().Guests(within(t), plan.Delete, []inventory.Instance{{Host: f.inv.Hosts[0], Guest: &inventory.Guest{Guest: api.Guest{Name: "wwww"}}}})
		if p := r.Hosts[0].Error; r.Hosts[0].Status != outcome.Failed || strings.Contains(p, "\n") || !strings.Contains(p, "neither in the inventory nor on the host") {
			t.Errorf("%s: %v", r.Hosts[0].Status, p)
		}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, "lab1", "lab2")
			for _, h := range f.hosts {
				h.state.Guests = slices.Clone(tt.have)
			}
			var guests []inventory.Instance
			for _, h := range f.inv.Hosts {
				guests = append(guests, inventory.Instance{Host: h, Guest: h.Guests[0]})
			}
			r := f.fleet().Guests(within(t), tt.action, guests)
			for _, h := range r.Hosts {
				if h.Status != tt.want || !slices.Equal(f.hosts[h.Name].log, tt.log) {
					t.Errorf("%s: %s, did %q, want %s and %q (%v)", h.Name, h.Status, f.hosts[h.Name].log, tt.want, tt.log, h.Error)
				}
			}
		})
	}
}

// What is counted while guests are worked on are hosts: "0/3", not "0/18".
func TestHostsOfGuests(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3")
	var guests []inventory.Instance
	for range 6 {
		for _, h := range f.inv.Hosts {
			guests = append(guests, inventory.Instance{Host: h, Guest: h.Guests[0]})
		}
	}
	if got := Hosts(guests); !slices.Equal(got, f.inv.Hosts) {
		t.Errorf("%d hosts of %d guests", len(got), len(guests))
	}
}
