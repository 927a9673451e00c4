package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Keeper defines where runs are stored, and how many are kept.
type Keeper struct {
	// Dir is the directory of journals and of the SQLite database.
	Dir string
	// Store is the address of a PostgreSQL database (postgres: …), empty for SQLite in
	// Dir, or "none" to record nothing.
	Store string
	Keep  Keep
	// Patience is how long the store may take at the end of a run; 0: five seconds.
	Patience time.Duration
	// Context is that of the program; it outlives runs.
	Context context.Context
}

// DefaultDir returns the directory for a user: $XDG_STATE_HOME/vsfleet/history, or
// below ~/.local/state if that is unset.
func DefaultDir() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // as the XDG Base Directory Specification wants it
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find a directory for the history: %w; set XDG_STATE_HOME", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "vsfleet", "history"), nil
}

// None reports whether runs are not recorded.
func (k Keeper) None() bool { return k.Store == "none" || k.Dir == "" }

// Place describes the store for people, without a password.
func (k Keeper) Place() string {
	switch {
	case k.None():
		return "none"
	case k.Store != "":
		return shown(k.Store)
	}
	return "SQLite " + filepath.Join(k.Dir, database)
}

func (k Keeper) journals() string         { return filepath.Join(k.Dir, "journal") }
func (k Keeper) patience() time.Duration  { return cmp.Or(k.Patience, 5*time.Second) }
func (k Keeper) context() context.Context { return k.Context }

// leftAtOnce bounds how many journals of other runs one vsfleet stores.
const leftAtOnce = 100

// takeInLeft stores journals of runs that were killed or could not reach the store.
func (k Keeper) takeInLeft(ctx context.Context, s *store) error {
	paths, err := k.journalFiles()
	if err != nil {
		return err
	}
	for _, path := range paths[:min(len(paths), leftAtOnce)] {
		lock, err := linux.TryLockFile(path)
		if errors.Is(err, linux.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
			continue // its run is alive, or another vsfleet has stored it
		}
		if err != nil {
			return err
		}
		err = takeIn(ctx, s, lock)
		lock.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// journalFiles returns the paths of the journals, oldest first.
func (k Keeper) journalFiles() ([]string, error) {
	entries, err := os.ReadDir(k.journals())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), journalSuffix) && idForm.MatchString(idOf(e.Name())) && e.Type().IsRegular() {
			paths = append(paths, filepath.Join(k.journals(), e.Name()))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// takeIn stores the run of a journal and removes the journal. A journal without a run,
// left by a vsfleet that was killed at its start, is only removed.
func takeIn(ctx context.Context, s *store, journal *linux.Lock) error {
	data, err := io.ReadAll(io.NewSectionReader(journal, 0, mostJournal*2))
	if err != nil {
		return err
	}
	run := readEnded(data, idOf(journal.Name()))
	if run.Verb == "" && len(run.Damaged) == 0 {
		return os.Remove(journal.Name())
	}
	if err := s.put(ctx, run, data); err != nil {
		return err
	}
	return os.Remove(journal.Name())
}

func idOf(path string) string { return strings.TrimSuffix(filepath.Base(path), journalSuffix) }
