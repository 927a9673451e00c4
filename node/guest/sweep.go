package guest

import (
	"context"
	"errors"
	"net"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
)

// Sweep does what Clean does, and restores what was taken from running guests: see
// Drift.
func (h *Host) Sweep(ctx context.Context) error {
	return errors.Join(h.Clean(ctx), h.repairAll(ctx))
}

// Clean cleans up after guests that ended by themselves (their addresses, forwards and
// cgroups) and completes starts whose vsnode was killed once the guest was running. A
// guest whose lock is held is skipped.
func (h *Host) Clean(ctx context.Context) error {
	names, err := h.cgroups()
	if err != nil {
		return err
	}
	noted, err := h.notedNames()
	if err != nil {
		return err
	}
	names = append(names, noted...)
	slices.Sort(names)
	var errs []error
	for _, name := range slices.Compact(names) {
		on, err := h.running(name)
		n, nerr := h.readNotes(name)
		if err != nil || on && nerr == nil && n.Done && !n.PostStart {
			errs = append(errs, err)
			continue
		}
		if slices.Contains(h.Held, name) {
			continue
		}
		if on && nerr == nil && n.Done { // the start that is in its last step may go on for long
			_, err := h.tryHold(name, func(g *Guest) error { return g.clean(ctx) })
			errs = append(errs, err)
			continue
		}
		errs = append(errs, h.Hold(ctx, name, "clean up after", func(g *Guest) error { return g.clean(ctx) }))
	}
	return errors.Join(errs...)
}

// Wake starts a guest again that has rebooted itself, and nobody has found it yet. It
// costs little if the guest runs, or was not started.
func (h *Host) Wake(ctx context.Context, name string) error {
	if on, err := h.running(name); err != nil || on {
		return err
	}
	if n, err := h.readNotes(name); err != nil || !n.Done {
		return nil // it was stopped, or is being started
	}
	return h.Hold(ctx, name, "clean up after", func(g *Guest) error { return g.clean(ctx) })
}

// clean completes the start of a guest that runs, and cleans up after one that does
// not; one that has rebooted is started again.
func (g *Guest) clean(ctx context.Context) error {
	on, err := g.up(ctx)
	if err != nil {
		return err
	}
	if on {
		return errors.Join(g.finish(ctx), g.postStart(ctx))
	}
	var end api.End
	if n, err := g.notes(); err == nil && n.Done {
		end = g.host.lookAtEnd(g.name, g.cgroup)
	}
	if err := errors.Join(g.noteEnd(), g.release(ctx)); err != nil {
		return err
	}
	return g.restartRebooted(ctx, end)
}

// repairAll is for calls that were not asked to repair anything: a device that somebody
// switched off stays off.
func (h *Host) repairAll(ctx context.Context) error {
	all, err := h.Drift(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for name := range all {
		st, err := h.readNotes(name)
		if err != nil {
			continue // stopped meanwhile
		}
		if link, err := net.InterfaceByName(st.Dev); st.Dev != "" && (err != nil || link.Flags&net.FlagUp == 0) {
			continue
		}
		if _, err := h.Repair(ctx, name); err != nil && !errors.Is(err, ErrNotRunning) && !errors.Is(err, ErrNoGuest) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
