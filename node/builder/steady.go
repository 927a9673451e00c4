package builder

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// steady changes one name of a tree and leaves no trace of when: a file that was there
// keeps its time, a new one gets that of the directory above, and so do directories that
// the change makes. Equal sources then become equal trees, whenever they are built.
// Paths are resolved within the tree.
func steady(root *os.File, name string, change func() error) error {
	dirs := []string{"."}
	name = path.Clean("/" + name)[1:]
	for i, c := range name {
		if c == '/' {
			dirs = append(dirs, name[:i])
		}
	}
	times := make([]unix.Timespec, len(dirs)+1)
	for i, dir := range dirs {
		if i > 0 {
			times[i] = times[i-1]
		}
		if err := at(root, dir, ".", &times[i], false); err != nil {
			return err
		}
	}
	last, base := len(dirs), path.Base(name)
	times[last] = times[last-1]
	if err := at(root, dirs[last-1], base, &times[last], false); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	if err := at(root, dirs[last-1], base, &times[last], true); err != nil {
		return err
	}
	for i, dir := range dirs {
		if err := at(root, dir, ".", &times[i], true); err != nil {
			return err
		}
	}
	return nil
}

// at reads or sets the time of a name in a directory below the root. What is not there
// has no time.
func at(root *os.File, dir, base string, t *unix.Timespec, set bool) error {
	fd, err := unix.Openat2(int(root.Fd()), dir, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err == nil {
		defer unix.Close(fd)
		if set {
			err = unix.UtimesNanoAt(fd, base, []unix.Timespec{*t, *t}, unix.AT_SYMLINK_NOFOLLOW)
		} else {
			var st unix.Stat_t
			if err = unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
				*t = unix.Timespec{Sec: st.Mtim.Sec}
			}
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("time of %s: %w", strings.TrimPrefix(path.Join(dir, base), "./"), err)
	}
	return nil
}

// An installation is a tree that is being adapted.
type installation struct {
	*os.Root
	dir *os.File
}

func openInstallation(name string) (*installation, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	return &installation{root, dir}, nil
}

func (in *installation) Close() {
	in.dir.Close()
	in.Root.Close()
}

// write creates a file with these permissions, whatever vsnode's umask is.
func (in *installation) write(name, content string, mode os.FileMode) error {
	return steady(in.dir, name, func() error {
		if err := in.WriteFile(name, []byte(content), mode); err != nil {
			return err
		}
		return in.Chmod(name, mode)
	})
}

// makeDir creates a directory and those above it, whatever vsnode's umask is.
func (in *installation) makeDir(name string) error {
	for i := range name + "/" {
		if i < len(name) && name[i] != '/' {
			continue
		}
		dir := name[:i]
		if _, err := in.Stat(dir); err == nil || dir == "" {
			continue
		}
		if err := steady(in.dir, dir, func() error {
			if err := in.Mkdir(dir, 0o755); err != nil {
				return err
			}
			return in.Chmod(dir, 0o755)
		}); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a name with what is below it, if it is there.
func (in *installation) remove(name string) error {
	return steady(in.dir, name, func() error { return in.RemoveAll(name) })
}

// link makes a symbolic link, in place of what has the name.
func (in *installation) link(name, to string) error {
	return steady(in.dir, name, func() error {
		if err := in.RemoveAll(name); err != nil {
			return err
		}
		return in.Symlink(to, name)
	})
}
