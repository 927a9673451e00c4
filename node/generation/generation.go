package generation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

// Generation is a guest as it was before a run changed it.
type Generation struct {
	Number  int       `json:"number"` // a later one has a greater number
	Run     string    `json:"run"`
	Owner   string    `json:"owner,omitempty"`  // of the run: user@machine
	Reason  string    `json:"reason,omitempty"` // of the run: "apply"
	Kept    time.Time `json:"kept"`
	Created bool      `json:"created,omitempty"` // there was no guest
	Running bool      `json:"running,omitempty"`
	// Guest is what the configuration said; nil if it could not be read.
	Guest *api.Guest `json:"guest,omitempty"`
	// Files are what the run overwrites. Their contents are beside.
	Files []rootfs.Entry `json:"files,omitempty"`
	// Layer is a directory with a copy of all of the guest's own files, beside these. It is
	// there as a whole once Copied is set.
	Layer  string `json:"layer,omitempty"`
	Copied bool   `json:"copied,omitempty"`

	HasConfig bool `json:"-"`
}

// Changes reports whether the run did more than to start or stop the guest.
func (g Generation) Changes() bool { return g.Created || g.HasConfig || len(g.Files) > 0 || g.Copied }

// ErrNone means that no such generation is kept.
var ErrNone = errors.New("no such generation")

// Limits of what is kept.
const (
	MaxKept = 5        // generations of a guest
	MaxFile = 64 << 20 // bytes of a file
)

// Store is a directory of generations.
type Store string

func (s Store) guest(name string) string    { return filepath.Join(string(s), name) }
func (s Store) dir(name, run string) string { return filepath.Join(string(s), name, run) }
func (s Store) record(name, run string) string {
	return filepath.Join(s.dir(name, run), "generation.json")
}
func (s Store) contents(name, run string) string { return filepath.Join(s.dir(name, run), "files") }

// Config returns the directory with the configuration of a generation that has one.
func (s Store) Config(name, run string) string { return filepath.Join(s.dir(name, run), "config") }

// checkRun returns an error if a run's id cannot be the name of a directory.
func checkRun(run string) error {
	word := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-'
	}
	if run == "" || len(run) > 100 || strings.ContainsFunc(run, func(r rune) bool { return !word(r) }) {
		return fmt.Errorf("id of a run %q: want letters, digits and '-'", run)
	}
	return nil
}

// Find returns a generation, or ErrNone. A damaged record is none: a power failure
// truncates only one on which nothing depends yet.
func (s Store) Find(name, run string) (Generation, error) {
	if err := checkRun(run); err != nil {
		return Generation{}, err
	}
	b, err := os.ReadFile(s.record(name, run))
	if errors.Is(err, fs.ErrNotExist) {
		return Generation{}, ErrNone
	}
	if err != nil {
		return Generation{}, err
	}
	var g Generation
	if err := json.Unmarshal(b, &g); err != nil {
		return Generation{}, fmt.Errorf("%w: %s: %w", ErrNone, s.record(name, run), err)
	}
	_, err = os.Lstat(s.Config(name, run))
	g.HasConfig = err == nil
	return g, nil
}

// List returns the generations of a guest, the newest first.
func (s Store) List(name string) ([]Generation, error) {
	entries, err := os.ReadDir(s.guest(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Generation
	for _, e := range entries {
		g, err := s.Find(name, e.Name())
		if errors.Is(err, ErrNone) || checkRun(e.Name()) != nil {
			continue // what a killed call left
		}
		if err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Number > list[j].Number }) // small in vsnode
	return list, nil
}

// Begin adds a generation without configuration and files, and removes the oldest ones
// if there are more than MaxKept. Generations of a guest that was removed by hand are
// not those of a new one.
func (s Store) Begin(name string, g Generation) (Generation, error) {
	if err := checkRun(g.Run); err != nil {
		return g, err
	}
	if g.Created {
		if err := s.RemoveAll(name); err != nil {
			return g, err
		}
	}
	have, err := s.List(name)
	if err != nil {
		return g, err
	}
	g.Number = 1
	if len(have) > 0 {
		g.Number = have[0].Number + 1
	}
	if err := s.prune(name, have); err != nil {
		return g, err
	}
	if err := os.MkdirAll(s.dir(name, g.Run), 0o700); err != nil {
		return g, err
	}
	return g, s.write(name, g, false)
}

// prune makes room for another generation. Of those that have only started or stopped
// the guest, none is kept: they are for a run that is under way.
func (s Store) prune(name string, have []Generation) error {
	kept := 0
	for _, g := range have {
		if g.Changes() && kept < MaxKept-1 {
			kept++
			continue
		}
		if err := s.Remove(name, g.Run); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(s.guest(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries { // what a killed call left
		if _, ferr := s.Find(name, e.Name()); errors.Is(ferr, ErrNone) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.guest(name), e.Name())))
		}
	}
	return err
}

// write writes the record. Whoever adds files that are about to be overwritten has it
// synced.
func (s Store) write(name string, g Generation, sync bool) error {
	for i := range g.Files {
		g.Files[i].Content = nil
	}
	b, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if !sync {
		return linux.ReplaceFile(s.record(name, g.Run), b, 0o600)
	}
	return linux.ReplaceFileSync(s.record(name, g.Run), 0o600, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// AddConfig adds the configuration, which fill copies into an empty directory and
// syncs.
func (s Store) AddConfig(name, run string, fill func(dir string) error) error {
	beside := s.Config(name, run) + linux.ReplaceSuffix
	if err := os.RemoveAll(beside); err != nil { // of a killed call
		return err
	}
	if err := os.Mkdir(beside, 0o700); err != nil {
		return err
	}
	if err := fill(beside); err != nil {
		return errors.Join(err, os.RemoveAll(beside))
	}
	return os.Rename(beside, s.Config(name, run))
}

// AddFiles adds files with their contents, which are on the disk when it returns.
func (s Store) AddFiles(name string, g Generation, list []rootfs.Entry) error {
	dir := s.contents(name, g.Run)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, e := range list {
		if e.Digest == "" {
			continue
		}
		err := linux.ReplaceFileSync(filepath.Join(dir, contentName(e.Digest)), 0o600, func(f *os.File) error {
			_, err := f.Write(e.Content)
			return err
		})
		if err != nil {
			return err
		}
	}
	g.Files = slices.Concat(g.Files, list)
	return s.write(name, g, true)
}

func contentName(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// Contents returns the files of a generation with what they hold.
func (s Store) Contents(name string, g Generation) ([]rootfs.Entry, error) {
	list := slices.Clone(g.Files)
	for i := range list {
		e := &list[i]
		if e.Digest == "" {
			continue
		}
		var err error
		e.Content, err = os.ReadFile(filepath.Join(s.contents(name, g.Run), contentName(e.Digest)))
		if err == nil && api.FileDigest(e.Content) != e.Digest {
			err = errors.New("what was kept of it is damaged")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return list, nil
}

// AddLayer adds a copy of all of the guest's own files, which fill makes in dir. dir is
// named before it is there: whatever a killed call leaves of it goes with the generation.
// Older copies are removed: they are as large as the guest.
func (s Store) AddLayer(name string, g Generation, dir string, fill func(dir string) error) error {
	have, err := s.List(name)
	if err != nil {
		return err
	}
	for _, old := range have {
		if old.Run != g.Run && old.Layer != "" {
			if err := s.dropLayer(name, old); err != nil {
				return err
			}
		}
	}
	g.Layer = dir
	if err := s.write(name, g, true); err != nil {
		return err
	}
	if err := fill(dir); err != nil {
		return err
	}
	g.Copied = true
	return s.write(name, g, true)
}

// dropLayer removes the copy of a guest's files from a generation.
func (s Store) dropLayer(name string, g Generation) error {
	dir := g.Layer
	g.Copied = false
	if err := s.write(name, g, true); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// Remove removes a generation. Without a record, the rest is nothing.
func (s Store) Remove(name, run string) error {
	if g, err := s.Find(name, run); err == nil && g.Layer != "" {
		if err := s.dropLayer(name, g); err != nil {
			return err
		}
	}
	if err := os.Remove(s.record(name, run)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(s.dir(name, run)); err != nil {
		return err
	}
	if err := os.Remove(s.guest(name)); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveAll removes all generations of a guest, the newest first: whenever it is
// killed, those that are left can be put back.
func (s Store) RemoveAll(name string) error {
	list, err := s.List(name)
	for _, g := range list {
		err = errors.Join(err, s.Remove(name, g.Run))
	}
	return errors.Join(err, os.RemoveAll(s.guest(name)))
}

// Guests returns the names of the guests that have generations.
func (s Store) Guests() ([]string, error) {
	entries, err := os.ReadDir(string(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}
