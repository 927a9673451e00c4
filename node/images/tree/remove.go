package tree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxOpenDirs is the number of directories that Remove has open at once. A guest can make
// a tree deeper than RLIMIT_NOFILE lets a process walk (and than PATH_MAX can name).
const maxOpenDirs = 64

// Remove removes a tree of any depth, in which nobody creates files any more. It does
// not follow links. If something is mounted in the tree, Remove leaves it and returns
// an error. A tree that does not exist is not an error.
func Remove(path string) error {
	err := unix.Unlinkat(unix.AT_FDCWD, path, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if _, lerr := os.Lstat(path); errors.Is(lerr, os.ErrNotExist) {
		return nil // a read-only filesystem would return EROFS
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	r := remover{top: int(dir.Fd())}
	if err := r.empty(dir, 0); err != nil {
		return fmt.Errorf("remove what is in %s: %w", path, err)
	}
	return os.Remove(path)
}

// removeAt removes a name of a directory with all that is below it.
func removeAt(dirfd int, name string) error {
	r := remover{top: dirfd}
	return r.name(dirfd, name, 0)
}

// emptyDirectory removes what is in an open directory, and closes it.
func emptyDirectory(fd int) error {
	dir := os.NewFile(uintptr(fd), "directory")
	defer dir.Close()
	r := remover{top: fd}
	return r.empty(dir, 0)
}

type remover struct {
	top   int // the tree's own directory
	moved int // to it
}

// empty removes the contents of a directory. Names that cannot be removed do not keep
// it from removing the others; it returns the first error.
func (r *remover) empty(dir *os.File, level int) error {
	for {
		var failed error
		removed := 0
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		for {
			names, err := dir.Readdirnames(1000)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			for _, name := range names {
				if err := r.name(int(dir.Fd()), name, level); err == nil {
					removed++
				} else if failed == nil {
					failed = inside(name, err)
				}
			}
			if len(names) == 0 {
				break
			}
		}
		// List again: removing may have hidden a part of the list, and directories
		// that lay too deep were moved to the top.
		if failed != nil || removed == 0 {
			return failed
		}
	}
}

func (r *remover) name(dir int, name string, level int) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if rerr := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); rerr == nil {
		return nil
	} else if errors.Is(rerr, unix.ENOTDIR) {
		return err
	} else if !errors.Is(rerr, unix.ENOTEMPTY) && !errors.Is(rerr, unix.EEXIST) {
		return rerr
	}
	if level == maxOpenDirs {
		return r.lift(dir, name)
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.EXDEV) {
		return errors.New("something is mounted there: unmount it first")
	}
	if err != nil {
		return err
	}
	sub := os.NewFile(uintptr(fd), name)
	err = r.empty(sub, level+1)
	sub.Close()
	if err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// lift moves a directory to the top of the tree, where it is one level deep.
func (r *remover) lift(dir int, name string) error {
	for {
		r.moved++
		err := unix.Renameat2(dir, name, r.top, ".lifted-"+strconv.Itoa(r.moved), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
}

// A pathError is an error with the path of a file, as far as it fits into a line.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

const longestPath = 300

func inside(name string, err error) error {
	path := name
	var w *pathError
	if errors.As(err, &w) {
		path, err = filepath.Join(name, w.path), w.err
	}
	return &pathError{shorten(path), err}
}

// shorten leaves out the middle of a path that is too long for a line.
func shorten(path string) string {
	if len(path) <= longestPath {
		return path
	}
	half := longestPath / 2
	return path[:half] + "…" + path[len(path)-half:]
}
