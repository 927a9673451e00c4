package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/order"
)

type inode struct{ dev, ino uint64 }

// A walker visits a tree in the manifest's order, by descriptors only.
type walker struct {
	ctx     context.Context
	first   map[inode]string // of files with several names: the one that comes first
	visit   func(e *entry, content io.Reader) error
	copying *copying // nil: the tree of an image
	own     *Own     // nil: an upper layer has all of the guest's files
	at      below    // where own has what is seen in the directory that is visited
}

// walk calls visit for each entry below dir; content is nil except for files.
func walk(ctx context.Context, dir string, visit func(e *entry, content io.Reader) error) error {
	root, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	w := &walker{ctx: ctx, first: make(map[inode]string), visit: visit}
	return w.directory(root, "")
}

func (w *walker) directory(dir *os.File, path string) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	missing := w.own.missing(w.at, names)
	for name := range missing {
		names = append(names, name)
	}
	slices.Sort(names)
	if path != "" {
		path += "/"
	}
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if f := missing[name]; f != nil {
			err = w.ownFile(f, path+name)
		} else {
			err = w.name(dir, name, path+name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ownFile visits a file of the guest's own tree, at the place where it is seen.
func (w *walker) ownFile(f *Entry, path string) error {
	c, err := w.own.content(f, nil)
	if err != nil {
		return err
	}
	defer c.file.Close()
	e := f.entry
	e.path = path
	e.without(ownMark)
	return w.visit(&e, c)
}

func (w *walker) name(dir *os.File, name, path string) error {
	if len(path) >= unix.PathMax {
		return fmt.Errorf("%s: a path of %d bytes, which no program can name", shorten(path), len(path))
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.gone(path, fmt.Errorf("stat %s: %w", shorten(path), err))
	}
	omit := w.copying.omits(path)
	if omit && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if err := checkOwner(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if isWhiteout(&st) && w.own.drops(w.at, name) {
		return nil
	}
	e := &entry{path: path, mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, mtime: st.Mtim.Sec}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		first, seen := w.first[inode{st.Dev, st.Ino}]
		if seen {
			return w.visit(&entry{kind: hardlink, path: path, link: first}, nil)
		}
		w.first[inode{st.Dev, st.Ino}] = path
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
	case unix.S_IFLNK:
		e.kind, e.mode = symlink, 0
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
		if err != nil {
			return w.gone(path, fmt.Errorf("read link %s: %w", shorten(path), err))
		}
		e.link = string(buf[:n])
		return w.visit(e, nil)
	case unix.S_IFIFO:
		e.kind = fifo
		return w.visit(e, nil)
	default:
		if w.copying != nil {
			return w.copying.node(w, e, &st)
		}
		return fmt.Errorf("%s is a device node or a socket, which no image holds", shorten(path))
	}

	// O_NONBLOCK: what was a file may be a pipe now.
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return w.gone(path, fmt.Errorf("open %s: %w", shorten(path), err))
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if e.xattrs, err = xattrs(fd, w.copying.keeps()); err != nil {
		return fmt.Errorf("read attributes of %s: %w", shorten(path), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		e.kind, e.size = file, st.Size
		if own := w.own.of(w.at, e); own != nil {
			c, err := w.own.content(own, f)
			if err != nil {
				return err
			}
			defer c.file.Close()
			e.size = own.size
			e.without(metacopy, redirect)
			return w.visit(e, c)
		}
		return w.visit(e, f)
	}
	e.kind = directory
	above := w.at
	w.at = w.own.enter(above, e)
	defer func() { w.at = above }()
	if err := w.visit(e, nil); err != nil || omit {
		return err
	}
	if enter, err := w.copying.enters(dir, f, path); err != nil || !enter {
		return err
	}
	return w.directory(f, path)
}

// gone returns nil if what is copied may change meanwhile, and a file has disappeared.
func (w *walker) gone(path string, err error) error {
	if w.copying == nil || !w.copying.Changing || !errors.Is(err, unix.ENOENT) {
		return err
	}
	for at, first := range w.first {
		if first == path {
			delete(w.first, at)
		}
	}
	return nil
}

// xattrs reads those attributes of an open file that are wanted, sorted by name.
func xattrs(fd int, wanted func(name string) bool) ([]xattr, error) {
	size, err := unix.Flistxattr(fd, nil)
	if err == unix.ENOTSUP || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(fd, list); err != nil {
		return nil, err
	}
	var found []xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		if !wanted(name) {
			continue
		}
		value := make([]byte, 65536) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found = append(found, xattr{name, string(value[:n])})
	}
	order.Func(found, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return found, nil
}
