package images

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An image that comes in parts arrives in a directory of its own, which stays if it does not
// arrive to its end: the next stream continues there. Its contents were compared with their
// digests, but are not synced; they are compared again then.
const (
	partPrefix   = ".part-"
	partContents = "contents"
	// partAge is how long it stays after the last content has arrived.
	partAge = 24 * time.Hour
)

func (s *Store) partPath(id string) string {
	return filepath.Join(s.dir, partPrefix+strings.TrimPrefix(id, "sha256:"))
}

// lockPart locks the directory that an image arrives in, with what has arrived.
func (s *Store) lockPart(ctx context.Context, id string) (*work, error) {
	w, err := s.lockDir(ctx, s.partPath(id))
	if err != nil {
		return nil, err
	}
	w.tree = filepath.Join(w.path, partContents)
	if err := os.Mkdir(w.tree, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		w.close()
		return nil, err
	}
	_, err = os.Lstat(filepath.Join(w.path, manifestFile))
	w.resumable = err == nil
	// What a killed call was writing.
	if err := os.Remove(filepath.Join(w.tree, "arriving")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.close()
		return nil, err
	}
	return w, nil
}

// leave reports whether what has arrived stays for the next stream.
func (w *work) leave(err error) bool {
	return w.resumable && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT)
}

// outdated reports whether a directory that an image arrives in is of no more use.
func (s *Store) outdated(name string) bool {
	id := "sha256:" + strings.TrimPrefix(name, partPrefix)
	if here, err := s.Has(id); here || err != nil {
		return true
	}
	st, err := os.Lstat(filepath.Join(s.dir, name, partContents))
	if err != nil {
		return true
	}
	age := time.Since(st.ModTime())
	return age > partAge || age < -partAge // the clock was set
}
