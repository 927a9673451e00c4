package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ReplaceSuffix marks a file that is being written. Only a killed call leaves
// one, and the next takes it away.
const ReplaceSuffix = ".new~"

// ReplaceFile makes data the content of a file: it is written beside and
// renamed (rename(2)), so that readers and a killed call find the old content or
// the new one. After a crash of the machine it may be either, or empty: for what
// has to outlive one there is ReplaceFileSync. Only one process may replace a
// file at a time.
func ReplaceFile(path string, data []byte, mode fs.FileMode) error {
	return replace(path, mode, false, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// ReplaceFileSync is ReplaceFile for content that write writes, which is on the
// disk when ReplaceFileSync returns.
func ReplaceFileSync(path string, mode fs.FileMode, write func(*os.File) error) error {
	if err := replace(path, mode, true, write); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir writes a directory to disk: the name that a rename put there
// (fsync(2)).
func SyncDir(path string) error {
	dir, err := os.Open(path)
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
		err = f.Chmod(mode) // after write: chown(2) takes set-id bits away
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return os.Rename(f.Name(), path)
}

// createNew follows no link that somebody put there, and takes away what a
// killed call left.
func createNew(path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL | unix.O_NOFOLLOW
	f, err := os.OpenFile(path, flags, 0o600)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, flags, 0o600)
}
