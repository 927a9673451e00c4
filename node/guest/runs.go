package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// cgroups names the guests that have a cgroup: those that run, and those of
// which a start, a stop or their own end left one.
func (h *Host) cgroups() ([]string, error) {
	mount, err := procctx.CgroupMount()
	if errors.Is(err, procctx.ErrNoCgroup2) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := procctx.GuestCgroups(mount)
	return slices.DeleteFunc(names, func(name string) bool { return CheckName(name) != nil }), err
}

// runningNames goes by the kernel alone: a guest runs, whatever became of its
// configuration and of the notes of its start.
func (h *Host) runningNames() ([]string, error) {
	names, err := h.cgroups()
	if err != nil {
		return nil, err
	}
	var on []string
	for _, name := range names {
		runs, err := h.running(name)
		if err != nil {
			return nil, err
		}
		if runs {
			on = append(on, name)
		}
	}
	return on, nil
}

// allNames are the guests that are configured, and those that only run.
func (h *Host) allNames() ([]string, error) {
	names, err := h.Names()
	if err != nil {
		return nil, err
	}
	on, err := h.runningNames()
	if err != nil {
		return nil, err
	}
	names = append(names, on...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// contexts names the guest of each context that has a cgroup.
func (h *Host) contexts() (map[int]string, error) {
	names, err := h.cgroups()
	if err != nil {
		return nil, err
	}
	of := map[int]string{}
	for _, name := range names {
		_, cg, err := h.cgroup(name)
		if err != nil {
			return nil, err
		}
		xid, err := cg.Context()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been stopped
		}
		if err != nil {
			return nil, err
		}
		of[xid] = name
	}
	return of, nil
}

// FindName is the name of a guest that is called by a name or by the context that
// it runs in.
func (h *Host) FindName(name string, xid int) (string, error) {
	if _, err := os.Lstat(h.config(name)); err == nil {
		return name, nil
	}
	of, err := h.contexts()
	if found := of[xid]; found != "" {
		return found, err
	}
	return name, err
}

// startedGuests are the running guests by name, as they were startedGuests.
func (h *Host) startedGuests() (map[string]api.Guest, error) {
	names, err := h.runningNames()
	if err != nil {
		return nil, err
	}
	guests := map[string]api.Guest{}
	for _, name := range names {
		st, err := h.readNotes(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been stopped
		}
		if err != nil {
			return nil, fmt.Errorf("guest %s, which runs: %w", name, err)
		}
		guests[name] = st.startedAs(name)
	}
	return guests, nil
}

// startedAs is what the guest goes by. A vsnode that noted less than this one does
// noted the context at least.
func (s notes) startedAs(name string) api.Guest {
	if s.Runs != nil {
		return *s.Runs
	}
	g := api.Guest{Name: name, Context: s.Context}
	if s.NAT {
		g.Network.Mode = api.ModeNAT
	}
	return g
}

// free refuses what another guest has that runs, or is being started or stopped.
// What is configured does not count here: two configurations may well say the same
// as long as one of them runs, and one that somebody edited says nothing of the
// guest that runs. All claims are locked.
func (h *Host) free(ctx context.Context, g api.Guest, root string) error {
	holders, err := h.holders()
	if err != nil {
		return err
	}
	clashes := map[string]error{}
	for name, st := range holders {
		if name != g.Name {
			if err := clash(g, root, name, st); err != nil {
				clashes[name] = err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(clashes)) {
		held := clashes[name]
		gone, err := h.releaseDead(ctx, name)
		if err != nil {
			return errors.Join(held, err)
		}
		if !gone {
			return fmt.Errorf("%w, which runs: stop that one first (vserver %s stop); of two that swap, stop both before you start one", held, name)
		}
	}
	return nil
}

// holders are the guests that may have something of the host, by what is noted
// of them, or was lately.
func (h *Host) holders() (map[string]notes, error) {
	x := &h.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.holdersRead) < freshFor && h.claimedLast() {
		return x.holders, nil
	}
	x.holdersRead = time.Now()
	names, err := h.cgroups()
	if err != nil {
		return nil, err
	}
	noted, err := h.notedNames()
	if err != nil {
		return nil, err
	}
	holders := map[string]notes{}
	for _, name := range append(names, noted...) {
		if _, there := holders[name]; there {
			continue
		}
		st, err := h.readNotes(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("guest %s, which may run: %w", name, err)
		}
		holders[name] = st
	}
	x.holders = holders
	return holders, nil
}

// clash says what the guest would have that another one has: its ids, its
// files, and what conflict looks for.
func clash(g api.Guest, root, name string, held notes) error {
	if g.Context == held.Context {
		return fmt.Errorf("context %d, and with it the ids of its files, is guest %s's", g.Context, name)
	}
	if within(root, held.Root) || within(held.Root, root) {
		return fmt.Errorf("its files (%s) are guest %s's", root, name)
	}
	runs := held.startedAs(name)
	runs.Name = name
	return conflict(g, []api.Guest{runs})
}

// within reports whether a directory is another one or below it. Both are resolved.
func within(path, dir string) bool {
	return path != "" && dir != "" && (path == dir || strings.HasPrefix(path, dir+"/"))
}

// resolved is a path without links, so that two names of one directory are one.
func resolved(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	return filepath.Clean(path)
}

// releaseDead cleans up after a guest that ended by itself. One that runs, or that
// somebody is at work on, it leaves.
func (h *Host) releaseDead(ctx context.Context, name string) (bool, error) {
	if on, err := h.running(name); err != nil || on {
		return false, err
	}
	released := false
	_, err := h.tryHold(name, func(g *Guest) error {
		if on, err := g.running(); err != nil || on {
			return err
		}
		released = true
		return errors.Join(g.noteEnd(), g.release(ctx))
	})
	return released, err
}

// sharers names the other configurations whose files are in one of the directories.
func (h *Host) sharers(except string, dirs ...string) ([]string, error) {
	entries, err := os.ReadDir(h.ConfigDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for i, dir := range dirs {
		if dir != "" {
			dirs[i] = resolved(dir)
		}
	}
	var users []string
	for _, e := range entries {
		name := e.Name()
		root, err := h.vdir(name)
		if name == except || CheckName(name) != nil || err != nil {
			continue
		}
		// Most are where vsnode puts them: no need to follow their path.
		if info, err := os.Lstat(h.data(name)); root != h.rootDir(name) || err != nil || !info.IsDir() {
			root = resolved(root)
		}
		if slices.ContainsFunc(dirs, func(dir string) bool { return within(root, dir) }) {
			users = append(users, name)
		}
	}
	return users, nil
}
