package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// Query selects runs. Its zero value selects all.
type Query struct {
	Since  time.Time
	Verb   string // its first words: "guest" selects "guest stop" too
	Failed bool   // of which something failed, or that were interrupted
	Limit  int    // the newest ones; 0: all
	Host   func(name string) bool
}

// matches reports whether a query selects a run.
func (q Query) matches(r report.HistoryRecord) bool {
	bad := r.Status == report.KeptFailed || r.Status == report.KeptInterrupted
	return (q.Since.IsZero() || !r.When.Before(q.Since)) && (q.Verb == "" || strings.HasPrefix(r.Verb+" ", q.Verb+" ")) && (!q.Failed || bad) && q.on(r.Hosts)
}

// on reports whether a host of the query is in a set.
func (q Query) on(hosts string) bool {
	if q.Host == nil {
		return true
	}
	names, err := nodeset.Unfold(hosts)
	return err == nil && slices.ContainsFunc(names, q.Host)
}

// HostPattern returns a function that reports whether a host matches a pattern: a list
// of names, sets and globs, such as "web[01-03],db*". It does not need the inventory,
// so it also finds hosts that have left it. The name of a guest ("web01/www") also
// matches by its host.
func HostPattern(pattern string) (func(name string) bool, error) {
	var globs []string
	for _, item := range nodeset.SplitItems(pattern) {
		list, err := nodeset.ExpandGlob(item)
		if err != nil {
			return nil, err
		}
		globs = append(globs, list...)
	}
	for _, glob := range globs {
		if _, err := path.Match(glob, ""); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", glob, err)
		}
	}
	return func(name string) bool {
		host, _, _ := strings.Cut(name, "/")
		return slices.ContainsFunc(globs, func(glob string) bool {
			whole, _ := path.Match(glob, name)
			part, _ := path.Match(glob, host)
			return whole || part
		})
	}, nil
}

// UnknownError means that no run has the given ID.
type UnknownError struct{ ID string }

func (e *UnknownError) Error() string {
	if e.ID == "" {
		return "no run is kept yet"
	}
	return fmt.Sprintf("no run %q is kept", e.ID)
}

// History reads recorded runs: from the store, and from journals of runs that are under
// way or not stored yet.
type History struct {
	keeper Keeper
	store  *store // nil if it cannot be opened
	failed error  // why
}

// Open opens the history and stores the journals that killed vsfleets left. If the
// store cannot be opened, the history has only journals, and Failed returns the reason.
func Open(ctx context.Context, k Keeper) *History {
	h := &History{keeper: k}
	if k.None() {
		h.failed = errors.New("the setting store: none keeps no history")
		return h
	}
	ctx, cancel := context.WithTimeout(ctx, k.patience())
	defer cancel()
	if h.store, h.failed = k.open(ctx); h.failed == nil {
		h.failed = k.takeInLeft(ctx, h.store)
	}
	return h
}

// Failed returns the reason why the history is incomplete, or nil.
func (h *History) Failed() error { return h.failed }

// Close closes the store.
func (h *History) Close() {
	if h.store != nil {
		h.store.Close()
	}
}

// List returns the runs that a query selects, newest first.
func (h *History) List(ctx context.Context, q Query) ([]report.HistoryRecord, error) {
	list, err := h.pending(q)
	if err != nil {
		return nil, err
	}
	if h.store != nil {
		seen := map[string]bool{}
		for _, r := range list {
			seen[r.ID] = true
		}
		kept := 0
		err := h.store.list(ctx, q, func(r report.HistoryRecord) bool {
			if !seen[r.ID] {
				list = append(list, r)
				kept++
			}
			return q.Limit == 0 || kept < q.Limit
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b report.HistoryRecord) int { return b.When.Compare(a.When) })
	if q.Limit > 0 && len(list) > q.Limit {
		list = list[:q.Limit]
	}
	return list, nil
}

// pending returns the runs of journals that a query selects.
func (h *History) pending(q Query) ([]report.HistoryRecord, error) {
	if h.keeper.None() {
		return nil, nil
	}
	paths, err := h.keeper.journalFiles()
	if err != nil {
		return nil, err
	}
	var list []report.HistoryRecord
	for _, path := range paths {
		if k, err := readJournal(path); err == nil && k.Verb != "" && q.matches(k.HistoryRecord) {
			list = append(list, k.HistoryRecord)
		}
	}
	return list, nil
}

// readJournal reads the journal of a run that may be under way.
func readJournal(path string) (report.KeptRecord, error) {
	_, running := isRunning(path)
	data, err := os.ReadFile(path)
	if err != nil {
		return report.KeptRecord{}, err
	}
	if cut := strings.LastIndexByte(string(data), '\n'); running && cut >= 0 {
		data = data[:cut+1] // the last line is incomplete: it is being written
	}
	if !running {
		return readEnded(data, idOf(path)), nil
	}
	k := read(data, idOf(path))
	if k.Status == report.KeptInterrupted && k.Exit == nil {
		k.Status = report.KeptRunning
		k.Took = report.Seconds(time.Since(k.When))
	}
	return k, nil
}

// isRunning reports whether a journal exists, and whether a vsfleet is writing it.
func isRunning(path string) (there, running bool) {
	if _, err := os.Lstat(path); err != nil {
		return false, false
	}
	lock, err := linux.TryLockFile(path)
	if err != nil {
		return true, errors.Is(err, linux.ErrLocked)
	}
	lock.Unlock()
	return true, false
}

// Find returns the ID of the run with a name: "last", an ID, or a prefix of an ID or of
// its last part.
func (h *History) Find(ctx context.Context, name string) (string, error) {
	paths, err := h.keeper.journalFiles()
	if err != nil {
		return "", err
	}
	if name == "last" {
		list, err := h.List(ctx, Query{Limit: 1})
		switch {
		case err != nil:
			return "", err
		case len(list) == 0:
			return "", &UnknownError{}
		}
		return list[0].ID, nil
	}
	var ids []string
	for _, path := range paths {
		if id := idOf(path); strings.HasPrefix(id, name) || strings.HasPrefix(id[len(id)-8:], name) {
			ids = append(ids, id)
		}
	}
	if h.store != nil {
		more, err := h.store.ids(ctx, name)
		if err != nil {
			return "", err
		}
		ids = append(ids, more...)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	switch {
	case len(ids) == 0:
		return "", &UnknownError{ID: name}
	case len(ids) > 1:
		return "", fmt.Errorf("%q may be run %s or %s: give more of its ID", name, ids[0], ids[1])
	}
	return ids[0], nil
}

// Get returns the record of a run.
func (h *History) Get(ctx context.Context, id string) (report.KeptRecord, error) {
	data, path, err := h.data(ctx, id)
	switch {
	case err != nil:
		return report.KeptRecord{}, err
	case path != "":
		return readJournal(path)
	}
	return readEnded(data, id), nil
}

// Load returns the record of the run with a name, as for Find.
func (h *History) Load(ctx context.Context, name string) (report.KeptRecord, error) {
	id, err := h.Find(ctx, name)
	if err != nil {
		return report.KeptRecord{}, err
	}
	return h.Get(ctx, id)
}

// Before returns the IDs of runs that began before a time.
func (h *History) Before(ctx context.Context, when time.Time) ([]string, error) {
	list, err := h.List(ctx, Query{})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range list {
		if r.When.Before(when) && r.Status != report.KeptRunning {
			ids = append(ids, r.ID)
		}
	}
	return ids, nil
}

// data returns the lines of a run, or the path of its journal if it is not in the
// store.
func (h *History) data(ctx context.Context, id string) (data []byte, path string, err error) {
	paths, err := h.keeper.journalFiles()
	if err != nil {
		return nil, "", err
	}
	if i := slices.IndexFunc(paths, func(p string) bool { return idOf(p) == id }); i >= 0 {
		return nil, paths[i], nil
	}
	if h.store == nil {
		return nil, "", h.failed
	}
	data, err = h.store.journal(ctx, id)
	return data, "", err
}

// Remove removes runs. A run that is under way cannot be removed.
func (h *History) Remove(ctx context.Context, ids []string) (int, error) {
	if h.store == nil {
		return 0, h.failed
	}
	removed := 0
	paths, err := h.keeper.journalFiles()
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		if !slices.Contains(ids, idOf(path)) {
			continue
		}
		lock, err := linux.TryLockFile(path)
		switch {
		case errors.Is(err, linux.ErrLocked):
			return 0, fmt.Errorf("run %s is under way", idOf(path))
		case err != nil:
			return 0, err
		}
		err = os.Remove(path)
		lock.Unlock()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		removed++
	}
	n, err := h.store.remove(ctx, ids)
	return removed + n, err
}
