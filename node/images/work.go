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
	dir  *os.File
	tree string // where the tree is made
}

// plant makes the directory of the tree. Its name is new each time: the lock of
// a killed vsnode is free a moment before the last of its tools is dead, and
// what that still writes must not land in our tree.
func (w *work) plant() (err error) {
	if w.tree, err = os.MkdirTemp(w.path, "tree-"); err != nil {
		return err
	}
	return os.Chmod(w.tree, 0o755)
}

// hold takes the work directory of that name, empty. While another process has
// it, hold waits.
func (s *Store) hold(ctx context.Context, name string) (*work, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, tmpPrefix+name)
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		w, err := lock(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever had it has finished
		}
		if err != nil {
			return nil, err
		}
		// What a killed one left would mix with ours.
		if err := w.empty(ctx); err != nil {
			w.close()
			return nil, err
		}
		return w, nil
	}
}

// lock waits for the flock on a directory. fs.ErrNotExist: by the time that it
// was ours, the directory was removed or had become an image.
func lock(ctx context.Context, path string) (*work, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		for err == unix.EINTR {
			err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		}
		locked <- err
	}()
	select {
	case err = <-locked:
	case <-ctx.Done():
		// flock(2) cannot be called off; the descriptor is closed when it
		// returns, or with the process.
		go func() { <-locked; dir.Close() }()
		return nil, ctx.Err()
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := same(dir, path); err != nil {
		dir.Close()
		return nil, err
	}
	return &work{path: path, dir: dir}, nil
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
func (w *work) close() { w.dir.Close() }

// abandon is for the end of a work that did not become an image: nothing of it
// stays, and the error says so if something does.
func (w *work) abandon(err *error) {
	if same(w.dir, w.path) == nil {
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
	f, err := os.CreateTemp(dir, ".record-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // renamed by then, or of no use
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, img.Key+recordSuffix)); err != nil {
		return err
	}
	return syncDir(dir)
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
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // not ours, and in the way
		return os.Remove(path)
	case err != nil:
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return nil
	} else if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if same(dir, path) != nil {
		return nil // it was removed, or became an image, before the lock was ours
	}
	w := &work{path: path, dir: dir}
	return w.discard(ctx)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
