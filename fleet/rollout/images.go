package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// need is an image as the inventory wants it.
type need struct {
	spec     api.ImageSpec
	digest   string // the ID, where only that one will do
	builders []*inventory.Host
}

func needOf(image *inventory.Image) need {
	return need{Spec(image), image.Digest, image.Builders}
}

// key tells needs apart.
func (n need) key() string { return n.spec.Key() + n.digest }

// fits reports whether an image will do.
func (n need) fits(image api.Image) bool {
	if n.digest != "" {
		return image.ID == n.digest
	}
	return image.Key == n.spec.Key()
}

// choose is the ID of an image that will do and that the host has, or "". A
// guest keeps the one that it has, if that will do.
func (n need) choose(have []api.Image, now *api.GuestState) string {
	id := ""
	for _, image := range have { // newest first
		switch {
		case !n.fits(image):
		case now != nil && now.Image == image.ID:
			return image.ID
		case id == "":
			id = image.ID
		}
	}
	return id
}

// missing is an image that hosts of the run lack. What was built on one
// architecture is none for another.
type missing struct {
	need
	arch     string
	holders  []*host                  // have it, all the same one
	builders []*host                  // may build it, if nobody has it, in that order
	lack     []*host                  // all that need it and do not have it
	steps    map[*host]*api.ImageSpec // of those that have a step for it, the step's

	// ready is closed when the rest is set: whoever has it may still hand it out.
	ready  chan struct{}
	source *host // has it now
	id     string
	built  api.Image // by this run; else it is in the source's state
	err    error
	copies copies
}

// sources decides where missing images come from, and puts the steps for it
// before the others of each host.
func (r *run) sources(ctx context.Context) []*missing {
	var images []*missing
	hosts := r.reached()
	for _, h := range hosts {
		for _, n := range h.Plan.images {
			arch := h.State.Host.Arch
			i := slices.IndexFunc(images, func(m *missing) bool { return m.key() == n.key() && m.arch == arch })
			if i < 0 {
				i = len(images)
				images = append(images, &missing{
					need: n, arch: arch, steps: map[*host]*api.ImageSpec{}, ready: make(chan struct{}), copies: newCopies(),
				})
			}
			images[i].lack = append(images[i].lack, h)
		}
	}
	builds := map[*host]int{}
	for _, m := range images {
		if m.hold(hosts); m.id == "" {
			m.hold(r.outside(ctx))
		}
		if m.id == "" {
			m.builders = m.able(hosts, builds)
			if len(m.builders) > 0 {
				builds[m.builders[0]]++
			}
		}
		m.plan()
	}
	return images
}

// hold notes the hosts that have the image. Where they have different ones of
// one spec, that one is taken which most of them have: a single host that claims
// to have it does not supply the others.
func (m *missing) hold(hosts []*host) {
	have := map[string][]*host{}
	for _, h := range hosts {
		if h.State.Host.Arch != m.arch {
			continue
		}
		if id := m.choose(h.State.Images, nil); id != "" {
			have[id] = append(have[id], h)
			if len(have[id]) > len(m.holders) {
				m.id, m.holders = id, have[id]
			}
		}
	}
}

// buildSpace is what a host should have free to be asked first to build.
const buildSpace = 2 << 30

// able are the hosts that can build the image as far as is known, those with
// space and with fewer images to build first. If none can, all: the host that
// tries says what it lacks.
func (m *missing) able(reached []*host, builds map[*host]int) []*host {
	among := m.lack
	if m.need.builders != nil {
		among = slices.DeleteFunc(slices.Clone(reached), func(h *host) bool {
			return !slices.Contains(m.need.builders, h.from) || h.State.Host.Arch != m.arch
		})
	}
	able := slices.DeleteFunc(slices.Clone(among), func(h *host) bool { return !slices.Contains(h.State.Host.Methods, m.spec.Method) })
	if len(able) == 0 {
		able = slices.Clone(among)
	}
	slices.SortStableFunc(able, func(a, b *host) int {
		return cmp.Or(cmp.Compare(b.space(), a.space()), cmp.Compare(builds[a], builds[b]))
	})
	return able
}

// space ranks hosts by what they have free: all that have enough are equal.
func (h *host) space() int64 {
	if free := h.State.Host.FreeBytes; free > 0 {
		return min(free, buildSpace)
	}
	return buildSpace // it did not say
}

// plan puts the image's steps before the others of each host.
func (m *missing) plan() {
	copied := ""
	switch {
	case m.id != "":
		copied = fmt.Sprintf("%s has it (%s)", m.holders[0].Host, short(m.id))
	case len(m.builders) > 0:
		copied = m.builders[0].Host + " builds it"
		why := "no host has it"
		if m.digest != "" {
			why += ", and it has to become " + short(m.digest)
		}
		m.step(m.builders[0], api.StepBuildImage, why)
	default:
		m.err = fmt.Errorf("image %s: none of the hosts that may build it (build_on) is among those of this run: take one of them into -l", m.spec.Name)
		copied = "it cannot be built"
		for _, h := range m.lack {
			for guest, key := range h.Plan.waits {
				if key == m.key() {
					h.Plan.refuse(guest, m.err)
				}
			}
			slices.SortFunc(h.Plan.Refused, func(a, b Refusal) int { return strings.Compare(a.Guest, b.Guest) })
		}
	}
	for _, h := range m.lack {
		if m.steps[h] == nil {
			m.step(h, api.StepImport, copied)
		}
	}
}

// step gives a host a step for the image.
func (m *missing) step(h *host, kind api.StepKind, why string) {
	spec := m.spec
	m.steps[h] = &spec
	h.Plan.Steps = slices.Insert(h.Plan.Steps, 0, api.Step{Kind: kind, Name: spec.Name, Image: &spec, Why: why})
	for i := range h.Plan.cuts {
		h.Plan.cuts[i]++
	}
}

// index is that of the host's step for the image, or -1.
func (m *missing) index(h *host) int {
	return slices.IndexFunc(h.Plan.Steps, func(s api.Step) bool { return s.Image != nil && s.Image == m.steps[h] })
}

// differing says which images are not the same on all hosts of the run, though
// they were made from the same spec. Which of them is the right one nobody can
// tell but a person, who names it in the inventory.
func (r *run) differing() []string {
	type group struct {
		name string
		ids  []string            // in the order of the hosts
		have map[string][]string // hosts by ID
	}
	var groups []*group
	byKey := map[string]*group{}
	for _, h := range r.reached() {
		for _, use := range h.Plan.uses {
			key := use.key() + h.State.Host.Arch
			g := byKey[key]
			if g == nil {
				g = &group{name: use.spec.Name, have: map[string][]string{}}
				byKey[key] = g
				groups = append(groups, g)
			}
			if g.have[use.id] == nil {
				g.ids = append(g.ids, use.id)
			}
			g.have[use.id] = append(g.have[use.id], h.Host)
		}
	}
	var list []string
	for _, g := range groups {
		if len(g.ids) < 2 {
			continue
		}
		var parts []string
		for _, id := range g.ids {
			verb := "have"
			if len(g.have[id]) == 1 {
				verb = "has"
			}
			parts = append(parts, fmt.Sprintf("%s %s %s", nodeset.Fold(g.have[id]), verb, id))
		}
		list = append(list, fmt.Sprintf("image %s differs: %s; name the right one in the inventory: images: {%s: {digest: …}}", g.name, strings.Join(parts, ", "), g.name))
	}
	return list
}

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
	if m.err == nil && m.id == "" {
		m.err = r.buildSomewhere(ctx, m)
	}
	if len(m.holders) > 0 {
		m.source = m.holders[0]
	}
	close(m.ready)
	if m.err == nil && slices.ContainsFunc(m.lack, func(h *host) bool { return h != m.source }) {
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
	for _, h := range m.builders {
		result := r.build(ctx, h, m)
		if result.Image != nil {
			m.id, m.holders, m.built = result.Image.ID, []*host{h}, *result.Image
			if m.digest != "" && m.id != m.digest {
				err := fmt.Errorf("image %s: %s built %s, and the inventory wants %s: give it that digest, or bring a host that has the other",
					m.spec.Name, h.Host, m.id, m.digest)
				if k := m.index(h); k >= 0 {
					h.Results[k].Outcome, h.Results[k].Error = api.Failed, err.Error()
				}
				return err
			}
			for i, f := range failed {
				r.watch(Event{Host: f.Host, Step: r.imageStep(f, m), Message: fmt.Sprintf("%sit failed here, and %s built it: %v", api.Warning, h.Host, why[i])})
				if k := m.index(f); k >= 0 && !slices.Contains(m.lack, f) && f.lost() == nil {
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
	err := fmt.Errorf("image %s: build %s", m.spec.Name, strings.Join(parts, "; "))
	for _, h := range failed { // all say the same, which is then said once
		if k := m.index(h); k >= 0 && h.Results[k].Outcome == api.Failed && h.lost() == nil {
			h.Results[k].Error = err.Error()
		}
	}
	return err
}

// imageStep is the step of a host that an event of the image's is about.
func (r *run) imageStep(h *host, m *missing) *api.Step {
	if k := m.index(h); k >= 0 {
		return &h.Plan.Steps[k]
	}
	return &api.Step{Kind: api.StepBuildImage, Name: m.spec.Name, Image: &m.spec}
}

// build has a host build an image, which is what comes of its step for it.
func (r *run) build(ctx context.Context, h *host, m *missing) api.StepResult {
	step := api.Step{Kind: api.StepBuildImage, Name: m.spec.Name, Image: &m.spec, Why: r.imageStep(h, m).Why}
	result := r.ask(ctx, h, []api.Step{step})[0]
	if result.Image == nil && (result.Outcome == api.Changed || result.Outcome == api.Unchanged) {
		result = api.StepResult{Outcome: api.Failed, Error: "vsnode does not say which image it is"}
	}
	if k := m.index(h); k >= 0 {
		h.Results[k] = result
	}
	return result
}

// fetch gets the host the images that it lacks and puts their IDs into its
// steps. It returns the guests that have to do without, and why.
func (r *run) fetch(ctx context.Context, h *host, images []*missing) (lost map[string]error) {
	lost = map[string]error{}
	for _, m := range images {
		if !slices.Contains(m.lack, h) {
			if m.steps[h] != nil { // it builds it for others
				<-m.ready
			}
			continue
		}
		err := r.get(ctx, h, m)
		for i, s := range h.Plan.Steps {
			if h.Plan.waits[s.Name] != m.key() || s.Kind == api.StepImport || s.Kind == api.StepBuildImage {
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
	step := m.index(h)
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
		err = fmt.Errorf("image %s: %w", m.spec.Name, err)
	}
	result := api.StepResult{Outcome: api.Changed, Took: time.Since(begun)}
	if err != nil {
		result.Outcome, result.Error = api.Failed, err.Error()
	}
	h.Results[step] = result
	r.watch(Event{Host: h.Host, Step: &h.Plan.Steps[step], Result: &result})
	return err
}
