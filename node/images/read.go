package images

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// Read writes a file of an image, compressed by zstd; if the name is empty, its manifest.
func (s *Store) Read(ctx context.Context, id, name string, limit int64, w io.Writer) (err error) {
	if here, err := s.Has(id); err != nil || !here {
		return errors.Join(err, fmt.Errorf("read image %s: %w on this host", id, ErrNotFound))
	}
	z, err := newEncoder(w)
	if err != nil {
		return err
	}
	if name == "" {
		err = s.writeManifest(ctx, id, z)
	} else {
		var data []byte
		if data, err = s.ReadFile(id, name, limit); err == nil {
			_, err = z.Write(data)
		}
	}
	if err != nil {
		return err // closing would end the frame as if it were complete
	}
	return z.Close()
}

// writeManifest writes the manifest of an image; that of a plain tree is made.
func (s *Store) writeManifest(ctx context.Context, id string, w io.Writer) error {
	f, err := os.Open(filepath.Join(s.path(id), manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		b := bufio.NewWriter(w)
		_, err := tree.Record(ctx, filepath.Join(s.path(id), plainTree), b)
		return errors.Join(err, b.Flush())
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, &whileWanted{ctx, f})
	return err
}

// errFound ends the reading of a manifest.
var errFound = errors.New("found")

// ReadFile returns a regular file of an image, of limit bytes at most; the name has no
// slash at its front, and leads through no links. The error is fs.ErrNotExist if there is
// none.
func (s *Store) ReadFile(id, name string, limit int64) ([]byte, error) {
	s = s.holder(id)
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

// ReadEntries calls visit for each entry of an image. Where images are plain trees, all
// files are read for it.
func (s *Store) ReadEntries(ctx context.Context, id string, visit func(*tree.Entry) error) error {
	s = s.holder(id)
	var manifest bytes.Buffer
	err := s.writeManifest(ctx, id, &manifest)
	if err == nil {
		_, err = tree.ReadManifest(&manifest, visit)
	}
	return err
}
