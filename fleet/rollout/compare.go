package rollout

import (
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/node/api"
)

// compare asks a host which files of its guests differ, and plans what has to
// change there. What the files should hold stays here until it is written.
func (r *run) compare(ctx context.Context, h *host) (err error) {
	if req := plan.FilesRequest(h.from, r.Diff); len(req.Guests) > 0 {
		if h.Files, err = h.node.Files(ctx, req); err != nil {
			return err
		}
	}
	h.Plan = plan.Make(h.from, h.State, h.Files, r.image)
	return nil
}

// assign decides where the images come from that hosts lack, and gives each
// host its steps for them.
func (r *run) assign(ctx context.Context) error {
	hosts := compared(r.left())
	r.notes = plan.Differing(hosts)
	images := plan.Sources(hosts, nil)
	if slices.ContainsFunc(images, func(m plan.Image) bool { return m.ID == "" }) {
		images = plan.Sources(hosts, compared(r.outside(ctx)))
	}
	for _, h := range r.left() {
		h.Plan = h.Plan.Provide(h.Host, images)
	}
	for _, m := range images {
		r.missing = append(r.missing, &missing{Image: m, steps: map[*host]*api.Step{}, ready: make(chan struct{}), copies: newCopies()})
	}
	return nil
}

// compared returns hosts as package plan knows them.
func compared(hosts []*host) []plan.Host {
	var list []plan.Host
	for _, h := range hosts {
		list = append(list, plan.Host{Inventory: h.from, State: h.State, Plan: h.Plan})
	}
	return list
}

// outside asks the hosts of the inventory that are not in the run what they
// have: an image that is built anew beside them would be another one.
func (r *run) outside(ctx context.Context) []*host {
	for _, h := range r.inventory {
		if !slices.ContainsFunc(r.hosts, func(of *host) bool { return of.from == h }) {
			r.others = append(r.others, newHost(h))
		}
	}
	r.each(ctx, r.others, func(ctx context.Context, h *host) {
		within, cancel := fanout.Within(ctx, r.Timeout)
		defer cancel()
		node, err := r.Connect(within, h.from)
		if err != nil {
			h.Err = err
			return
		}
		h.node = newConn(node)
		h.State, h.Err = node.State(within)
	})
	return slices.DeleteFunc(slices.Clone(r.others), func(h *host) bool { return h.node == nil || h.Err != nil })
}

// named returns the hosts of these names.
func (r *run) named(names []string) []*host {
	all := slices.Concat(r.hosts, r.others)
	var list []*host
	for _, name := range names {
		if i := slices.IndexFunc(all, func(h *host) bool { return h.Host == name }); i >= 0 {
			list = append(list, all[i])
		}
	}
	return list
}

// confirm asks whether guests are to be deleted.
func (r *run) confirm(ctx context.Context) error {
	var deletes []string
	for _, h := range r.left() {
		for _, s := range h.Plan.Steps {
			if s.Kind == api.StepDelete {
				deletes = append(deletes, h.Host+"/"+s.Name)
			}
		}
	}
	if len(deletes) == 0 || r.Confirm == nil {
		return nil
	}
	return r.Confirm(ctx, deletes)
}
