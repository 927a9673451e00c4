package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// missing is an image of the run that hosts lack.
type missing struct {
	plan.Image
	holders []*host

	// ready is closed when the rest is set: whoever has it may still hand it out.
	ready  chan struct{}
	source *host     // has it now
	built  api.Image // by this run; else it is in the source's state
	err    error
	copies copies
}

// sources decides where missing images come from, and puts the steps for it
// before the others of each host.
func (r *run) sources(ctx context.Context) []*missing {
	hosts := planned(r.reached())
	r.notes = plan.Differing(hosts)
	images := plan.Sources(hosts, nil)
	if slices.ContainsFunc(images, func(m plan.Image) bool { return m.ID == "" }) {
		images = plan.Sources(hosts, planned(r.outside(ctx)))
	}
	for _, h := range r.reached() {
		h.Plan = h.Plan.Provide(h.Host, images)
	}
	var list []*missing
	for _, m := range images {
		list = append(list, &missing{Image: m, holders: r.named(m.Holders), ready: make(chan struct{}), copies: newCopies(), err: m.Err})
	}
	return list
}

// planned are hosts as the plan knows them.
func planned(hosts []*host) []plan.Host {
	var list []plan.Host
	for _, h := range hosts {
		list = append(list, plan.Host{Inventory: h.from, State: h.State, Plan: h.Plan})
	}
	return list
}

// named are the hosts of these names.
func (r *run) named(names []string) []*host {
	var list []*host
	for _, name := range names {
		for _, h := range slices.Concat(r.hosts, r.others) {
			if h.Host == name {
				list = append(list, h)
				break
			}
		}
	}
	return list
}

// lacks reports whether a host is to be given the image.
func (m *missing) lacks(h *host) bool { return slices.Contains(m.Lack, h.Host) }

// outside asks the hosts of the inventory that are not in the run what they
// have, once: an image that is built anew beside them would be another one.
func (r *run) outside(ctx context.Context) []*host {
	if r.asked {
		return r.others
	}
	r.asked = true
	for _, h := range r.inventory {
		if !slices.ContainsFunc(r.hosts, func(of *host) bool { return of.from == h }) {
			r.others = append(r.others, newHost(h))
		}
	}
	r.each(ctx, r.others, func(ctx context.Context, h *host) {
		within, cancel := fanout.Within(ctx, r.Timeout)
		defer cancel()
		if h.node, h.Err = r.Connect(within, h.from); h.Err == nil {
			h.State, h.Err = h.node.State(within)
		}
	})
	return slices.DeleteFunc(slices.Clone(r.others), func(h *host) bool { return h.node == nil || h.Err != nil })
}

// provide has an image built, if nobody has it, and hands it to the hosts that
// lack it.
func (r *run) provide(ctx context.Context, m *missing) {
	if m.err == nil && m.ID == "" {
		m.err = r.buildSomewhere(ctx, m)
	}
	if len(m.holders) > 0 {
		m.source = m.holders[0]
	}
	close(m.ready)
	if m.err == nil && slices.ContainsFunc(m.Lack, func(name string) bool { return m.source == nil || name != m.source.Host }) {
		r.export(ctx, m)
	}
}

// mostBuilders is how many hosts are asked to build one image: what fails on
// three for whatever reason fails on all. Hosts that lack a tool or an archive
// do not count, for they fail at once.
const mostBuilders = 3

// buildSomewhere has one of the hosts build the image: where it fails, the next
// one. Why it failed on the others is said once.
func (r *run) buildSomewhere(ctx context.Context, m *missing) error {
	var failed []*host
	var why []error
	tries := 0
	for _, h := range r.named(m.Builders) {
		result := r.build(ctx, h, m)
		if result.Image != nil {
			m.ID, m.holders, m.built = result.Image.ID, []*host{h}, *result.Image
			if m.Digest != "" && m.ID != m.Digest {
				err := fmt.Errorf("image %s: %s built %s, and the inventory wants %s: give it that digest, or bring a host that has the other",
					m.Spec.Name, h.Host, m.ID, m.Digest)
				if k := h.Plan.Step(m.Image); k >= 0 {
					h.Results[k].Outcome, h.Results[k].Error = api.Failed, err.Error()
				}
				return err
			}
			for i, f := range failed {
				r.watch(Event{Host: f.Host, Step: r.imageStep(f, m), Message: fmt.Sprintf("%sit failed here, and %s built it: %v", api.Warning, h.Host, why[i])})
				if k := f.Plan.Step(m.Image); k >= 0 && !m.lacks(f) && f.lost() == nil {
					f.Results[k] = api.StepResult{Outcome: api.Unchanged} // it needs none itself
				}
			}
			return nil
		}
		failed, why = append(failed, h), append(why, errors.New(result.Error))
		if ctx.Err() != nil {
			break
		}
		if !result.Elsewhere && h.lost() == nil {
			if tries++; tries == mostBuilders {
				break
			}
		}
	}
	var parts []string
	for i, h := range failed {
		same := []string{h.Host}
		for k := range failed {
			if k != i && why[k].Error() == why[i].Error() {
				same = append(same, failed[k].Host)
			}
		}
		if part := fmt.Sprintf("on %s: %v", nodeset.Fold(same), why[i]); !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	err := fmt.Errorf("image %s: build %s", m.Spec.Name, strings.Join(parts, "; "))
	for _, h := range failed { // all say the same, which is then said once
		if k := h.Plan.Step(m.Image); k >= 0 && h.Results[k].Outcome == api.Failed && h.lost() == nil {
			h.Results[k].Error = err.Error()
		}
	}
	return err
}

// imageStep is the step of a host that an event of the image's is about.
func (r *run) imageStep(h *host, m *missing) *api.Step {
	if k := h.Plan.Step(m.Image); k >= 0 {
		return &h.Plan.Steps[k]
	}
	return &api.Step{Kind: api.StepBuildImage, Name: m.Spec.Name, Image: &m.Spec}
}

// build has a host build an image, which is what comes of its step for it.
func (r *run) build(ctx context.Context, h *host, m *missing) api.StepResult {
	step := api.Step{Kind: api.StepBuildImage, Name: m.Spec.Name, Image: &m.Spec, Why: r.imageStep(h, m).Why}
	result := r.ask(ctx, h, []api.Step{step})[0]
	if result.Image == nil && (result.Outcome == api.Changed || result.Outcome == api.Unchanged) {
		result = api.StepResult{Outcome: api.Failed, Error: "vsnode does not say which image it is"}
	}
	if k := h.Plan.Step(m.Image); k >= 0 {
		h.Results[k] = result
	}
	return result
}

// fetch gets the host the images that it lacks and puts their IDs into its
// steps. It returns the guests that have to do without, and why.
func (r *run) fetch(ctx context.Context, h *host, images []*missing) (lost map[string]error) {
	lost = map[string]error{}
	for _, m := range images {
		if !m.lacks(h) {
			if h.Plan.Step(m.Image) >= 0 { // it builds it for others
				<-m.ready
			}
			continue
		}
		err := r.get(ctx, h, m)
		for i, s := range h.Plan.Steps {
			if h.Plan.Waits[s.Name] != m.Key || plan.ForImage(s) {
				continue
			}
			if err != nil {
				lost[s.Name] = err
			} else if s.Guest != nil {
				h.Plan.Steps[i].Guest.Image = m.ID
			}
		}
	}
	return lost
}

// get waits for an image and imports it.
func (r *run) get(ctx context.Context, h *host, m *missing) error {
	step := h.Plan.Step(m.Image)
	<-m.ready // soon, too, if ctx ends: the source hears of it
	err := m.err
	switch {
	case h == m.source && err == nil:
		return nil
	case err == nil && ctx.Err() != nil:
		err = errors.New("interrupted")
	case err == nil:
		err = h.lost()
	}
	if err != nil {
		if h.Results[step].Outcome == "" { // else it tried to build it
			h.Results[step] = skipped("%v", err)
		}
		return err
	}
	begun := time.Now()
	if err = r.take(ctx, h, m, step); err != nil {
		err = fmt.Errorf("image %s: %w", m.Spec.Name, err)
	}
	result := api.StepResult{Outcome: api.Changed, Took: time.Since(begun)}
	if err != nil {
		result.Outcome, result.Error = api.Failed, err.Error()
	}
	h.Results[step] = result
	r.watch(Event{Host: h.Host, Step: &h.Plan.Steps[step], Result: &result})
	return err
}
