package rollout

import (
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/images"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/node/api"
)

// compare asks a host which files of its guests differ, and makes its plan. The
// contents of the files are not sent until they are written.
func (r *run) compare(ctx context.Context, h *host) (err error) {
	if h.helper {
		h.plan = plan.Plan{}
		return nil
	}
	req, err := plan.FilesRequest(h.want, h.state, r.Diff)
	if err != nil {
		return err
	}
	if len(req.Guests) > 0 {
		if h.files, err = h.node.Files(ctx, req); err != nil {
			return err
		}
	}
	h.plan = plan.Make(h.want, h.state, h.files, plan.Rules{Image: r.image, Versions: r.Versions, Prune: r.Prune}).Prove(h.want, h.prove)
	return nil
}

// assign decides where the images that hosts lack come from, and adds the steps for
// them to the plans.
func (r *run) assign(ctx context.Context) error {
	hosts := compared(r.remaining())
	if !r.surveyed {
		r.notes = plan.Differing(hosts)
	}
	missing := plan.Sources(hosts, nil, r.Versions)
	if slices.ContainsFunc(missing, plan.Image.Wanted) {
		missing = plan.Sources(hosts, compared(r.outside(ctx, missing)), r.Versions)
	}
	for _, h := range r.remaining() {
		h.plan = h.plan.Provide(h.name, missing)
	}
	for _, m := range missing {
		r.supplies = append(r.supplies, &supply{Image: m, steps: map[*host]*api.Step{}, ready: make(chan struct{}), ways: map[form]*images.Delivery{}})
	}
	return nil
}

// compared returns hosts as package plan knows them.
func compared(hosts []*host) []plan.Host {
	var list []plan.Host
	for _, h := range hosts {
		list = append(list, plan.Host{Inventory: h.want, State: h.state, Plan: h.plan})
	}
	return list
}

// outside asks hosts of the inventory that are not under way for their states: an
// image that they have is not built again, which would make another one. These are all
// that are not in the run; or, if hosts of other batches have the images, some of
// those.
func (r *run) outside(ctx context.Context, missing []plan.Image) []*host {
	ask, all := r.holders(missing)
	for _, h := range r.inventory {
		if !all && !slices.ContainsFunc(r.hosts, func(of *host) bool { return of.want == h }) {
			ask = append(ask, h)
		}
	}
	for _, h := range ask {
		r.others = append(r.others, newHost(h))
	}
	r.each(ctx, r.others, func(ctx context.Context, h *host) {
		within, cancel := fanout.WithTimeout(ctx, r.Timeout)
		defer cancel()
		node, err := r.Connect(within, h.want)
		if err != nil {
			h.err = err
			return
		}
		h.node = newConn(node)
		h.state, h.err = node.State(within)
	})
	return slices.DeleteFunc(slices.Clone(r.others), func(h *host) bool { return h.node == nil || h.err != nil })
}

// named returns the hosts of these names.
func (r *run) named(names []string) []*host {
	all := slices.Concat(r.at, r.others)
	var list []*host
	for _, name := range names {
		if i := slices.IndexFunc(all, func(h *host) bool { return h.name == name }); i >= 0 {
			list = append(list, all[i])
		}
	}
	return list
}

// Changes are what a run is about to change.
type Changes struct {
	Hosts   []string // all that are changed
	Deletes []string // guests ("web01/www")
}

// confirm asks whether hosts are to be changed and guests to be deleted, once for each of
// them.
func (r *run) confirm(ctx context.Context) error {
	var changes Changes
	for _, h := range r.remaining() {
		if len(h.plan.Steps) > 0 && !r.confirmed[h.name] {
			changes.Hosts = append(changes.Hosts, h.name)
		}
		for _, s := range h.plan.Steps {
			if s.Kind == api.StepDelete && !r.confirmed[h.name+"/"+s.Name] {
				changes.Deletes = append(changes.Deletes, h.name+"/"+s.Name)
			}
		}
	}
	if len(changes.Hosts)+len(changes.Deletes) == 0 || r.Confirm == nil {
		return nil
	}
	if err := r.Confirm(ctx, changes); err != nil {
		return err
	}
	if r.confirmed == nil {
		r.confirmed = map[string]bool{}
	}
	for _, name := range slices.Concat(changes.Hosts, changes.Deletes) {
		r.confirmed[name] = true
	}
	return nil
}
