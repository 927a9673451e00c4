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

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// free returns an error if another guest that runs, or is being started or stopped, has
// what g needs. Configurations do not count here: two of them may claim the same thing
// as long as only one of the guests runs, and one that was edited may not match the
// guest that runs. The lock of all claims is held.
func (h *Host) free(ctx context.Context, g api.Guest, root string) error {
	holders, err := h.holders()
	if err != nil {
		return err
	}
	clashes := map[string]error{}
	for name, st := range holders {
		if name != g.Name {
			if err := clash(&g, root, name, st); err != nil {
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

// entry returns what a guest has that may run.
func (s notes) entry(name string) *indexEntry {
	runs := s.startedAs(name)
	return &indexEntry{Root: s.Root, Guest: api.Guest{Name: name, Context: s.Context, Network: runs.Network, Volumes: runs.Volumes}}
}

// holders returns the guests that may hold resources of the host, which may be slightly
// out of date. Of those whose notes have not changed since another vsnode looked, the
// notes are not read.
func (h *Host) holders() (map[string]*indexEntry, error) {
	x := &h.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.holdersRead) < freshFor && h.claimedLast() {
		return x.holders, nil
	}
	x.holdersRead = time.Now()
	before := x.holdersRead.Add(-clockTick)
	names, err := h.cgroups()
	if err != nil {
		return nil, err
	}
	noted, err := h.notedNames()
	if err != nil {
		return nil, err
	}
	if x.holders == nil {
		x.holders = loadIndex(h.holdersFile())
	}
	holders, read := make(map[string]*indexEntry, len(names)), x.reads
	for _, name := range append(names, noted...) {
		if _, there := holders[name]; there {
			continue
		}
		sum := statSum(unix.AT_FDCWD, h.RunDir, filepath.Base(h.notesFile(name)), before)
		held := x.holders[name]
		if sum == 0 || held == nil || held.Sum != sum {
			st, err := h.readNotes(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("guest %s, which may run: %w", name, err)
			}
			held = st.entry(name)
			held.Sum = sum
			x.reads++
		}
		holders[name] = held
	}
	x.holders = holders
	if x.reads-read >= saveAfter {
		saveIndex(h.holdersFile(), holders)
	}
	return holders, nil
}

// clash returns an error if the guest would have what another one has: its IDs, its
// files, or a claim (see conflict).
func clash(g *api.Guest, root, name string, held *indexEntry) error {
	if g.Context == held.Guest.Context {
		return fmt.Errorf("context %d, and with it the ids of its files, is guest %s's", g.Context, name)
	}
	if within(root, held.Root) || within(held.Root, root) {
		return fmt.Errorf("its files (%s) are guest %s's", root, name)
	}
	for _, v := range g.Volumes {
		_, shared := v.Option(setting.SharedVolume)
		for _, theirs := range held.Guest.Volumes {
			if _, both := theirs.Option(setting.SharedVolume); v.Source == theirs.Source && !(shared && both) {
				return fmt.Errorf("volume %s is guest %s's (several guests have it at once if all say shared)", v.Source, name)
			}
		}
	}
	return conflict(g, &held.Guest)
}

// within reports whether a directory is equal to or below another. Both are resolved.
func within(path, dir string) bool {
	return path != "" && dir != "" && (path == dir || strings.HasPrefix(path, dir+"/"))
}

// resolved returns a path without symbolic links, so that two names of one directory
// are equal.
func resolved(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	return filepath.Clean(path)
}

// releaseDead cleans up after a guest that ended by itself. It leaves alone a guest
// that runs or whose lock is held.
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

// sharers returns the names of other guests whose files are in one of the directories.
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
		// Most are where vsnode puts them, and need not be resolved.
		if info, err := os.Lstat(h.data(name)); root != h.rootDir(name) || err != nil || !info.IsDir() {
			root = resolved(root)
		}
		if slices.ContainsFunc(dirs, func(dir string) bool { return within(root, dir) }) {
			users = append(users, name)
		}
	}
	return users, nil
}
