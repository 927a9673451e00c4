package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

const (
	tmpPrefix    = ".tmp-"
	recordSuffix = ".json"
)

// work is a directory of the store that this process alone writes to: the
// flock on it says so, and is gone with the process.
type work struct {
	path string
	lock *linux.Lock
	tree string // where the tree is made
}

// makeTree makes the directory of the tree. Its name is new each time: the lock of
// a killed vsnode is free a moment before the last of its tools is dead, and
// what that still writes must not land in our tree.
func (w *work) makeTree() (err error) {
	if w.tree, err = os.MkdirTemp(w.path, "tree-"); err != nil {
		return err
	}
	return os.Chmod(w.tree, 0o755)
}

// lockWork takes the work directory of that name, empty. While another process has
// it, lockWork waits.
func (s *Store) lockWork(ctx context.Context, name string) (*work, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, tmpPrefix+name)
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		l, err := linux.LockDir(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever had it has finished
		}
		if err != nil {
			return nil, err
		}
		w := &work{path: path, lock: l}
		// What a killed one left would mix with ours.
		if err := w.empty(ctx); err != nil {
			w.close()
			return nil, err
		}
		return w, nil
	}
}

// same makes sure that the path still leads to the open directory.
func same(dir *os.File, path string) error {
	a, err := dir.Stat()
	if err != nil {
		return err
	}
	b, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(a, b) {
		return fs.ErrNotExist
	}
	return nil
}

// empty removes what is in the directory. Of a build that was killed a moment
// ago the last processes may still be dying, and writing: then it tries again.
func (w *work) empty(ctx context.Context) error {
	for range 100 {
		err := w.removeAll()
		if !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
	return w.removeAll()
}

func (w *work) removeAll() error {
	names, err := os.ReadDir(w.path)
	for _, e := range names {
		err = errors.Join(err, tree.Remove(filepath.Join(w.path, e.Name())))
	}
	return err
}

// discard removes the directory with all that is in it.
func (w *work) discard(ctx context.Context) error {
	if err := w.empty(ctx); err != nil {
		return err
	}
	return os.Remove(w.path)
}

// close lets the directory go.
func (w *work) close() { w.lock.Unlock() }

// abandon is for the end of a work that did not become an image: nothing of it
// stays, and the error says so if something does.
func (w *work) abandon(err *error) {
	if same(w.lock.File, w.path) == nil {
		//nolint:forbidigo // not the call's context: cleaning up is what a cancelled call still does
		if e := w.discard(context.Background()); e != nil {
			e = fmt.Errorf("clean up %s: %w", w.path, e)
			if *err != nil {
				e = fmt.Errorf("%w; and then: %w", *err, e)
			}
			*err = e
		}
	}
	w.close()
}

// record writes the image's record into its directory, beside and renamed.
func record(dir string, img api.Image) error {
	b, err := json.MarshalIndent(img, "", "  ")
	if err != nil {
		return err
	}
	return linux.ReplaceFileSync(filepath.Join(dir, img.Key+recordSuffix), 0o600, func(f *os.File) error {
		_, err := f.Write(append(b, '\n'))
		return err
	})
}

// sweep removes what killed calls left. What a living one works in is locked,
// and stays.
func (s *Store) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		if err := sweepOne(ctx, filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("clean up after a killed call: %w", err)
		}
	}
	return nil
}

func sweepOne(ctx context.Context, path string) error {
	l, err := linux.TryLockDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, linux.ErrLocked): // removed or made an image meanwhile, or in use
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // not ours, and in the way
		return os.Remove(path)
	case err != nil:
		return err
	}
	w := &work{path: path, lock: l}
	defer w.close()
	return w.discard(ctx)
}
