package rollout

import (
	"context"
	"fmt"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Versions knows which version of each image guests are to have. Its methods may be called
// by several goroutines.
type Versions interface {
	plan.Versions
	// Begin is told of the image that hosts use before another version is built.
	Begin(ctx context.Context, image api.Image, arch, host string) error
	// Built is told of a version before other hosts get it. After an error they do not.
	Built(ctx context.Context, image api.Image, arch, host string) error
	// Failed is told of an image that guests were put back from, and returns a line for
	// the report.
	Failed(ctx context.Context, id, reason string) (note string, err error)
}

// Update has one of the hosts build the next version of an image, and brings it to all of
// them. No guest is changed.
func (f *Fleet) Update(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host, image *inventory.Image) report.Run {
	renew := state{name: "renew", all: func(r *run, ctx context.Context) error { return r.begin(ctx, image) }, each: func(r *run, _ context.Context, h *host) error {
		h.plan = plan.Renew(image, r.Versions, h.state.Host.Arch)
		return nil
	}}
	return f.fetch(ctx, "image update", inv, hosts, renew)
}

// Push brings images to hosts, whether or not their guests have changed to them. wanted
// returns those of a host.
func (f *Fleet) Push(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host, wanted func(*inventory.Host) []*inventory.Image) report.Run {
	bring := state{name: "compare", each: func(r *run, _ context.Context, h *host) error {
		h.plan = plan.Plan{}.Bring(wanted(h.want), r.Versions, h.state)
		return nil
	}}
	return f.fetch(ctx, "image push", inv, hosts, bring)
}

// fetch takes hosts along the road of images alone.
func (f *Fleet) fetch(ctx context.Context, reason string, inv *inventory.Inventory, hosts []*inventory.Host, want state) report.Run {
	r := f.start(reason, hosts)
	r.inventory, r.image = inv.Hosts, inv.Image
	run, _ := r.follow(ctx, connect, lock, want, assign, provide, verify)
	return run
}

// begin records the image that most hosts use, for each architecture.
func (r *run) begin(ctx context.Context, image *inventory.Image) error {
	for _, used := range plan.MostUsed(compared(r.remaining()), image) {
		if err := r.Versions.Begin(ctx, used.Image, used.Arch, used.Host); err != nil {
			return err
		}
	}
	return nil
}

// holdBack records the images of guests that were put back.
func (r *run) holdBack(ctx context.Context, h *host) {
	if r.Versions == nil {
		return
	}
	for i, s := range h.plan.Steps {
		if s.Kind != api.StepConfigure || s.Guest == nil || h.results[i].Outcome != api.Changed || !h.putBack(s.Name) {
			continue
		}
		had := slices.IndexFunc(h.state.Guests, func(g api.GuestState) bool { return g.Name == s.Name && g.Image != s.Guest.Image })
		if had < 0 {
			continue
		}
		note, err := r.Versions.Failed(context.WithoutCancel(ctx), s.Guest.Image, h.name+": "+h.failure(s.Name))
		if err != nil {
			note = fmt.Sprintf("the image of guest %s is not held: %v", s.Name, err)
		}
		if note != "" {
			h.notes = append(h.notes, note)
		}
	}
}

// failure returns why a guest was put back.
func (h *host) failure(guest string) string {
	for i, s := range h.plan.Steps {
		if s.Name == guest && h.results[i].Error != "" {
			return h.results[i].Error
		}
	}
	return "guest " + guest + " was put back"
}
