package play

import (
	"context"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/playbooks"
)

// performance is one play on its hosts.
type performance struct {
	*bookRun
	play   *playbooks.Play
	labels []string       // that any host has
	vars   map[string]any // of the inventory, with values of their types

	mu      sync.Mutex
	actors  map[*inventory.Host]*actor
	skipped map[*playbooks.Step]bool // by a person, with --step
}

// actor is a host in a play. It belongs to whoever takes the host through a stage.
type actor struct {
	scope    playbooks.Scope
	notified map[string]bool
	unknown  map[string]bool // results that only a run would have
	wants    bool            // it takes part in the step that hosts take together
	want     rollout.Want
	try      int
}

// stages returns the stages of a play: steps that hosts take each by itself are one
// stage, as many as follow each other.
func (b *bookRun) stages(play *playbooks.Play) []rollout.Stage {
	p := b.performance(play)
	var list []rollout.Stage
	var alone []*playbooks.Step
	flush := func() {
		if steps := alone; len(steps) > 0 {
			list = append(list, p.alone("work", func(*actor) []*playbooks.Step { return steps }))
		}
		alone = nil
	}
	for _, st := range play.Steps {
		if b.Step != nil {
			flush()
			list = append(list, p.asking(st))
		}
		if st.Together() {
			flush()
			list = append(list, p.together(st)...)
			continue
		}
		alone = append(alone, st)
	}
	flush()
	if len(play.Handlers) > 0 {
		list = append(list, p.handlers())
	}
	return list
}

func (b *bookRun) performance(play *playbooks.Play) *performance {
	return &performance{bookRun: b, play: play, actors: map[*inventory.Host]*actor{}, skipped: map[*playbooks.Step]bool{}, labels: labels(b.Inventory), vars: b.Vars}
}

func labels(inv *inventory.Inventory) []string {
	var list []string
	for _, h := range inv.Hosts {
		for name := range h.Labels {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list
}

// actor returns what is known of a host in this play.
func (p *performance) actor(w *rollout.Worker) *actor {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := w.Host()
	if a := p.actors[h]; a != nil && a.try == w.Try() {
		return a
	}
	host := w.State().Host
	a := &actor{try: w.Try(), notified: map[string]bool{}, unknown: map[string]bool{}, scope: p.scopeOf(h)}
	a.scope.Facts = playbooks.Facts{
		Hostname: host.Hostname, Kernel: host.Kernel, Arch: host.Arch, OS: host.OS,
		CPUs: host.CPUs, Memory: int(host.MemoryBytes), Free: int(host.FreeBytes),
	}
	p.actors[h] = a
	return a
}

// scopeOf returns what is known of a host before a run.
func (p *performance) scopeOf(h *inventory.Host) playbooks.Scope {
	sc := playbooks.Scope{
		Host:  playbooks.Host{Name: h.Name, Address: h.Address, Groups: h.Groups, Labels: map[string]string{}},
		Vars:  map[string]any{},
		Check: p.Check,
	}
	for _, name := range p.labels {
		sc.Host.Labels[name] = h.Labels[name] // a host without a label has none of its values
	}
	for name, v := range h.Vars {
		value, ok := Variable(v)
		switch {
		case !ok:
		case reflect.TypeOf(value) == reflect.TypeOf(p.vars[name]):
			sc.Vars[name] = value
		default:
			sc.Vars[name] = v.Text
		}
	}
	for name, value := range p.play.Vars {
		sc.Vars[name] = value
	}
	return sc
}

// Variable returns a variable of the inventory as playbooks have it: a text, an int, a
// float64, a bool or a list of texts. Mappings and encrypted values are none of these.
func Variable(v inventory.Var) (any, bool) {
	if v.Secret {
		return nil, false
	}
	switch value := v.Value.(type) {
	case int64:
		return int(value), true
	case bool, float64:
		return value, true
	case []any:
		list := make([]string, len(value))
		for i, item := range value {
			switch item.(type) {
			case string, bool, int64, float64:
				list[i] = fmt.Sprint(item)
			default:
				return nil, false
			}
		}
		return list, true
	}
	return v.Text, v.IsScalar()
}

// alone is a stage of steps that each host takes by itself.
func (p *performance) alone(name string, steps func(*actor) []*playbooks.Step) rollout.Stage {
	return rollout.Stage{Name: name, Do: func(ctx context.Context, w *rollout.Worker) bool {
		a := p.actor(w)
		t := &taking{performance: p, actor: a, w: w}
		for _, st := range steps(a) {
			if !p.skips(st) && !t.step(ctx, st) {
				return false
			}
		}
		return t.flush(ctx)
	}}
}

// handlers is the stage of those handlers that were notified, in their order. One of
// them may notify others after it.
func (p *performance) handlers() rollout.Stage {
	return rollout.Stage{Name: "handlers", Do: func(ctx context.Context, w *rollout.Worker) bool {
		a := p.actor(w)
		t := &taking{performance: p, actor: a, w: w}
		for _, st := range p.play.Handlers {
			if !a.notified[st.Name.Raw()] {
				continue
			}
			if !t.step(ctx, st) || len(st.Notify) > 0 && !t.flush(ctx) {
				return false
			}
		}
		return t.flush(ctx)
	}}
}

func (p *performance) skips(st *playbooks.Step) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.skipped[st]
}

// asking is a stage in which a person decides about a step.
func (p *performance) asking(st *playbooks.Step) rollout.Stage {
	return rollout.Stage{Name: "ask", Together: func(ctx context.Context, hosts []*rollout.Worker) error {
		if len(hosts) == 0 {
			return nil
		}
		var names []string
		for _, w := range hosts {
			names = append(names, w.Host().Name)
		}
		yes, err := p.Step(ctx, st.Title(&p.actor(hosts[0]).scope), names)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.skipped[st] = !yes
		return err
	}}
}

// together returns the stages of a step at which hosts wait for each other: first each
// finds out by itself whether it takes part.
func (p *performance) together(st *playbooks.Step) []rollout.Stage {
	prepare := rollout.Stage{Name: "work", Do: func(ctx context.Context, w *rollout.Worker) bool {
		a := p.actor(w)
		a.wants, a.want = false, rollout.Want{}
		if p.skips(st) {
			return true
		}
		t := &taking{performance: p, actor: a, w: w}
		return t.prepare(st) && t.flush(ctx)
	}}
	switch st.Kind.Name {
	case playbooks.Pause, playbooks.Confirm:
		return []rollout.Stage{prepare, {Name: st.Kind.Name, Together: func(ctx context.Context, hosts []*rollout.Worker) error {
			for _, w := range hosts {
				if a := p.actor(w); a.wants && !p.Check {
					return p.interlude(ctx, st, a)
				}
			}
			return nil
		}}}
	}
	after := rollout.Stage{Name: "work", Do: func(_ context.Context, w *rollout.Worker) bool {
		a := p.actor(w)
		if !a.wants || p.Check {
			a.unknown[st.Register] = p.Check
			return true
		}
		a.keep(st, playbooks.Result{Changed: w.Made()})
		return true
	}}
	making := rollout.Stage{Name: "make", Make: func(w *rollout.Worker) rollout.Want {
		if a := p.actor(w); a.wants {
			return a.want
		}
		return rollout.Want{}
	}}
	return []rollout.Stage{prepare, making, after}
}

// interlude is a pause or a question.
func (p *performance) interlude(ctx context.Context, st *playbooks.Step, a *actor) error {
	if st.Kind.Name == playbooks.Confirm {
		question, err := st.Text("question", &a.scope)
		if err != nil {
			return err
		}
		return p.Ask(ctx, question)
	}
	d, err := st.Duration("for", &a.scope)
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// prepare finds out whether a host takes part in a step that hosts take together, and
// what it wants.
func (t *taking) prepare(st *playbooks.Step) bool {
	if t.guesses(st) {
		return st.Kind.Name == playbooks.Pause || st.Kind.Name == playbooks.Confirm || t.perhaps(st)
	}
	once, each := st.Conditions()
	if takes, ok := t.when(st, once, nil); !takes {
		return ok
	}
	t.actor.wants = true
	t.actor.want.Title = st.Title(&t.scope)
	if st.Kind.Name != playbooks.Image && st.Kind.Name != playbooks.Guest {
		return true
	}
	items, err := t.items(st)
	if err != nil {
		return t.fail(st, err)
	}
	for _, item := range items {
		t.enter(st, item)
		if takes, ok := t.when(st, each, nil); !takes {
			if !ok {
				return false
			}
			continue
		}
		name, err := st.Text("name", &t.scope)
		if err == nil && st.Kind.Name == playbooks.Image {
			image := t.Inventory.Image(name)
			if image == nil {
				err = fmt.Errorf("the inventory has no image %q", name)
			} else {
				t.actor.want.Images = append(t.actor.want.Images, image)
			}
		} else if err == nil {
			err = t.wantGuests(st, name)
		}
		if err != nil {
			return t.fail(st, err)
		}
	}
	t.leave()
	return true
}

// wantGuests adds guests that are to be made as the inventory wants them.
func (t *taking) wantGuests(st *playbooks.Step, name string) error {
	found := false
	for _, g := range t.w.Host().Guests {
		if ok, err := path.Match(name, g.Name); err != nil || !ok {
			if err != nil {
				return fmt.Errorf("guest %q: %w", name, err)
			}
			continue
		}
		found = true
		want := *g
		state, err := st.Text("state", &t.scope)
		if err != nil {
			return err
		}
		if state != "" {
			want.State = state
		}
		if do, _ := st.Text("do", &t.scope); do == "build" {
			// It is started by a step of its own; one that runs is left running.
			want.State = inventory.Stopped
			if slices.ContainsFunc(t.w.State().Guests, func(s api.GuestState) bool { return s.Name == g.Name && s.Status == api.Running }) {
				want.State = inventory.Running
			}
		}
		t.actor.want.Guests = append(t.actor.want.Guests, &want)
	}
	if !found && !strings.ContainsAny(name, "*?[") {
		return errors.New("the inventory has no guest " + name + " on this host")
	}
	return nil
}
