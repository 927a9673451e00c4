package quota

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	flags, extsize, extents, project, cowExtsize uint32
	_                                            [8]byte
}

const (
	getAttr  = 0x801c581f // FS_IOC_FSGETXATTR
	setAttr  = 0x401c5820 // FS_IOC_FSSETXATTR
	inherits = 0x200      // FS_XFLAG_PROJINHERIT
)

func ioctl(fd, request int, to unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(to)); errno != 0 {
		return errno
	}
	return nil
}

// note is an extended attribute of a marked directory, which no guest can read or write:
// the number of its project, and behind it "…" until all below is marked.
const note = "trusted.vsfleet.project"

// Marked returns the project that a directory was put into, and whether all below it
// was; 0: none.
func Marked(path string) (project int, all bool, err error) {
	dir, err := open(path)
	if err != nil {
		return 0, false, err
	}
	defer dir.Close()
	buf := make([]byte, 32)
	n, err := unix.Fgetxattr(int(dir.Fd()), note, buf)
	if err != nil {
		return 0, false, nil // as good as none
	}
	text, unfinished := strings.CutSuffix(string(buf[:n]), "…")
	project, err = strconv.Atoi(text)
	if err != nil {
		return 0, false, nil
	}
	// A copy has the note without the project.
	var a fsxattr
	err = ioctl(int(dir.Fd()), getAttr, unsafe.Pointer(&a))
	return project, !unfinished && err == nil && a.flags&inherits != 0 && a.project == uint32(project), nil
}

// Mark puts a directory and all below it on its filesystem into a project. Nobody may
// work below it meanwhile. Symbolic links, devices and other files that cannot be
// opened are made anew, as renames would fail for one that is not in the project of
// its directory.
func Mark(ctx context.Context, path string, project int) error {
	dir, err := open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mark %s: %w", path, err)
	}
	err = func() error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		id := strconv.Itoa(project)
		if err := unix.Fsetxattr(fd, note, []byte(id+"…"), 0); err != nil {
			return err
		}
		m := marker{ctx: ctx, project: uint32(project), dev: st.Dev}
		if err := m.set(fd, true); err != nil {
			return err
		}
		if fd, err = m.directory(fd); err != nil {
			return err
		}
		return unix.Fsetxattr(fd, note, []byte(id), 0)
	}()
	unix.Close(fd)
	if err != nil {
		return fmt.Errorf("put %s into project %d: %w", path, project, err)
	}
	return nil
}

type marker struct {
	ctx     context.Context
	project uint32
	dev     uint64
}

func (m marker) set(fd int, dir bool) error {
	var a fsxattr
	if err := ioctl(fd, getAttr, unsafe.Pointer(&a)); err != nil {
		return err
	}
	want := a
	want.project = m.project
	if dir {
		want.flags |= inherits
	}
	if want == a {
		return nil
	}
	return ioctl(fd, setAttr, unsafe.Pointer(&want))
}

// directory marks what is in a directory. It takes its descriptor over and returns
// another one of it: however deep a guest's tree is, one directory is open at a time.
func (m marker) directory(fd int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fd, err
	}
	names, err := list(fd)
	if err != nil {
		return fd, err
	}
	for _, name := range names {
		if err := m.ctx.Err(); err != nil {
			return fd, err
		}
		if fd, err = m.name(fd, name, st); err != nil {
			return fd, err
		}
	}
	return fd, nil
}

func list(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}

func (m marker) name(dir int, name string, parent unix.Stat_t) (int, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) && strings.HasPrefix(name, temporary) {
		return dir, nil // renew has just used the name
	}
	if err != nil {
		return dir, fmt.Errorf("%q: %w", name, err)
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case st.Dev != m.dev:
		return dir, nil // mounted there
	case strings.HasPrefix(name, temporary) && kind != unix.S_IFDIR:
		if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) { // of a Mark that was killed
			return dir, err
		}
		return dir, nil
	case kind != unix.S_IFREG && kind != unix.S_IFDIR:
		if err := m.renew(dir, name, &st); err != nil {
			return dir, fmt.Errorf("make %q anew: %w", name, err)
		}
		return dir, nil
	}
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0)
	if err != nil {
		return dir, fmt.Errorf("open %q: %w", name, err)
	}
	if kind == unix.S_IFREG {
		err := m.set(fd, false)
		unix.Close(fd)
		return dir, err
	}
	unix.Close(dir)
	if err := m.set(fd, true); err != nil {
		return fd, fmt.Errorf("%q: %w", name, err)
	}
	if fd, err = m.directory(fd); err != nil {
		return fd, err
	}
	up, err := unix.Openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fd, err
	}
	unix.Close(fd)
	if err := unix.Fstat(up, &st); err == nil && (st.Dev != parent.Dev || st.Ino != parent.Ino) {
		return up, errors.New("its directories are being moved meanwhile")
	}
	return up, nil
}

const temporary = ".vsfleet-project~"

// renew replaces a file that is neither a regular one nor a directory by an equal one,
// which is born in the project of its directory.
func (m marker) renew(dir int, name string, st *unix.Stat_t) error {
	_ = unix.Unlinkat(dir, temporary, 0)
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		buf := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(dir, name, buf); err == nil {
			err = unix.Symlinkat(string(buf[:n]), dir, temporary)
		}
	} else if err = unix.Mknodat(dir, temporary, st.Mode, int(st.Rdev)); err == nil {
		err = unix.Fchmodat(dir, temporary, st.Mode&0o7777, 0) // whatever the umask
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(dir, temporary, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := copyAttributes(fmt.Sprintf("/proc/self/fd/%d/", dir), name, temporary); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(dir, temporary, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Renameat(dir, temporary, dir, name)
}

// copyAttributes copies extended attributes; overlayfs keeps the origin of a copied
// link there.
func copyAttributes(dir, from, to string) error {
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Llistxattr(dir+from, buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		size, err := unix.Lgetxattr(dir+from, name, value)
		if err == nil {
			err = unix.Lsetxattr(dir+to, name, value[:size], 0)
		}
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}
