package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vsfleet/vsfleet/fleet/images"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/buildmethod"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// stallTimeout limits how long a stream of an image may stand still. It is long: a
// host may have a gigabyte to write to its disk after the last byte.
var stallTimeout = 15 * time.Minute

// supply is the way of an image to the hosts of the run that lack it.
type supply struct {
	plan.Image
	steps map[*host]*api.Step // of the hosts that import or build it
	ready chan struct{}       // closed when origin is set
	origin

	mu   sync.Mutex
	ways map[form]*images.Delivery
	send func(d *images.Delivery, f form)
}

// A form in which an image is sent.
type form struct {
	base  string // it is the difference to that image; "": whole
	parts bool   // a host that gets it can continue if it breaks off
	from  int    // number of contents that came before it broke off
}

// way returns the delivery of the image in a form, which begins with the first host that
// wants it.
func (m *supply) way(f form) *images.Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.ways[f]
	if d == nil {
		d = images.New(stallTimeout)
		m.ways[f] = d
		m.send(d, f)
	}
	return d
}

// close frees what the image takes on this machine.
func (m *supply) close() {
	for _, d := range m.ways {
		d.Close()
	}
}

// base returns what a host has in place of the image, and one of the holders as well.
func (m *supply) base(h *host) plan.Base {
	base := m.Bases[h.name]
	if !slices.ContainsFunc(m.holders, func(from *host) bool { return from.has(base.ID) }) {
		return plan.Base{}
	}
	return base
}

// origin is where an image comes from, or why it does not.
type origin struct {
	id      string
	holders []*host   // to be asked in this order
	built   api.Image // by this run; otherwise it is in the states of its holders
	err     error
	results map[*host]api.StepResult // of the hosts that built it, or tried to
}

// lacks reports whether a host lacks the image.
func (m *supply) lacks(h *host) bool { return slices.Contains(m.Lack, h.name) }

// has reports whether the host had an image when it was asked.
func (h *host) has(id string) bool {
	return slices.ContainsFunc(h.state.Images, func(i api.Image) bool { return i.ID == id })
}

// imageSteps returns the number of images that a host imports or builds.
func imageSteps(h *host) int {
	n := 0
	for _, s := range h.plan.Steps {
		if plan.ForImage(s) {
			n++
		}
	}
	return n
}

// deliver begins to build the images that nobody has, and to hand out all.
func (r *run) deliver(ctx context.Context) error {
	r.watchPlans()
	for _, m := range r.supplies {
		for _, h := range r.remaining() {
			if k := h.plan.Step(h.name, m.Image); k >= 0 {
				m.steps[h] = &h.plan.Steps[k]
			}
		}
		m.send = func(d *images.Delivery, f form) {
			r.delivering.Go(func() { d.Send(ctx, m.sources(f)) })
		}
		r.delivering.Go(func() {
			m.origin = origin{id: m.ID, holders: r.named(m.Holders), err: m.Err}
			if m.err == nil && m.id == "" {
				m.origin = r.buildSomewhere(ctx, m)
			}
			close(m.ready)
		})
	}
	return nil
}

// attempt is the result of building an image on one host.
type attempt struct {
	host   *host
	result api.StepResult
}

// failed reports whether the build failed and the host is still there.
func (a attempt) failed() bool {
	return a.result.Outcome == api.Failed && a.host.node.broken() == nil
}

// mostBuilders is the number of hosts that try to build an image: what fails on
// three fails on all. Hosts that lack a tool or an archive fail at once and do not
// count.
const mostBuilders = 3

// buildSomewhere has one of the hosts build the image; if it fails, the next one.
func (r *run) buildSomewhere(ctx context.Context, m *supply) origin {
	if ref, platform := buildmethod.Registry(m.Spec.Method, m.Spec.Args); ref != "" {
		return r.pull(ctx, m, ref, platform)
	}
	return r.buildBy(ctx, m, r.build)
}

// buildBy has hosts build the image by a function, one after the other until one succeeds.
func (r *run) buildBy(ctx context.Context, m *supply, build func(context.Context, *host, *supply) api.StepResult) origin {
	var tried []attempt
	tries := 0
	for _, h := range r.named(m.Builders) {
		a := attempt{h, build(ctx, h, m)}
		if a.result.Image != nil {
			return r.buildOf(ctx, a, m, tried)
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
	return failedBuilds(m, tried)
}

// build has a host build an image, and returns the result of that step.
func (r *run) build(ctx context.Context, h *host, m *supply) api.StepResult {
	step := api.Step{Kind: api.StepBuildImage, Name: m.Spec.Name, Image: &m.Spec, Anew: m.Anew(), Upgrade: m.Last(), Why: m.step(h).Why}
	result := r.request(ctx, h, []api.Step{step})[0]
	if result.Image == nil && (result.Outcome == api.Changed || result.Outcome == api.Unchanged) {
		result = api.StepResult{Outcome: api.Failed, Error: "vsnode does not say which image it is"}
	}
	return result
}

// buildOf returns the origin of an image that a host built. Others that had tried
// before get a warning with the reason of their failure.
func (r *run) buildOf(ctx context.Context, a attempt, m *supply, tried []attempt) origin {
	o := origin{id: a.result.Image.ID, holders: []*host{a.host}, built: *a.result.Image, results: map[*host]api.StepResult{}}
	for _, t := range tried {
		o.results[t.host] = t.result
	}
	o.results[a.host] = a.result
	switch {
	case m.Anew():
		if err := r.Versions.Built(ctx, o.built, a.host.state.Host.Arch, a.host.name); err != nil {
			o.err = fmt.Errorf("image %s: %w", m.Spec.Name, err)
		}
	case m.Digest != "" && o.id != m.Digest:
		o.err = fmt.Errorf("image %s: %s built %s, and the inventory wants %s: give it that digest, or bring a host that has the other",
			m.Spec.Name, a.host.name, o.id, m.Digest)
	}
	if o.err != nil {
		a.result.Outcome, a.result.Error = api.Failed, o.err.Error()
		o.results[a.host] = a.result
		return o
	}
	for _, t := range tried {
		r.watchStep(t.host, *m.step(t.host), report.Event{Kind: report.Warning, Message: fmt.Sprintf("it failed here, and %s built it: %s", a.host.name, t.result.Error)})
		if !m.lacks(t.host) && t.host.node.broken() == nil {
			o.results[t.host] = api.StepResult{Outcome: api.Unchanged} // it needs none itself
		}
	}
	return o
}

// failedBuilds returns the origin of an image that nobody could build, with one
// error that has the reasons of all hosts and is the result of each.
func failedBuilds(m *supply, tried []attempt) origin {
	var parts []string
	for _, a := range tried {
		var same []string
		for _, other := range tried {
			if other.result.Error == a.result.Error {
				same = append(same, other.host.name)
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

// step returns the step of a host that an event of the image belongs to.
func (m *supply) step(h *host) *api.Step {
	if s := m.steps[h]; s != nil {
		return s
	}
	return &api.Step{Kind: api.StepBuildImage, Name: m.Spec.Name, Image: &m.Spec}
}

// buildResults returns results for the steps of a host. Only those of the images
// that it built are set.
func (r *run) buildResults(h *host) []api.StepResult {
	results := make([]api.StepResult, len(h.plan.Steps))
	for _, m := range r.supplies {
		if k := h.plan.Step(h.name, m.Image); k >= 0 {
			results[k] = m.results[h]
		}
	}
	return results
}

// provide imports the images that a host lacks, and sets their IDs in its steps. A
// host that builds one for others waits for the result.
func (r *run) provide(ctx context.Context, h *host) error {
	h.results, h.missed = make([]api.StepResult, len(h.plan.Steps)), map[string]error{}
	for _, m := range r.supplies {
		k := h.plan.Step(h.name, m.Image)
		if k < 0 {
			continue
		}
		<-m.ready // soon if ctx ends, which ends the build as well
		var err error
		if h.results[k], err = r.obtain(ctx, h, m); err != nil {
			for guest, key := range h.plan.Waits {
				if key == m.Key {
					h.missed[guest] = err
				}
			}
			continue
		}
		h.plan = h.plan.Give(m.Key, m.id)
		h.gained = append(h.gained, api.Image{ID: m.id, Key: m.Spec.Key(), Spec: m.Spec})
	}
	return nil
}

// obtain has a host import an image, unless it built it itself. It returns the
// result of the step, and an error if the host does not have the image now.
func (r *run) obtain(ctx context.Context, h *host, m *supply) (api.StepResult, error) {
	own, tried := m.results[h]
	err := m.err
	switch {
	case !m.lacks(h), err == nil && h == m.holders[0]:
		return own, nil
	case err == nil && h.has(m.id): // a build gave what was there
		return api.StepResult{Outcome: api.Unchanged}, nil
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
	taken, err := r.importImage(ctx, h, m)
	if err != nil {
		err = fmt.Errorf("image %s: %w", m.Spec.Name, err)
	}
	result := api.StepResult{Outcome: api.Changed, Took: time.Since(begun), Sent: taken}
	if err != nil {
		result.Outcome, result.Error = api.Failed, err.Error()
	}
	r.stepDone(h, *m.steps[h], result)
	return result, err
}

// importImage has a host take an image that is under way: as the difference to another one
// that it has, and whole if that fails. It returns the number of bytes that were sent to it.
func (r *run) importImage(ctx context.Context, h *host, m *supply) (int64, error) {
	base := m.base(h)
	sent, err := r.takeImage(ctx, h, m, base.ID)
	if err == nil || base.ID == "" || ctx.Err() != nil || h.node.broken() != nil {
		return sent, err
	}
	r.watchStep(h, *m.steps[h], report.Event{Kind: report.Warning, Message: fmt.Sprintf("not as the difference to %s, but whole: %v", base.Name, err)})
	more, err := r.takeImage(ctx, h, m, "")
	return sent + more, err
}

// takeImage has a host take an image as the difference to a base, or whole: the rest of it if
// some has come before.
func (r *run) takeImage(ctx context.Context, h *host, m *supply, base string) (int64, error) {
	arrived, err := h.node.Arrived(ctx, api.ExportImage{ID: m.id, Base: base})
	if err != nil {
		return 0, err
	}
	f := form{base, arrived.Parts, arrived.Contents}
	if !f.parts {
		f = form{}
	}
	if f.from > 0 {
		r.watchStep(h, *m.steps[h], report.Event{Kind: report.Progress, Message: fmt.Sprintf("continues after %d files that came before", f.from)})
	}
	var sent atomic.Int64
	take := func(ctx context.Context, stream io.Reader) error {
		return h.node.ImportImage(ctx, m.id, &counter{stream, &sent})
	}
	err = m.way(f).Receive(ctx, take, images.Watch{
		Progress: func(done int64, source string) {
			r.watchStep(h, *m.steps[h], report.Event{Kind: report.Progress, Message: fmt.Sprintf("%d MiB from %s", done>>20, source)})
		},
		Broken: func(err error) {
			r.watchStep(h, *m.steps[h], report.Event{Kind: report.Warning, Message: err.Error()})
		},
	})
	return sent.Load(), err
}

// counter counts the bytes that are read.
type counter struct {
	r io.Reader
	n *atomic.Int64 // the reader of a broken session may read on
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// sources returns the holders of the image, and of the base if there is one.
func (m *supply) sources(f form) []images.Source {
	req := api.ExportImage{ID: m.id, Base: f.base, Parts: f.parts, From: f.from}
	var list []images.Source
	for _, h := range m.holders {
		if f.base != "" && !h.has(f.base) {
			continue
		}
		list = append(list, images.Source{
			Name:   h.name,
			Export: func(ctx context.Context, w io.Writer) error { return h.node.ExportImage(ctx, req, w) },
			Most:   m.most(h),
			Turns:  h.node.exports,
		})
	}
	return list
}

// most returns an upper bound for the stream of the image, by its size on the host.
func (m *supply) most(h *host) int64 {
	img := m.built
	for _, i := range h.state.Images {
		if i.ID == m.id {
			img = i
		}
	}
	return img.Most()
}
