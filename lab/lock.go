package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
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
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its last user has just removed it
		}
		if err != nil {
			return nil, err
		}
		if err := flock(ctx, f, func() { log("waiting for another lab command on " + dir) }); err != nil {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			f.Close()
			return nil, err
		}
		if st.Nlink != 0 {
			return func() { f.Close() }, nil
		}
		f.Close() // removed while we waited
	}
}

// flock locks f or closes it. flock(2) can not be cancelled, so the wait for
// it is left behind when ctx ends; it ends with the process or with the lock.
func flock(ctx context.Context, f *os.File, waiting func()) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		waiting()
		done := make(chan error, 1)
		go func() {
			for {
				err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
				if err == unix.EINTR {
					continue
				}
				done <- err
				return
			}
		}()
		select {
		case err = <-done:
		case <-ctx.Done():
			go func() { <-done; f.Close() }()
			return ctx.Err()
		}
	}
	if err != nil {
		f.Close()
	}
	return err
}
