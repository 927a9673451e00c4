package images

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// Free returns the number of bytes that an image may take in the store's filesystem.
func (s *Store) Free() (int64, error) {
	for dir := s.dir; ; dir = filepath.Dir(dir) {
		free, err := tree.Free(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			continue // no image was made yet
		}
		return free, err
	}
}

// checkSpace refuses an image that does not fit, before it fills the disk for
// everybody else.
func (s *Store) checkSpace(img api.Image) error {
	free, err := s.Free()
	if err != nil {
		return err
	}
	if need := tree.Needs(img.Bytes, img.Files); need > free {
		return fmt.Errorf("it needs %d MiB, and %s has %d MiB free for it: remove images that nothing uses (vsfleet image list), or make room: %w",
			need>>20+1, s.dir, free>>20, unix.ENOSPC)
	}
	return nil
}
