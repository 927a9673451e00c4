package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/guest"
)

// maxParallel is the number of guests that are worked on at once. It is more than a
// small machine has cores: most of a start is waiting for the kernel.
const maxParallel = 8

// taking is a request whose steps are being taken. Each step's result is written by the
// one goroutine that works on its guest.
type taking struct {
	*Host
	req     api.Apply
	by      api.Holder
	order   []string         // of guests
	guests  map[string][]int // the steps of each
	results []api.StepResult

	mu   sync.Mutex // events leave one after the other
	emit func(api.Event)
}

// take takes the steps of a request, and returns their results.
func (h *Host) take(ctx context.Context, req api.Apply, by api.Holder, emit func(api.Event)) []api.StepResult {
	t := &taking{Host: h, req: req, by: by, results: make([]api.StepResult, len(req.Steps)), emit: emit}
	t.order, t.guests = byGuest(req.Steps)
	if len(req.Steps) > 0 {
		h.log.begin(by)
		defer h.log.add(t.results)
	}
	if req.InOrder {
		t.oneByOne(ctx)
	} else {
		t.atOnce(ctx)
	}
	return t.results
}

// oneByOne takes steps one after the other, to the first one that fails and is not
// tolerated.
func (t *taking) oneByOne(ctx context.Context) {
	for i, s := range t.req.Steps {
		name := guestOf(s)
		if of := t.guests[name]; len(of) > 0 && of[0] == i {
			if err := t.keep(ctx, name); err != nil {
				t.results[i] = api.StepResult{Outcome: api.Failed, Error: err.Error()}
			}
		}
		if t.results[i].Outcome != api.Failed && t.do(ctx, i, nil) || s.Tolerated {
			continue
		}
		for rest := i + 1; rest < len(t.results); rest++ {
			t.results[rest] = api.StepResult{Outcome: api.Skipped, Error: "an earlier step did not succeed"}
		}
		return
	}
}

// atOnce takes the steps of images, then those of all guests, several guests at a time.
func (t *taking) atOnce(ctx context.Context) {
	for i, s := range t.req.Steps {
		if s.Kind == api.StepBuildImage {
			t.do(ctx, i, nil)
		}
	}
	var group sync.WaitGroup
	busy := make(chan struct{}, maxParallel)
	for _, name := range t.order {
		p := &place{busy: busy}
		p.enter()
		group.Go(func() {
			defer p.leave()
			t.takeGuest(ctx, name, p)
		})
	}
	group.Wait()
}

// place is a guest's among those that are worked on.
type place struct {
	busy chan struct{}
	held bool
}

func (p *place) enter() {
	if !p.held {
		p.busy <- struct{}{}
		p.held = true
	}
}

func (p *place) leave() {
	if p.held {
		p.held = false
		<-p.busy
	}
}

// takeGuest takes the steps of a guest, to the first one that fails. While a started guest
// is only watched, another one has its place.
func (t *taking) takeGuest(ctx context.Context, name string, p *place) {
	of := t.guests[name]
	if i, err := t.firstRefusal(ctx, of); err != nil {
		t.refuse(of, i, err, "its new configuration is refused")
		return
	}
	if err := t.keep(ctx, name); err != nil {
		t.refuse(of, of[0], err, "how the guest is could not be kept")
		return
	}
	for n, i := range of {
		p.enter()
		if t.do(ctx, i, p.leave) {
			continue
		}
		t.resume(ctx, of[:n], i)
		for _, rest := range of[n+1:] {
			t.results[rest] = api.StepResult{Outcome: api.Skipped, Error: "an earlier step of the guest did not succeed"}
		}
		return
	}
}

// refuse gives the step i of a guest's steps an error, and the others its reason.
func (t *taking) refuse(of []int, i int, err error, others string) {
	for _, k := range of {
		t.results[k] = api.StepResult{Outcome: api.Skipped, Error: others}
	}
	t.results[i] = api.StepResult{Outcome: api.Failed, Error: err.Error()}
}

// do takes a step, and reports whether it succeeded. A start calls onRunning, which may be
// nil, once the guest runs and is only watched.
func (t *taking) do(ctx context.Context, i int, onRunning func()) bool {
	if ctx.Err() != nil {
		t.results[i] = api.StepResult{Outcome: api.Skipped, Error: "interrupted"}
		return false
	}
	s, start := t.req.Steps[i], time.Now()
	t.event(i, api.Event{Kind: api.Started})
	r, err := t.step(ctx, t.req.Run, s, func(e api.Event) { t.event(i, e) }, onRunning)
	r.Took = time.Since(start)
	if err != nil {
		r.Outcome, r.Error = api.Failed, err.Error()
		var missing *builder.MissingError
		r.Elsewhere = errors.As(err, &missing)
		switch {
		case ctx.Err() != nil && s.Kind == api.StepHealth: // nothing was begun that failed
			r.Outcome, r.Error = api.Skipped, "interrupted"
		case ctx.Err() != nil:
			r.Error = "interrupted: " + r.Error
		}
	}
	t.results[i] = r
	if err == nil && (s.Kind == api.StepStart || s.Kind == api.StepRestart) {
		for _, text := range t.Guests.Lacks(s.Name, t.order) { // the others of the run are on their way
			t.event(i, api.Event{Kind: api.Warning, Message: text})
		}
	}
	return err == nil
}

// event reports about a step.
func (t *taking) event(i int, e api.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.Run, e.Step = t.req.Run, i
	t.emit(e)
}

// byGuest returns the names of the guests that steps are about, in the order of their
// first steps, and the indices of the steps of each. The name of the host itself is "".
func byGuest(steps []api.Step) (order []string, guests map[string][]int) {
	guests = map[string][]int{}
	for i, s := range steps {
		if s.Kind == api.StepBuildImage {
			continue
		}
		name := guestOf(s)
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
		guests[name] = append(guests[name], i)
	}
	return order, guests
}

func guestOf(s api.Step) string {
	if s.Guest != nil {
		return s.Guest.Name
	}
	return s.Name
}

// keep keeps how a guest is before a run's steps change it, so that a revert can put it
// back. A guest that is only started or stopped may be so on a full disk, too.
func (t *taking) keep(ctx context.Context, name string) error {
	of := t.guests[name]
	c := guest.Change{Run: t.req.Run, Owner: t.by.Owner, Reason: t.by.Reason}
	runs := false
	for _, i := range of {
		switch s := t.req.Steps[i]; s.Kind {
		case api.StepCreate, api.StepConfigure:
			c.Config = true
		case api.StepFiles:
			c.Files = append(c.Files, s.Files...)
		case api.StepUpgrade:
			c.Layer = true
		case api.StepStart, api.StepStop, api.StepRestart:
			runs = true
		}
	}
	if name == "" || !c.Config && !c.Layer && len(c.Files) == 0 && !runs { // steps of the host itself
		return nil
	}
	warn := func(text string) { t.event(of[0], api.Event{Kind: api.Warning, Message: text}) }
	err := t.Guests.Keep(ctx, name, c, warn)
	if err != nil && !c.Config && !c.Layer && len(c.Files) == 0 {
		warn(err.Error())
		return nil
	}
	return err
}

// resume restarts a guest that was stopped for a step which has failed.
func (t *taking) resume(ctx context.Context, done []int, failed int) {
	steps, results := t.req.Steps, t.results
	stopped := slices.ContainsFunc(done, func(i int) bool {
		return steps[i].Kind == api.StepStop && results[i].Outcome == api.Changed
	})
	if !stopped || steps[failed].Kind != api.StepConfigure {
		return
	}
	err := t.Guests.Start(context.WithoutCancel(ctx), steps[failed].Name, guest.Options{})
	if err == nil || errors.Is(err, guest.ErrRunning) {
		results[failed].Error += "; it was started again as it was"
	} else {
		results[failed].Error += "; it was stopped for that, and " + err.Error()
	}
}

// firstRefusal returns the first of a guest's steps that would be refused after earlier
// ones have been carried out, and why: a guest that is stopped to be configured would
// stay stopped.
func (t *taking) firstRefusal(ctx context.Context, of []int) (int, error) {
	for n, i := range of {
		if s := t.req.Steps[i]; n > 0 && s.Kind == api.StepConfigure && s.Guest != nil {
			return i, t.Guests.Claim(ctx, *s.Guest)
		}
	}
	return 0, nil
}
