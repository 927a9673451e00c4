package guest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/generation"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

// Revert puts a guest back to how it was before a run changed it: its configuration
// with its image, limits and network, the files that runs have overwritten since, and
// whether it ran. which is the id of the run, or api.Newest: that of the last run that did more
// than create, start or stop it; if none did, of the last that started or stopped it. A guest that the run has
// created is stopped and kept. The error is generation.ErrNone if nothing of that run is kept.
//
// What is kept is forgotten at the end, so that a Revert that fails or is killed can be
// called again.
func (h *Host) Revert(ctx context.Context, name, which string, opt Options) (api.Outcome, error) {
	changed, pending := false, []api.OnChange(nil)
	err := h.Hold(ctx, name, "revert", func(g *Guest) (err error) {
		changed, pending, err = g.revert(ctx, which, opt)
		return err
	})
	if err == nil {
		_, err = h.obey(ctx, name, pending)
	}
	if changed {
		return api.Changed, err
	}
	return api.Unchanged, err
}

// reversion is what has to be put back of a guest.
type reversion struct {
	generation.Generation
	list   []generation.Generation // to be forgotten, the newest first
	config string                  // directory; empty: it was not changed
	files  []rootfs.Entry
	layer  string // all of its own files as they were; empty: they were not kept
}

// reversion finds what to put back. The generation of a run holds what that run has
// changed, so all later ones are put back, too, each before its predecessor.
func (g *Guest) reversion(which string) (reversion, error) {
	store := g.host.generations()
	list, err := store.List(g.name)
	if err != nil {
		return reversion{}, err
	}
	i := slices.IndexFunc(list, func(k generation.Generation) bool {
		return k.Run == which || which == api.Newest && k.Changes() && !k.Created
	})
	if i < 0 && which == api.Newest {
		i = slices.IndexFunc(list, func(k generation.Generation) bool { return !k.Created })
	}
	if i < 0 {
		return reversion{}, none(which, list)
	}
	r := reversion{Generation: list[i], list: list[:i+1]}
	for _, k := range r.list {
		if k.HasConfig {
			r.config, r.Guest = store.Config(g.name, k.Run), k.Guest
		}
		if k.Copied {
			r.layer, r.files = k.Layer, nil // it has the files that later runs have written
		}
		files, err := store.Contents(g.name, k)
		if err != nil {
			return r, err
		}
		for _, f := range files {
			r.files = slices.DeleteFunc(r.files, func(later rootfs.Entry) bool { return later.Path == f.Path })
			r.files = append(r.files, f)
		}
	}
	return r, nil
}

// none returns the error for a generation that is not there.
func none(which string, list []generation.Generation) error {
	if which == api.Newest && len(list) > 0 {
		return fmt.Errorf("%w: only run %s is kept, which has created the guest; to stop it: vsfleet guest stop", generation.ErrNone, list[0].Run)
	}
	if which == api.Newest {
		return fmt.Errorf("%w: no run has changed it, or all was put back", generation.ErrNone)
	}
	var runs []string
	for _, k := range list {
		runs = append(runs, k.Run)
	}
	if runs == nil {
		return fmt.Errorf("%w of run %s: none is kept", generation.ErrNone, which)
	}
	return fmt.Errorf("%w of run %s: there are those of %s", generation.ErrNone, which, strings.Join(runs, ", "))
}

func (g *Guest) revert(ctx context.Context, which string, opt Options) (changed bool, pending []api.OnChange, err error) {
	r, err := g.reversion(which)
	if err != nil {
		return false, nil, err
	}
	// A start that was killed ends by itself, or is completed.
	on, err := g.up(ctx)
	if err == nil && on {
		err = g.finish(ctx)
	}
	if err != nil {
		return false, nil, err
	}
	if r.Created || !r.Running || r.layer != "" {
		outcome, err := g.Stop(ctx)
		changed = outcome == api.Changed
		if err != nil {
			return changed, nil, err
		}
	}
	var lost []string
	if r.layer != "" {
		put, err := g.putLayer(r.layer)
		changed = changed || put
		if err != nil {
			return changed, nil, err
		}
	}
	if !r.Created {
		outcome, err := g.revertConfig(ctx, r)
		changed = changed || outcome == api.Changed
		if err != nil {
			return changed, nil, err
		}
		done, err := g.revertFiles(ctx, r.files)
		changed = changed || done.changed
		if err != nil {
			return changed, nil, err
		}
		pending, lost = done.pending, done.lost
	}
	if r.Running && !r.Created {
		outcome, err := g.revertRunning(ctx, pending, opt)
		changed = changed || outcome == api.Changed
		if err != nil {
			return changed, nil, err
		}
		if outcome == api.Changed {
			pending = nil // it has read the files
		}
	}
	for _, k := range r.list {
		if err := g.host.generations().Remove(g.name, k.Run); err != nil {
			return changed, nil, err
		}
	}
	if lost != nil {
		err = fmt.Errorf("all is as before, except for %s", strings.Join(lost, ", "))
	}
	return changed, pending, err
}

// revertConfig puts the configuration back. A guest that runs takes what it can at
// once; if that is not all, it is stopped.
func (g *Guest) revertConfig(ctx context.Context, r reversion) (api.Outcome, error) {
	if r.config == "" {
		return api.Unchanged, nil
	}
	outcome := api.Unchanged
	same, err := sameTree(r.config, g.host.config(g.name))
	if err != nil {
		return outcome, err
	}
	on, err := g.running()
	if err != nil {
		return outcome, err
	}
	if !same {
		outcome = api.Changed
		if now := g.knownConfig(); on && (r.Guest == nil || r.Guest.Context != now.Context) {
			if _, err := g.Stop(ctx); err != nil { // its context cannot change while it runs
				return outcome, err
			}
			on = false
		}
		if err := g.putConfig(ctx, r); err != nil {
			return outcome, err
		}
		if err := g.syncUnit(ctx); err != nil {
			return outcome, err
		}
	}
	if !on {
		return outcome, nil
	}
	c, err := g.Config()
	if err != nil {
		return outcome, err
	}
	changed, err := g.applyLive(ctx, c)
	if changed {
		outcome = api.Changed
	}
	if err != nil {
		return outcome, err
	}
	if n, err := g.notes(); err == nil && n.Runs != nil && reflect.DeepEqual(*n.Runs, c.Guest) {
		return outcome, nil
	}
	_, err = g.Stop(ctx)
	return api.Changed, err
}

// putConfig replaces the configuration with the one that was kept.
func (g *Guest) putConfig(ctx context.Context, r reversion) error {
	put := func() error {
		g.configRead = nil
		return replaceDir(g.host.config(g.name), func(beside string) error {
			return errors.Join(copyKept(r.config, beside, isConfigured),
				copyKept(g.host.config(g.name), beside, func(rel string) bool { return !isConfigured(rel) }))
		})
	}
	if r.Guest != nil {
		to := *r.Guest
		return g.host.withClaims(ctx, &to, put)
	}
	// It could not be read, so it claims nothing.
	_, unlock, err := g.host.lockClaims(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := g.host.beforeClaim(); err != nil {
		return err
	}
	defer g.host.index.invalidate()
	return put()
}

// revertFiles puts files back, and returns what a running guest has to do then.
func (g *Guest) revertFiles(ctx context.Context, files []rootfs.Entry) (writeResult, error) {
	if len(files) == 0 {
		return writeResult{}, nil
	}
	var places []place
	for _, e := range files {
		places = append(places, place{
			path: e.Path, onChange: e.OnChange, lost: e.Lost,
			differs: func(r rootfs.Dir) (bool, error) { return r.Differs(e) },
			write:   func(r rootfs.Dir) error { return r.Restore(e) },
		})
	}
	return g.writePlaces(ctx, places)
}

// revertRunning starts a guest that ran, or was stopped in order to be put back. It
// restarts one that has to be restarted after its files have changed.
func (g *Guest) revertRunning(ctx context.Context, pending []api.OnChange, opt Options) (api.Outcome, error) {
	on, err := g.running()
	if err != nil {
		return api.Unchanged, err
	}
	if on {
		if !slices.ContainsFunc(pending, func(o api.OnChange) bool { return o.Restart }) {
			return api.Unchanged, nil
		}
		if _, err := g.Stop(ctx); err != nil {
			return api.Changed, err
		}
	}
	return api.Changed, g.Start(ctx, opt)
}
