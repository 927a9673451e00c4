package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// missing is an image that hosts of the run lack. What was built on one
// architecture is none for another.
type missing struct {
	spec  api.ImageSpec
	key   string
	arch  string
	first *host   // has it, or builds it if it can
	build bool    // nobody has it
	lack  []*host // all that need it and do not have it, the first too if it builds

	// ready is closed when the rest is set: the stream may still grow.
	ready  chan struct{}
	source *host // has it now
	id     string
	err    error
	stream *spool // nil if only the source lacks it
}

// sources decides where missing images come from, and puts the steps for it
// before the others of each host.
func (r *run) sources() []*missing {
	var images []*missing
	hosts := r.reached()
	for _, h := range hosts {
		for _, spec := range h.Plan.images {
			key := spec.Key()
			arch := h.State.Host.Arch
			i := slices.IndexFunc(images, func(m *missing) bool { return m.key == key && m.arch == arch })
			if i < 0 {
				i = len(images)
				images = append(images, &missing{spec: spec, key: key, arch: arch, ready: make(chan struct{})})
			}
			images[i].lack = append(images[i].lack, h)
		}
	}
	builds := map[*host]int{}
	for _, m := range images {
		for _, h := range hosts {
			if id := choose(h.State.Images, m.spec, nil); id != "" && h.State.Host.Arch == m.arch {
				m.first, m.id = h, id
				break
			}
		}
		if m.first == nil {
			// Several missing images are built by several hosts at once.
			m.build, m.first = true, slices.MinFunc(m.builders(), func(a, b *host) int { return builds[a] - builds[b] })
			builds[m.first]++
		}
		for _, h := range m.lack {
			spec := m.spec
			step := api.Step{Kind: api.StepImport, Name: spec.Name, Image: &spec, Why: m.first.Host + " has it"}
			switch {
			case h == m.first:
				step.Kind, step.Why = api.StepBuildImage, "no host of this run has it"
			case m.build:
				step.Why = m.first.Host + " builds it"
			}
			h.Plan.prepend(step)
		}
	}
	return images
}

// builders are the hosts that can build the image as far as is known. If none
// can, all: the host that tries says what it lacks.
func (m *missing) builders() []*host {
	var able []*host
	for _, h := range m.lack {
		if slices.Contains(h.State.Host.Methods, m.spec.Method) {
			able = append(able, h)
		}
	}
	if able == nil {
		return m.lack
	}
	return able
}

func (p *Plan) prepend(s api.Step) {
	p.Steps = slices.Insert(p.Steps, 0, s)
	for i := range p.cuts {
		p.cuts[i]++
	}
}

// step is the index of the host's step that gets the image.
func (m *missing) step(h *host) int {
	return slices.IndexFunc(h.Plan.Steps, func(s api.Step) bool { return s.Image != nil && s.Image.Key() == m.key })
}

// provide builds an image, if nobody has it, and streams it to where the
// other hosts read it.
func (r *run) provide(ctx context.Context, m *missing) {
	m.source = m.first
	if m.build {
		m.err = r.buildSomewhere(ctx, m)
	}
	h := m.source
	if m.err == nil && slices.ContainsFunc(m.lack, func(l *host) bool { return l != h }) {
		m.stream, m.err = newSpool()
	}
	close(m.ready)
	if m.stream == nil {
		return
	}
	h.exports <- struct{}{}
	err := vsnode(ctx, h, nil, m.stream, "image", "export", m.id)
	<-h.exports
	if err != nil {
		err = fmt.Errorf("export from %s: %w", h.Host, err)
	}
	m.stream.finish(err)
}

func (m *missing) close() {
	if m.stream != nil {
		m.stream.close()
	}
}

// buildSomewhere has the first host build an image. Where that is lost, or lacks
// what another may have (the tool, the archive), the next one takes over.
func (r *run) buildSomewhere(ctx context.Context, m *missing) (err error) {
	hosts := slices.DeleteFunc(slices.Clone(m.builders()), func(h *host) bool { return h == m.first })
	for _, h := range append([]*host{m.first}, hosts...) {
		result := r.build(ctx, h, m)
		if result.Image != nil {
			m.source, m.id = h, result.Image.ID
			return nil
		}
		if err == nil || !result.Elsewhere {
			err = fmt.Errorf("image %s: build on %s: %s", m.spec.Name, h.Host, result.Error)
		}
		if ctx.Err() != nil || !result.Elsewhere && h.lost() == nil {
			return err
		}
	}
	return err
}

// build has a host build an image, which is what comes of its step for it.
func (r *run) build(ctx context.Context, h *host, m *missing) api.StepResult {
	i := m.step(h)
	step := api.Step{Kind: api.StepBuildImage, Name: m.spec.Name, Image: &m.spec, Why: h.Plan.Steps[i].Why}
	result := r.ask(ctx, h, []api.Step{step})[0]
	if result.Image == nil && (result.Outcome == api.Changed || result.Outcome == api.Unchanged) {
		result = api.StepResult{Outcome: api.Failed, Error: "vsnode does not say which image it is"}
	}
	h.Results[i] = result
	return result
}

// fetch gets the host the images that it lacks and puts their IDs into its
// steps. It returns the guests that have to do without, and why.
func (r *run) fetch(ctx context.Context, h *host, images []*missing) (lost map[string]error) {
	lost = map[string]error{}
	for _, m := range images {
		if !slices.Contains(m.lack, h) {
			continue
		}
		err := r.get(ctx, h, m)
		for i, s := range h.Plan.Steps {
			if h.Plan.waits[s.Name] != m.key || s.Kind == api.StepImport || s.Kind == api.StepBuildImage {
				continue
			}
			if err != nil {
				lost[s.Name] = err
			} else if s.Guest != nil {
				h.Plan.Steps[i].Guest.Image = m.id
			}
		}
	}
	return lost
}

// get waits for an image and imports it.
func (r *run) get(ctx context.Context, h *host, m *missing) error {
	step := m.step(h)
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
	progress := func(done int64) {
		r.watch(Event{Host: h.Host, Step: &h.Plan.Steps[step], Message: fmt.Sprintf("%d MiB from %s", done>>20, m.source.Host)})
	}
	err = vsnode(ctx, h, m.stream.reader(ctx, progress), io.Discard, "image", "import", "--id", m.id)
	if broken := m.stream.broken(); err != nil && broken != nil {
		err = broken // what the importing end makes of half a stream says nothing
	}
	result := api.StepResult{Outcome: api.Changed, Took: time.Since(begun)}
	if err != nil {
		err = fmt.Errorf("image %s: %w", m.spec.Name, err)
		result.Outcome, result.Error = api.Failed, err.Error()
	}
	h.Results[step] = result
	r.watch(Event{Host: h.Host, Step: &h.Plan.Steps[step], Result: &result})
	return err
}

// vsnode runs vsnode on a host, and gives what it says if it fails.
func vsnode(ctx context.Context, h *host, stdin io.Reader, stdout io.Writer, args ...string) error {
	var stderr tail
	exit, err := h.node.Run(ctx, stdin, stdout, &stderr, args...)
	switch {
	case err != nil:
		return err
	case exit != 0:
		text := strings.TrimPrefix(stderr.last(), "vsnode: ")
		if text == "" {
			text = fmt.Sprintf("vsnode %s: exit status %d", strings.Join(args, " "), exit)
		}
		return errors.New(text)
	}
	return nil
}

// tail keeps the end of what a program says.
type tail struct{ buf []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - 4096; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// last is the last line.
func (t *tail) last() string {
	text := bytes.TrimRight(t.buf, " \r\n")
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
