package guest

import (
	"context"
	"errors"
	"net"
	"slices"
)

// Sweep is Clean, and puts back what somebody took from guests that run: see Drift.
func (h *Host) Sweep(ctx context.Context) error {
	return errors.Join(h.Clean(ctx), h.repairAll(ctx))
}

// Clean cleans up after guests that ended by themselves (their addresses,
// forwards and cgroups) and finishes starts whose vsnode was killed after the
// guest had begun to run. What holds its lock is left alone until it lets go.
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
		if err != nil || on && nerr == nil && n.Done {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, h.Hold(ctx, name, "clean up after", func(g *Guest) error { return g.clean(ctx) }))
	}
	return errors.Join(errs...)
}

// clean finishes the start of a guest that runs, and cleans up after one that does
// not.
func (g *Guest) clean(ctx context.Context) error {
	on, err := g.up(ctx)
	if err != nil {
		return err
	}
	if on {
		return g.finish(ctx)
	}
	return errors.Join(g.noteEnd(), g.release(ctx))
}

// repairAll is for calls that nobody asked to repair something: a device that
// somebody switched off stays so.
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
