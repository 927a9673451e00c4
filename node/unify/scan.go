package unify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/images/tree"
)

// Smallest is the size of the smallest file that is unified: the content of smaller ones is
// in descriptions themselves.
const Smallest = 65

// A File of a layer.
type File struct {
	*tree.Entry
	Inode Inode
	Bytes int64 // on the disk

	// root is the topmost directory above it that hides what is below the layer there;
	// without one it is the file itself.
	root string
}

// Inode tells a file and its state from all others.
type Inode struct {
	Dev, Ino uint64
	Size     int64
	Ctime    int64 // nanoseconds
	Mtime    int64
}

func inodeOf(st *unix.Stat_t) Inode {
	return Inode{st.Dev, st.Ino, st.Size, st.Ctim.Nano(), st.Mtim.Nano()}
}

// A Layer is what a guest has in its upper layer.
type Layer struct {
	Files   []File
	Skipped map[string]int // how many files stay, by the reason

	dir    *os.File
	opaque map[string]bool
	seen   map[string]bool // directories
	refers []string        // paths of the lower layer that entries at other places refer to
}

type scan struct {
	*Layer
	ctx      context.Context
	excludes Excludes
	dev      uint64
}

// Scan reads the layer in dir, which stays open until the layer is used no more.
func Scan(ctx context.Context, dir *os.File, excludes Excludes) (*Layer, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", dir.Name(), err)
	}
	l := &Layer{Skipped: map[string]int{}, dir: dir, opaque: map[string]bool{}, seen: map[string]bool{}}
	s := &scan{Layer: l, ctx: ctx, excludes: excludes, dev: st.Dev}
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer again.Close()
	if mark, err := attribute(int(dir.Fd()), opaqueAttr); err != nil || mark != "" {
		return nil, errors.Join(err, fmt.Errorf("%s: its root hides the image", dir.Name()))
	}
	if err := s.directory(again, place{lower: "", found: true}); err != nil {
		return nil, err
	}
	// What another entry refers to has to stay as it is.
	l.Files = slices.DeleteFunc(l.Files, func(f File) bool {
		used := slices.ContainsFunc(l.refers, func(at string) bool { return related(at, f.root) })
		if used {
			l.Skipped["renamed"]++
		}
		return used
	})
	return l, nil
}

// related reports whether one path is the other, or below it.
func related(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") || a == "" || b == ""
}

const (
	opaqueAttr   = "trusted.overlay.opaque"
	redirectAttr = "trusted.overlay.redirect"
	metacopyAttr = "trusted.overlay.metacopy"
)

// A place is where the walk is.
type place struct {
	path     string
	lower    string // where the lower layer has what is seen here
	found    bool   // lower is path: a file is seen if it is there in the lower layer
	root     string // see File
	excluded bool
}

func (s *scan) directory(dir *os.File, at place) error {
	s.seen[at.path] = true
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		sub := at
		sub.path, sub.lower = path.Join(at.path, name), path.Join(at.lower, name)
		sub.excluded = at.excluded || s.excludes.match(sub.path)
		if err := s.entry(dir, name, sub); err != nil {
			return fmt.Errorf("%s: %w", sub.path, err)
		}
	}
	return nil
}

func (s *scan) entry(dir *os.File, name string, at place) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return unlessGone(err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR || st.Dev != s.dev {
		return nil
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if err != nil {
		return unlessGone(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	redirect, err := attribute(fd, redirectAttr)
	if err != nil {
		return err
	}
	if redirect != "" {
		at.found = false
		at.lower = path.Join(path.Dir(at.lower), redirect)
		if redirect[0] == '/' {
			at.lower = path.Clean(redirect)
		}
		at.lower = strings.TrimPrefix(at.lower, "/")
		s.refers = append(s.refers, at.lower)
	}
	if kind == unix.S_IFREG {
		return s.file(f, at)
	}
	switch mark, err := attribute(fd, opaqueAttr); {
	case err != nil:
		return err
	case mark == "y":
		s.opaque[at.path] = true
		if at.root == "" {
			at.root = at.path
		}
	case mark != "": // of kernels to come
		at.found = false
	}
	return s.directory(f, at)
}

func unlessGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil // of a guest that runs
	}
	return err
}

// attribute returns an attribute's value, "" if the file has none.
func attribute(fd int, name string) (string, error) {
	value := make([]byte, unix.PathMax)
	n, err := unix.Fgetxattr(fd, name, value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read %s: %w", name, err)
	case n == 0:
		return "?", nil // there, with nothing in it
	}
	return string(value[:n]), nil
}

func (s *scan) file(f *os.File, at place) error {
	if meta, err := attribute(int(f.Fd()), metacopyAttr); err != nil || meta != "" {
		return err // it has no content of its own
	}
	e, st, why, err := tree.OwnFile(f, at.path)
	if err != nil {
		return err
	}
	switch {
	case at.excluded:
		why = "excluded"
	case why != "":
	case st.Size < Smallest:
		why = "small"
	case !at.found || !strings.Contains(at.path, "/"):
		why = "renamed" // or in the root
	case st.Nlink > 1:
		why = "linked"
	case special(int(f.Fd())):
		why = "attributes"
	case sparse(f, st.Size):
		why = "sparse"
	case openForWriting(int(f.Fd())):
		why = "open"
	}
	if why != "" {
		s.Skipped[why]++
		return nil
	}
	root := at.root
	if root == "" {
		root = at.path
	}
	s.Files = append(s.Files, File{Entry: e, Inode: inodeOf(&st), Bytes: st.Blocks * 512, root: root})
	return nil
}

// special reports whether a file has flags that say that it must not be changed or moved
// (ioctl_iflags(2)).
func special(fd int) bool {
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	return err == nil && flags&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 // the same bits
}

func sparse(f *os.File, size int64) bool {
	hole, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	return err == nil && hole < size
}

// openForWriting reports whether anybody has the file open for writing: the kernel
// then grants no lease on it (fcntl(2)).
func openForWriting(fd int) bool {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err != nil
}

// Open opens a file of the layer, if it is still the one that was read.
func (l *Layer) Open(f File) (*os.File, error) {
	file, err := openBelow(l.dir, f.Path(), unix.O_RDONLY|unix.O_NOATIME)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || inodeOf(&st) != f.Inode {
		file.Close()
		return nil, errors.Join(err, fmt.Errorf("%s has changed meanwhile", f.Path()))
	}
	return file, nil
}

// openBelow opens what is below dir, following no link, on the same filesystem.
func openBelow(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
