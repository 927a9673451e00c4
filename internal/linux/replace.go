package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ReplaceSuffix marks a file that is being written. Only a killed call leaves such a
// file, and the next call removes it.
const ReplaceSuffix = ".new~"

// ReplaceFile replaces the content of a file with data: it writes a new file beside it
// and renames that (rename(2)), so that readers see the old content or the new, even if
// the call is killed. After a crash of the machine the file may be either, or empty;
// ReplaceFileSync is for content that has to survive one. Only one process may replace
// a file at a time.
func ReplaceFile(path string, data []byte, mode fs.FileMode) error {
	return replace(path, mode, false, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// ReplaceFileSync is like ReplaceFile for content that write writes. When it returns,
// the content is on the disk.
func ReplaceFileSync(path string, mode fs.FileMode, write func(*os.File) error) error {
	if err := replace(path, mode, true, write); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// CopySelf replaces path by this program, as root's alone.
func CopySelf(path string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return ReplaceFileSync(path, 0o700, func(f *os.File) error {
		_, err := f.Write(self) // at once: the page cache has it in large pages then, and a start 60 page faults less
		return err
	})
}

// SyncDir writes a directory to disk: the name that a rename put there (fsync(2)).
func SyncDir(path string) error {
	dir, err := Open(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func replace(path string, mode fs.FileMode, sync bool, write func(*os.File) error) (err error) {
	f, err := createNew(path + ReplaceSuffix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Chmod(mode) // after write: chown(2) clears set-id bits
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return os.Rename(f.Name(), path)
}

// createNew does not follow a link that somebody put there, and removes what a killed
// call left.
func createNew(path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL | unix.O_NOFOLLOW
	f, err := Open(path, flags, 0o600)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return Open(path, flags, 0o600)
}
