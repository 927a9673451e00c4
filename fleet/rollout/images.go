package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// missing is an image that hosts of the run lack.
type missing struct {
	plan.Image
	steps  map[*host]*api.Step // by which hosts get or build it
	ready  chan struct{}       // closed when the origin is known
	origin                     // then; it may still hand the image out
	copies copies
}

// origin is where an image comes from in the end.
type origin struct {
	id      string
	holders []*host   // to be asked in this order
	built   api.Image // by this run; else it is in the holders' states
	err     error
	results map[*host]api.StepResult // of the hosts that built it, or tried to
}

// lacks reports whether a host is to be given the image.
func (m *missing) lacks(h *host) bool { return slices.Contains(m.Lack, h.Host) }

// imageSteps counts the images that a host has to get or to build.
func imageSteps(h *host) int {
	n := 0
	for _, s := range h.Plan.Steps {
		if plan.ForImage(s) {
			n++
		}
	}
	return n
}

// supply begins to build the images that nobody has, and to hand all out.
func (r *run) supply(ctx context.Context) error {
	for _, m := range r.missing {
		for _, h := range r.left() {
			if k := h.Plan.Step(h.Host, m.Image); k >= 0 {
				m.steps[h] = &h.Plan.Steps[k]
			}
		}
		r.supplies.Go(func() {
			m.origin = origin{id: m.ID, holders: r.named(m.Holders), err: m.Err}
			if m.err == nil && m.id == "" {
				m.origin = r.buildSomewhere(ctx, m)
			}
			close(m.ready)
			if m.err == nil && slices.ContainsFunc(m.Lack, func(name string) bool { return name != m.holders[0].Host }) {
				r.export(ctx, m)
			}
		})
	}
	return nil
}

// attempt is what came of building an image on one host.
type attempt struct {
	host   *host
	result api.StepResult
}

// failed reports whether the host is still there and its build did not work.
func (a attempt) failed() bool {
	return a.result.Outcome == api.Failed && a.host.node.broken() == nil
}

// mostBuilders is how many hosts are asked to build one image: what fails on
// three for whatever reason fails on all. Hosts that lack a tool or an archive
// do not count, for they fail at once.
const mostBuilders = 3

// buildSomewhere has one of the hosts build the image: where it fails, the next
// one.
func (r *run) buildSomewhere(ctx context.Context, m *missing) origin {
	var tried []attempt
	tries := 0
	for _, h := range r.named(m.Builders) {
		a := attempt{h, r.build(ctx, h, m)}
		if a.result.Image != nil {
			return r.builtBy(a, m, tried)
		}
		tried = append(tried, a)
		if ctx.Err() != nil {
			break
		}
		if !a.result.Elsewhere && h.node.broken() == nil {
			if tries++; tries == mostBuilders {
				break
			}
		}
	}
	return builtByNobody(m, tried)
}

// build has a host build an image, and returns the result of that step.
func (r *run) build(ctx context.Context, h *host, m *missing) api.StepResult {
	step := api.Step{Kind: api.StepBuildImage, Name: m.Spec.Name, Image: &m.Spec, Why: m.step(h).Why}
	result := r.ask(ctx, h, []api.Step{step})[0]
	if result.Image == nil && (result.Outcome == api.Changed || result.Outcome == api.Unchanged) {
		result = api.StepResult{Outcome: api.Failed, Error: "vsnode does not say which image it is"}
	}
	return result
}

// builtBy is the origin of an image that one host built, after others had tried:
// why these failed is a warning.
func (r *run) builtBy(a attempt, m *missing, tried []attempt) origin {
	o := origin{id: a.result.Image.ID, holders: []*host{a.host}, built: *a.result.Image, results: map[*host]api.StepResult{}}
	for _, t := range tried {
		o.results[t.host] = t.result
	}
	o.results[a.host] = a.result
	if m.Digest != "" && o.id != m.Digest {
		o.err = fmt.Errorf("image %s: %s built %s, and the inventory wants %s: give it that digest, or bring a host that has the other",
			m.Spec.Name, a.host.Host, o.id, m.Digest)
		a.result.Outcome, a.result.Error = api.Failed, o.err.Error()
		o.results[a.host] = a.result
		return o
	}
	for _, t := range tried {
		r.watchStep(t.host, *m.step(t.host), report.Event{Kind: report.Warning, Message: fmt.Sprintf("it failed here, and %s built it: %s", a.host.Host, t.result.Error)})
		if !m.lacks(t.host) && t.host.node.broken() == nil {
			o.results[t.host] = api.StepResult{Outcome: api.Unchanged} // it needs none itself
		}
	}
	return o
}

// builtByNobody is the origin of an image that could not be built: why it failed
// where is one error, which is the result of all of them.
func builtByNobody(m *missing, tried []attempt) origin {
	var parts []string
	for _, a := range tried {
		var same []string
		for _, other := range tried {
			if other.result.Error == a.result.Error {
				same = append(same, other.host.Host)
			}
		}
		if part := fmt.Sprintf("on %s: %s", nodeset.Fold(same), a.result.Error); !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	o := origin{results: map[*host]api.StepResult{}}
	o.err = fmt.Errorf("image %s: build %s", m.Spec.Name, strings.Join(parts, "; "))
	for _, a := range tried {
		if a.failed() {
			a.result.Error = o.err.Error()
		}
		o.results[a.host] = a.result
	}
	return o
}

// step returns the step of a host that an event of the image's is about.
func (m *missing) step(h *host) *api.Step {
	if s := m.steps[h]; s != nil {
		return s
	}
	return &api.Step{Kind: api.StepBuildImage, Name: m.Spec.Name, Image: &m.Spec}
}

// built returns results for the steps of a host, of which those are set that
// build an image.
func (r *run) built(h *host) []api.StepResult {
	results := make([]api.StepResult, len(h.Plan.Steps))
	for _, m := range r.missing {
		if k := h.Plan.Step(h.Host, m.Image); k >= 0 {
			results[k] = m.results[h]
		}
	}
	return results
}

// provide gets a host the images that it lacks, and puts their IDs into its
// steps. A host that builds one for others waits for what comes of it.
func (r *run) provide(ctx context.Context, h *host) error {
	h.Results, h.missed = make([]api.StepResult, len(h.Plan.Steps)), map[string]error{}
	for _, m := range r.missing {
		k := h.Plan.Step(h.Host, m.Image)
		if k < 0 {
			continue
		}
		<-m.ready // soon, too, if ctx ends: whoever builds it hears of it
		var err error
		if h.Results[k], err = r.get(ctx, h, m); err != nil {
			for guest, key := range h.Plan.Waits {
				if key == m.Key {
					h.missed[guest] = err
				}
			}
			continue
		}
		h.Plan = h.Plan.Give(m.Key, m.id)
	}
	return nil
}

// get has a host import an image, unless it built it itself. It returns the
// result of the step for it, and an error if the host does not have the image.
func (r *run) get(ctx context.Context, h *host, m *missing) (api.StepResult, error) {
	own, tried := m.results[h]
	err := m.err
	switch {
	case !m.lacks(h), err == nil && h == m.holders[0]:
		return own, nil
	case err == nil && ctx.Err() != nil:
		err = errors.New("interrupted")
	case err == nil:
		err = h.node.broken()
	}
	if err != nil {
		if !tried {
			own = skipped("%v", err)
		}
		return own, err
	}
	begun := time.Now()
	if err = r.take(ctx, h, m); err != nil {
		err = fmt.Errorf("image %s: %w", m.Spec.Name, err)
	}
	result := api.StepResult{Outcome: api.Changed, Took: time.Since(begun)}
	if err != nil {
		result.Outcome, result.Error = api.Failed, err.Error()
	}
	r.stepDone(h, *m.steps[h], result)
	return result, err
}
