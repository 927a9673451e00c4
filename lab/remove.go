package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// removeTree removes path and all below it, if it is there. It follows no
// symlink, since a guest's root may have made any of them, and it enters no
// directory on which something is mounted: a bind mount of the machine's root
// left below the lab would otherwise be emptied. The kernel checks both while
// opening each directory, so nothing can come in between.
func removeTree(path string) error {
	parent, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(parent)
	return removeAt(parent, filepath.Base(path), path)
}

func removeAt(parent int, name, path string) error {
	err := unix.Unlinkat(parent, name, 0)
	switch {
	case err == nil || err == unix.ENOENT:
		return nil
	case err != unix.EISDIR && err != unix.EPERM: // unlink(2): EISDIR on Linux, EPERM in POSIX
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	fd, err := unix.Openat2(parent, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err == unix.EXDEV {
		return fmt.Errorf("remove %s: something is mounted there: unmount it first", path)
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAt(fd, n, filepath.Join(path, n)); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// refuseMounts is an error when anything is mounted at or below dir in this
// mount namespace: the lab does no such thing, so somebody else did, and must
// decide what becomes of it before files are removed.
func refuseMounts(dir string) error {
	mounts, err := linux.Mounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Dir == dir || strings.HasPrefix(m.Dir, dir+"/") {
			return fmt.Errorf("%s is mounted on %s, which is not the lab's doing: unmount it first", m.FSType, m.Dir)
		}
	}
	return nil
}
