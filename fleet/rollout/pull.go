package rollout

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/fleet/registry"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// pull gets an image from a registry, and has a host build from it; if that fails, the
// next one.
func (r *run) pull(ctx context.Context, m *supply, ref, platform string) origin {
	first := r.named(m.Builders)[0]
	if platform == "" {
		platform = "linux/" + first.state.Host.Arch
	}
	begun := time.Now()
	found, err := r.Registry.Find(ctx, ref, platform)
	if err != nil {
		return r.notPulled(ctx, first, m, begun, err)
	}
	if h, image := r.made(m, found.Source); h != nil {
		result := api.StepResult{Outcome: api.Unchanged, Image: &image, Took: time.Since(begun)}
		r.stepDone(h, *m.step(h), result)
		o := r.buildOf(ctx, attempt{h, result}, m, nil)
		if o.results[first] == (api.StepResult{}) {
			o.results[first] = api.StepResult{Outcome: api.Unchanged}
		}
		return o
	}
	message := "pulling " + found.Source
	layout, err := found.Fetch(ctx, func(done, total int64) {
		r.watchStep(first, *m.step(first), report.Event{Kind: report.Progress, Message: message, Done: done, Total: total})
	})
	if err != nil {
		return r.notPulled(ctx, first, m, begun, err)
	}
	defer layout.Close()
	return r.buildBy(ctx, m, func(ctx context.Context, h *host, m *supply) api.StepResult {
		return r.makeImage(ctx, h, m, found.Source, layout)
	})
}

// notPulled returns the origin of an image that the registry did not give.
func (r *run) notPulled(ctx context.Context, first *host, m *supply, begun time.Time, err error) origin {
	err = fmt.Errorf("image %s: %w", m.Spec.Name, err)
	result := api.StepResult{Outcome: api.Failed, Error: err.Error(), Took: time.Since(begun)}
	if ctx.Err() != nil {
		result.Error = "interrupted: " + result.Error
	}
	r.stepDone(first, *m.step(first), result)
	return origin{err: err, results: map[*host]api.StepResult{first: result}}
}

// made returns a host that has built the image from the same manifest, and that image.
func (r *run) made(m *supply, source string) (*host, api.Image) {
	key := m.Spec.Key()
	for _, h := range r.named(m.Builders) {
		i := slices.IndexFunc(h.state.Images, func(i api.Image) bool {
			return i.Source == source && i.Key == key && (m.Digest == "" || m.Digest == i.ID)
		})
		if i >= 0 && h.node.broken() == nil {
			image := h.state.Images[i]
			image.Spec.Name = m.Spec.Name
			return h, image
		}
	}
	return nil, api.Image{}
}

// makeImage has a host build an image from what the registry gave, and returns the result of
// that step.
func (r *run) makeImage(ctx context.Context, h *host, m *supply, source string, layout *registry.Layout) api.StepResult {
	switch {
	case h.node.broken() != nil:
		return skipped("the host failed before")
	case ctx.Err() != nil:
		return skipped("interrupted")
	}
	begun := time.Now()
	step := *m.step(h)
	req := api.MakeImage{Spec: m.Spec, Anew: m.Anew(), Source: source}
	sent := &sending{r: layout.Open(), report: func(done int64) {
		r.watchStep(h, step, report.Event{Kind: report.Progress, Message: "sending it to " + h.name, Done: done, Total: layout.Size()})
	}}
	result, err := h.node.MakeImage(ctx, req, sent, func(e api.Event) {
		r.watchStep(h, step, report.Event{Kind: report.EventKind(e.Kind), Message: e.Message, Done: e.Done, Total: e.Total})
	})
	if err != nil {
		result = api.StepResult{Outcome: api.Failed, Error: err.Error()}
		if ctx.Err() != nil {
			result.Error = "interrupted: " + result.Error
		}
	}
	result.Took = time.Since(begun)
	r.stepDone(h, step, result)
	return result
}

// sending reports how much was read, once per MiB.
type sending struct {
	r      io.Reader
	done   int64
	report func(int64)
}

func (s *sending) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	before := s.done >> 20
	if s.done += int64(n); s.done>>20 != before {
		s.report(s.done)
	}
	return n, err
}
