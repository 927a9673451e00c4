package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// errFound ends the reading of a manifest.
var errFound = errors.New("found")

// ReadFile returns a regular file of an image, of limit bytes at most; the name has no
// slash at its front, and leads through no links. The error is fs.ErrNotExist if there is
// none.
func (s *Store) ReadFile(id, name string, limit int64) ([]byte, error) {
	composed, err := s.hasManifest(id)
	if err != nil {
		return nil, err
	}
	if !composed {
		return s.readPlain(id, name, limit)
	}
	var found *tree.Entry
	_, err = readManifest(s.path(id), func(e *tree.Entry) error {
		if e.Path() != name {
			return nil
		}
		found = e
		return errFound
	})
	switch {
	case found == nil && err == nil:
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	case found == nil:
		return nil, err
	case found.Size() > limit:
		return nil, fmt.Errorf("%s has %d bytes, and %d are read at most", name, found.Size(), limit)
	}
	if target, ok := found.HardLink(); ok {
		return s.ReadFile(id, target, limit)
	}
	if found.Object() == "" {
		return nil, nil // empty
	}
	f, err := s.objects.Open(found.Object())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, found.Size()+1))
	if err == nil {
		err = objects.Compare(found.Object(), data)
	}
	return data, err
}

func (s *Store) readPlain(id, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(filepath.Join(s.path(id), plainTree))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
