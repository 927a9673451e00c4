package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/generation"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/images"
)

// maxParallel is the number of guests that are worked on at once. It is more than a
// small machine has cores: most of a start is waiting for the kernel.
const maxParallel = 8

// Apply carries out the steps of a plan: first those of images, one after the other,
// then those of guests, several guests at once, each guest's in order. If a step
// fails, the remaining steps of its guest are skipped; after a failed image, the
// controller leaves out the steps of the guests that need it. Finally, Apply restores
// what running guests have lost. When ctx ends, steps under way finish or are undone,
// and the others are skipped. The session must have the host's lease, so that two
// controllers never change the host at the same time; but not to look at files only.
func (h *Host) Apply(ctx context.Context, req api.Apply, emit func(api.Event)) (api.ApplyResult, error) {
	by, held := h.leased()
	looks := len(req.Steps) > 0 && !slices.ContainsFunc(req.Steps, func(s api.Step) bool { return s.Kind != api.StepStat })
	switch {
	case !held && looks:
		return api.ApplyResult{Results: h.take(ctx, req, by, emit)}, nil
	case !held:
		return api.ApplyResult{}, errors.New("the session does not have the host's lease")
	}
	for _, name := range req.Ready {
		h.Guests.ExpectReady(name)
	}
	disarm, err := h.arm(ctx, req.Run, by, req.Guard)
	if err != nil {
		return api.ApplyResult{}, fmt.Errorf("guard the connection (--confirm-timeout 0 goes without): %w", err)
	}
	results := h.take(ctx, req, by, emit)
	// Restore what guests without a repair step have lost.
	err = h.Guests.Sweep(context.WithoutCancel(ctx))
	if err := errors.Join(err, disarm()); err != nil {
		emit(api.Event{Run: req.Run, Kind: api.Warning, Step: len(req.Steps) - 1, Message: err.Error()})
	}
	return api.ApplyResult{Results: results}, nil
}

// take takes the steps of a request, and returns their results.
func (h *Host) take(ctx context.Context, req api.Apply, by api.Holder, emit func(api.Event)) []api.StepResult {
	results := make([]api.StepResult, len(req.Steps))
	if len(req.Steps) > 0 {
		h.log.begin(by)
		defer h.log.add(results)
	}
	var say sync.Mutex
	event := func(i int, e api.Event) {
		say.Lock()
		defer say.Unlock()
		e.Run, e.Step = req.Run, i
		emit(e)
	}
	order, guests := byGuest(req.Steps)
	do := func(i int, onRunning func()) bool {
		if err := ctx.Err(); err != nil {
			results[i] = api.StepResult{Outcome: api.Skipped, Error: "interrupted"}
			return false
		}
		start := time.Now()
		event(i, api.Event{Kind: api.Started})
		r, err := h.step(ctx, req.Run, req.Steps[i], func(e api.Event) { event(i, e) }, onRunning)
		r.Took = time.Since(start)
		if err != nil {
			r.Outcome, r.Error = api.Failed, err.Error()
			var missing *builder.MissingError
			r.Elsewhere = errors.As(err, &missing)
			switch {
			case ctx.Err() != nil && req.Steps[i].Kind == api.StepHealth: // nothing was begun that failed
				r.Outcome, r.Error = api.Skipped, "interrupted"
			case ctx.Err() != nil:
				r.Error = "interrupted: " + r.Error
			}
		}
		results[i] = r
		if k := req.Steps[i].Kind; err == nil && (k == api.StepStart || k == api.StepRestart) {
			for _, text := range h.Guests.Lacks(req.Steps[i].Name, order) { // the others of the run are on their way
				event(i, api.Event{Kind: api.Warning, Message: text})
			}
		}
		return err == nil
	}
	keep := func(name string) error {
		first := guests[name][0]
		warn := func(text string) { event(first, api.Event{Kind: api.Warning, Message: text}) }
		return h.keep(ctx, name, req.Run, by, req.Steps, guests[name], warn)
	}
	if req.InOrder {
		inOrder(req.Steps, results, func(i int) bool {
			if name := guestOf(req.Steps[i]); len(guests[name]) > 0 && guests[name][0] == i {
				if err := keep(name); err != nil {
					results[i] = api.StepResult{Outcome: api.Failed, Error: err.Error()}
					return false
				}
			}
			return do(i, nil)
		})
		return results
	}
	for i, s := range req.Steps {
		if s.Kind == api.StepBuildImage {
			do(i, nil)
		}
	}
	var group sync.WaitGroup
	busy := make(chan struct{}, maxParallel)
	for _, name := range order {
		busy <- struct{}{}
		group.Go(func() {
			working := true
			// While a started guest is only watched, another may be worked on.
			stepAside := func() {
				if working {
					working = false
					<-busy
				}
			}
			defer stepAside()
			refuse := func(i int, err error, others string) {
				for _, k := range guests[name] {
					results[k] = api.StepResult{Outcome: api.Skipped, Error: others}
				}
				results[i] = api.StepResult{Outcome: api.Failed, Error: err.Error()}
			}
			if i, err := h.firstRefusal(ctx, req.Steps, guests[name]); err != nil {
				refuse(i, err, "its new configuration is refused")
				return
			}
			if err := keep(name); err != nil {
				refuse(guests[name][0], err, "how the guest is could not be kept")
				return
			}
			for n, i := range guests[name] {
				if !working {
					busy <- struct{}{}
					working = true
				}
				if do(i, stepAside) {
					continue
				}
				h.resume(ctx, req.Steps, results, guests[name][:n], i)
				for _, rest := range guests[name][n+1:] {
					results[rest] = api.StepResult{Outcome: api.Skipped, Error: "an earlier step of the guest did not succeed"}
				}
				break
			}
		})
	}
	group.Wait()
	return results
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

// inOrder takes steps one after the other, to the first one that fails and is not
// tolerated.
func inOrder(steps []api.Step, results []api.StepResult, do func(i int) bool) {
	for i := range steps {
		if do(i) || steps[i].Tolerated {
			continue
		}
		for rest := i + 1; rest < len(steps); rest++ {
			results[rest] = api.StepResult{Outcome: api.Skipped, Error: "an earlier step did not succeed"}
		}
		return
	}
}

// keep keeps how a guest is before a run's steps change it, so that a revert can put it
// back. A guest that is only started or stopped may be so on a full disk, too.
func (h *Host) keep(ctx context.Context, name, run string, by api.Holder, steps []api.Step, of []int, warn func(string)) error {
	c := guest.Change{Run: run, Owner: by.Owner, Reason: by.Reason}
	runs := false
	for _, i := range of {
		switch s := steps[i]; s.Kind {
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
	err := h.Guests.Keep(ctx, name, c, warn)
	if err != nil && !c.Config && !c.Layer && len(c.Files) == 0 {
		warn(err.Error())
		return nil
	}
	return err
}

// resume restarts a guest that was stopped for a step which has failed.
func (h *Host) resume(ctx context.Context, steps []api.Step, results []api.StepResult, done []int, failed int) {
	stopped := slices.ContainsFunc(done, func(i int) bool {
		return steps[i].Kind == api.StepStop && results[i].Outcome == api.Changed
	})
	if !stopped || steps[failed].Kind != api.StepConfigure {
		return
	}
	err := h.Guests.Start(context.WithoutCancel(ctx), steps[failed].Name, guest.Options{})
	if err == nil || errors.Is(err, guest.ErrRunning) {
		results[failed].Error += "; it was started again as it was"
	} else {
		results[failed].Error += "; it was stopped for that, and " + err.Error()
	}
}

// firstRefusal returns the first of a guest's steps that would be refused after earlier
// ones have been carried out, and why: a guest that is stopped to be configured would
// stay stopped.
func (h *Host) firstRefusal(ctx context.Context, steps []api.Step, order []int) (int, error) {
	for n, i := range order {
		if s := steps[i]; n > 0 && s.Kind == api.StepConfigure && s.Guest != nil {
			return i, h.Guests.Claim(ctx, *s.Guest)
		}
	}
	return 0, nil
}

// step carries out one step of a run. A start calls onRunning once the guest runs and is only
// being watched.
func (h *Host) step(ctx context.Context, run string, s api.Step, progress builder.Progress, onRunning func()) (api.StepResult, error) {
	changed := api.StepResult{Outcome: api.Changed}
	options := guest.Options{Warn: progress.Warn, OnRunning: onRunning}
	ctx = guest.WithWarn(ctx, progress.Warn)
	switch s.Kind {
	case api.StepBuildImage:
		if s.Image == nil {
			return changed, errors.New("build image: the step has no image")
		}
		return built(h.Images.BuildFrom(ctx, *s.Image, s.Anew, images.Input{Upgrade: s.Upgrade}, progress))
	case api.StepCreate, api.StepConfigure:
		if s.Guest == nil {
			return changed, fmt.Errorf("%s: the step has no guest", s.Kind)
		}
		if err := h.mayStartAtBoot(ctx, s.Guest); err != nil {
			return changed, err
		}
		if s.Kind == api.StepCreate {
			err := h.Guests.Create(ctx, *s.Guest)
			if !errors.Is(err, guest.ErrExists) {
				return changed, err
			}
			// Somebody else created it meanwhile.
		}
		outcome, err := h.Guests.Configure(ctx, *s.Guest) // Unchanged if it is as wanted
		return api.StepResult{Outcome: outcome}, err
	case api.StepHealth:
		if onRunning != nil {
			onRunning() // it only waits
		}
		return h.healthStep(ctx, s, progress)
	case api.StepExec, api.StepWait, api.StepStat:
		return h.playStep(ctx, s, progress)
	case api.StepFiles:
		if s.Name == "" {
			outcome, err := h.provideFiles(s.Files)
			return api.StepResult{Outcome: outcome}, err
		}
		outcome, err := h.Guests.Provide(ctx, s.Name, s.Files)
		return api.StepResult{Outcome: outcome}, err
	case api.StepStart:
		err := h.Guests.Start(ctx, s.Name, options)
		if errors.Is(err, guest.ErrRunning) {
			return api.StepResult{Outcome: api.Unchanged}, nil
		}
		return changed, err
	case api.StepRepair:
		outcome, err := h.Guests.Repair(ctx, s.Name)
		return api.StepResult{Outcome: outcome}, err
	case api.StepStop:
		outcome, err := h.Guests.Stop(ctx, s.Name)
		return api.StepResult{Outcome: outcome}, err
	case api.StepRestart:
		return changed, h.Guests.Restart(ctx, s.Name, options)
	case api.StepDelete:
		if err := h.Guests.Delete(ctx, s.Name); !errors.Is(err, guest.ErrNoGuest) {
			return changed, err
		}
		return api.StepResult{Outcome: api.Unchanged}, nil
	case api.StepAside:
		if err := h.Guests.SetAside(ctx, s.Name); !errors.Is(err, guest.ErrNoGuest) {
			return changed, err
		}
		return api.StepResult{Outcome: api.Unchanged}, nil
	case api.StepRevert:
		outcome, err := h.Guests.Revert(ctx, s.Name, cmp.Or(s.Generation, run), options)
		if s.Generation == "" && errors.Is(err, generation.ErrNone) {
			err = nil // the run has not changed it
		}
		return api.StepResult{Outcome: outcome}, err
	case api.StepUpgrade:
		return h.upgrade(ctx, s.Name, run, options, progress)
	case api.StepForget:
		outcome, err := h.Guests.ForgetGenerations(ctx, s.Name)
		return api.StepResult{Outcome: outcome}, err
	}
	return changed, fmt.Errorf("unknown step %q", s.Kind)
}

// built returns the result of a step that builds an image.
func built(img api.Image, changed bool, err error) (api.StepResult, error) {
	if err != nil {
		return api.StepResult{}, err
	}
	r := api.StepResult{Outcome: api.Unchanged, Image: &img}
	if changed {
		r.Outcome = api.Changed
	}
	return r, nil
}
