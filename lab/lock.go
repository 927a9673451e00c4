package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// lockDir makes dir, if it is missing, and locks it. The directory itself is
// the lock, so that nothing is left of the lock once the directory is
// removed; it is root's alone, because whoever can open it can hold the lock.
// Of what is above, only the default directory's parent is the lab's to make.
func lockDir(ctx context.Context, dir string, log func(string)) (unlock func(), err error) {
	for {
		if dir == DefaultDir {
			if err := os.Mkdir(filepath.Dir(dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		err := os.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrNotExist) && dir == DefaultDir {
			continue // its last user has just removed the parent
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		l, err := linux.TryLockDir(dir)
		if errors.Is(err, linux.ErrLocked) {
			log("waiting for another lab command on " + dir)
			l, err = linux.LockDir(ctx, dir)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // its last user has just removed it
		}
		if err != nil {
			return nil, err
		}
		return l.Unlock, nil
	}
}
