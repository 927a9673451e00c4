package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/generation"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/images"
)

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
