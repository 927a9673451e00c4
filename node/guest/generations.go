package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/generation"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

// Change is what a run is about to change of a guest.
type Change struct {
	Run, Owner, Reason string

	Config bool       // its configuration; without a guest: that there is one
	Files  []api.File // to be written
	Layer  bool       // any of its own files
}

// generations is the store of what is kept of this host's guests.
func (p Paths) generations() generation.Store {
	return generation.Store(filepath.Join(p.DataDir, ".generations"))
}

// Keep keeps how a guest is, so that Revert can put it back. It does so once for each
// run and each part of the guest: what the run itself has changed is not kept. warn is
// called with each file that cannot be put back.
func (h *Host) Keep(ctx context.Context, name string, c Change, warn func(string)) error {
	return h.Hold(ctx, name, "keep the state of", func(g *Guest) error { return g.keep(ctx, c, warn) })
}

func (g *Guest) keep(ctx context.Context, c Change, warn func(string)) error {
	store := g.host.generations()
	kept, err := store.Find(g.name, c.Run)
	if errors.Is(err, generation.ErrNone) {
		if err := g.host.closeData(); err != nil {
			return err
		}
		kept, err = g.begin(ctx, store, c)
		if errors.Is(err, ErrNoGuest) {
			return nil // the step says so
		}
	}
	if err != nil || kept.Created {
		return err
	}
	if c.Config && !kept.HasConfig {
		if err := store.AddConfig(g.name, c.Run, g.copyConfig); err != nil {
			return err
		}
	}
	if c.Layer && !kept.Copied {
		if err := g.keepLayer(ctx, store, kept); err != nil {
			return err
		}
	}
	files := slices.DeleteFunc(slices.Clone(c.Files), func(f api.File) bool {
		return slices.ContainsFunc(kept.Files, func(e rootfs.Entry) bool { return e.Path == f.Path })
	})
	if len(files) == 0 {
		return nil
	}
	credentials, inside := apart(files, pathOf)
	entries, err := inConfig(g, func(r guestRoot) ([]rootfs.Entry, error) { return lookAt(r, credentials) })
	if err == nil && len(inside) > 0 {
		var in []rootfs.Entry
		in, err = inRoot(ctx, g, func(r guestRoot) ([]rootfs.Entry, error) { return lookAt(r, inside) })
		entries = append(entries, in...)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Lost != "" {
			warn(fmt.Sprintf("%s is %s: a revert could not put it back", e.Path, e.Lost))
		}
	}
	return store.AddFiles(g.name, kept, entries)
}

// begin adds the generation of a run.
func (g *Guest) begin(ctx context.Context, store generation.Store, c Change) (generation.Generation, error) {
	kept := generation.Generation{Run: c.Run, Owner: c.Owner, Reason: c.Reason, Kept: time.Now().Truncate(time.Second)}
	err := g.host.exists(g.name)
	if errors.Is(err, ErrNoGuest) && c.Config {
		kept.Created = true
	} else if err != nil {
		return kept, err
	}
	if kept.Running, err = g.up(ctx); err != nil {
		return kept, err
	}
	if config, err := g.Config(); err == nil {
		kept.Guest = &config.Guest
	}
	return store.Begin(g.name, kept)
}

// copyConfig copies the guest's configuration and syncs the copy.
func (g *Guest) copyConfig(to string) error {
	from := g.host.config(g.name)
	if st, err := os.Lstat(filepath.Join(from, "vdir")); err == nil && st.IsDir() {
		return fmt.Errorf("%s is a directory: move the guest's files away, and make it a link to them", filepath.Join(from, "vdir"))
	}
	if err := copyKept(from, to, isConfigured); err != nil {
		return err
	}
	return syncFS(to)
}

// lookAt returns what is in the places of files, with what a running guest has to do
// when they change.
func lookAt(r guestRoot, files []api.File) (list []rootfs.Entry, err error) {
	for _, f := range files {
		e, err := r.Look(f.Path, generation.MaxFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		e.OnChange = f.OnChange
		list = append(list, e)
	}
	return list, nil
}

// Generations returns what is kept of all guests, each guest's newest first.
func (h *Host) Generations(ctx context.Context) (all []api.Generation, err error) {
	store := h.generations()
	names, err := store.Guests()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		list, err := store.List(name)
		if err != nil {
			return nil, err
		}
		for _, k := range list {
			g := api.Generation{
				Guest: name, Number: k.Number, Run: k.Run, Owner: k.Owner, Reason: k.Reason, Kept: k.Kept,
				Created: k.Created, Running: k.Running, Config: k.HasConfig, Layer: k.Copied,
			}
			for _, f := range k.Files {
				g.Files = append(g.Files, f.Path)
			}
			all = append(all, g)
		}
	}
	return all, nil
}

// KeptImages returns the images that a revert needs, each with a guest and a run whose
// changes it would take back.
func (h *Host) KeptImages() (map[string]string, error) {
	store := h.generations()
	names, err := store.Guests()
	if err != nil {
		return nil, err
	}
	images := map[string]string{}
	for _, name := range names {
		list, err := store.List(name)
		if err != nil {
			return nil, err
		}
		for _, k := range list {
			if (k.HasConfig || k.Copied) && k.Guest != nil && k.Guest.Image != "" {
				images[k.Guest.Image] = fmt.Sprintf("%s (kept for a revert of run %s; vsfleet guest forget %s removes what is kept)", name, k.Run, name)
			}
		}
	}
	return images, nil
}

// ForgetGeneration removes what is kept of a guest for a run that has changed nothing.
func (h *Host) ForgetGeneration(ctx context.Context, name, run string) error {
	return h.Hold(ctx, name, "forget a generation of", func(*Guest) error { return h.generations().Remove(name, run) })
}

// ForgetGenerations removes all that is kept of a guest, and reports whether there was
// anything.
func (h *Host) ForgetGenerations(ctx context.Context, name string) (api.Outcome, error) {
	return h.holdOutcome(ctx, name, "forget generations of", func(g *Guest) (api.Outcome, error) {
		list, err := h.generations().List(name)
		if err != nil || len(list) == 0 {
			return api.Unchanged, err
		}
		return api.Changed, h.generations().RemoveAll(name)
	})
}

// sameTree reports whether two configuration directories hold the same, but for
// credentials. The link "run"
// may have been made since.
func sameTree(a, b string) (bool, error) {
	x, err := treeOf(a)
	if err != nil {
		return false, err
	}
	y, err := treeOf(b)
	if err != nil || len(x) != len(y) {
		return false, err
	}
	for rel, content := range x {
		if other, there := y[rel]; !there || !bytes.Equal(content, other) {
			return false, nil
		}
	}
	return true, nil
}

// treeOf returns the contents of the files in a directory but for credentials, and the
// targets of links.
func treeOf(dir string) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == dir {
			return fs.SkipAll
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || !isConfigured(rel) {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			all[rel] = []byte("→ " + target)
			return err
		}
		all[rel], err = linux.ReadFile(path)
		return err
	})
	return all, err
}
