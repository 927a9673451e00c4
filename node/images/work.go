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

// A work is a directory of the store that only this process writes to. The flock on
// it keeps others out and ends with the process.
type work struct {
	path string
	lock *linux.Lock
	tree string // where the tree is made, or the contents of its files arrive
	// composed: the image gets a manifest, which is in path, and its files become objects.
	composed bool
	arrived  bool // tree has contents only, named by their sha256
	// resumable: what has arrived stays if the rest does not come.
	resumable bool
}

// makeTree makes the directory of the tree, with a new name each time: the lock of
// a killed vsnode becomes free a moment before the last of its tools is dead, and
// what that tool still writes must not land in our tree.
func (w *work) makeTree() (err error) {
	if w.tree, err = os.MkdirTemp(w.path, "tree-"); err != nil {
		return err
	}
	return os.Chmod(w.tree, 0o755)
}

// lockWork locks the work directory of that name and empties it. If another process
// holds it, lockWork waits.
func (s *Store) lockWork(ctx context.Context, name string) (*work, error) {
	w, err := s.lockDir(ctx, filepath.Join(s.dir, tmpPrefix+name))
	if err != nil {
		return nil, err
	}
	// Leftovers of a killed process would mix with our files.
	if err := w.empty(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// lockDir makes and locks a work directory.
func (s *Store) lockDir(ctx context.Context, path string) (*work, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		l, err := linux.LockDir(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its holder has finished
		}
		if err != nil {
			return nil, err
		}
		return &work{path: path, lock: l}, nil
	}
}

// checkSame returns fs.ErrNotExist unless the path still leads to the open directory.
func checkSame(dir *os.File, path string) error {
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

// empty removes the contents of the directory. The last processes of a build that was
// killed a moment ago may still be writing: then it tries again.
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

// discard removes the directory and its contents.
func (w *work) discard(ctx context.Context) error {
	if err := w.empty(ctx); err != nil {
		return err
	}
	return os.Remove(w.path)
}

// close releases the directory.
func (w *work) close() { w.lock.Unlock() }

// abandon ends a work that did not become an image: it removes everything, and adds
// to the error what could not be removed.
func (w *work) abandon(err *error) {
	if !w.leave(*err) && checkSame(w.lock.File, w.path) == nil {
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

// record writes a record into the image's directory, under a temporary name first.
func record(dir string, img api.Image) error {
	img.Description = "" // has a file of its own
	b, err := json.MarshalIndent(img, "", "  ")
	if err != nil {
		return err
	}
	return linux.ReplaceFileSync(filepath.Join(dir, img.Key+recordSuffix), 0o600, func(f *os.File) error {
		_, err := f.Write(append(b, '\n'))
		return err
	})
}

// sweep removes what killed calls left. Directories in use are locked and stay.
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
		if !strings.HasPrefix(e.Name(), tmpPrefix) && (!strings.HasPrefix(e.Name(), partPrefix) || !s.outdated(e.Name())) {
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
