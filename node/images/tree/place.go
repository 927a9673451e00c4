package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// A placer creates entries below a root that it holds by descriptor.
type placer struct {
	ctx   context.Context
	root  *os.File
	space freeSpace
	buf   []byte
	zeros []byte // as long

	// resolve are the openat2 flags for the directories of a path, in addition to
	// RESOLVE_NO_MAGICLINKS: RESOLVE_NO_SYMLINKS refuses an entry that goes
	// through a symbolic link, which no archiver writes and attackers do (an
	// archive with "x -> /etc" and then "x/passwd"); RESOLVE_IN_ROOT follows
	// such links, within the root.
	resolve uint64
	// makeParents: create directories that have no entry in the archive.
	makeParents bool
	// replace: an entry replaces an earlier one of the same name.
	replace bool
	// layers: as overlayfs stacks layers, where all that is no directory hides whatever
	// is below it.
	layers bool
	// changing: a file may have become shorter since its size was read.
	changing bool

	parent     *os.File // the directory of the last entry,
	parentPath string   // kept open since most entries follow a neighbour

	// The attributes that directories get once they are full: new files would inherit
	// a default ACL and change the time. Keyed by inode, since a link to a directory
	// is another path to it.
	directories map[inode]*entry
	mtime       int64 // of the entry being placed, for directories that it implies
	entries     int
}

func newPlacer(ctx context.Context, dir string, resolve uint64) (*placer, error) {
	root, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return &placer{
		ctx: ctx, root: root, space: freeSpace{root: root, dir: dir}, resolve: resolve,
		buf: make([]byte, 1<<18), zeros: make([]byte, 1<<18), directories: make(map[inode]*entry),
	}, nil
}

func (p *placer) close() {
	p.closeParent()
	p.root.Close()
}

// closeParent closes the cached parent directory: its path may now lead elsewhere.
func (p *placer) closeParent() {
	if p.parent != nil {
		p.parent.Close()
	}
	p.parent, p.parentPath = nil, ""
}

func (p *placer) open(path string, flags int) (*os.File, error) {
	if path == "" {
		path = "."
	}
	fd, err := unix.Openat2(int(p.root.Fd()), path, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: p.resolve | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err == unix.ELOOP {
		return nil, fmt.Errorf("%s goes through a symbolic link: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openParent opens the parent directory of name, and returns it with the last component.
// The placer keeps and closes the descriptor.
func (p *placer) openParent(name string) (dirfd int, base string, err error) {
	dir, base := path.Split(name)
	dir = path.Clean("/" + dir)[1:]
	if p.parent == nil || dir != p.parentPath {
		p.closeParent()
		f, err := p.open(dir, unix.O_PATH|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) && p.makeParents {
			if err := p.makeParent(dir); err != nil {
				return 0, "", err
			}
			p.closeParent()
			f, err = p.open(dir, unix.O_PATH|unix.O_DIRECTORY)
		}
		if err != nil {
			return 0, "", err
		}
		p.parent, p.parentPath = f, dir
		if dir != "" {
			// A directory that existed before keeps its time, so that equal archives
			// make equal trees.
			if err := p.remember(int(f.Fd()), &entry{path: dir}, false); err != nil {
				return 0, "", err
			}
		}
	}
	return int(p.parent.Fd()), base, nil
}

func (p *placer) makeParent(dir string) error {
	fd, base, err := p.openParent(dir)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(fd, base, 0o700)
	if err == nil {
		err = unix.Fchmodat(fd, base, 0o755, 0) // whatever the umask is
	}
	if err == nil {
		err = setTime(fd, base, p.mtime)
	}
	if err != nil && err != unix.EEXIST {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return nil
}

// remember records what the open directory gets at the end: the attributes of e if
// the archive has an entry for it, otherwise the time that it has now.
func (p *placer) remember(fd int, e *entry, explicit bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	key := inode{st.Dev, st.Ino}
	if !explicit {
		if p.directories[key] != nil {
			return nil
		}
		e.mtime = st.Mtim.Sec
	}
	p.directories[key] = e
	return nil
}

// place creates the entry; content is read for a file. What was read is passed to seen.
func (p *placer) place(e *entry, content io.Reader, seen func([]byte)) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if err := p.count(); err != nil {
		return err
	}
	if err := p.space.take(e.size); err != nil {
		return err
	}
	p.mtime = e.mtime
	var err error
	switch e.kind {
	case hardlink:
		err = p.hardlink(e)
	case directory:
		err = p.directory(e)
	default:
		err = p.leaf(e, content, seen)
	}
	return p.space.explain(err)
}

func (p *placer) hardlink(e *entry) error {
	dirfd, base, err := p.openParent(e.link)
	if err != nil {
		return err
	}
	// The cached parent changes below: hold this one.
	from, err := unix.FcntlInt(uintptr(dirfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, name, err := p.openParent(e.path)
	if err != nil {
		return err
	}
	if e.path == e.link {
		return fmt.Errorf("a hard link to itself")
	}
	if err := p.clear(to, name); err != nil {
		return err
	}
	if err := unix.Linkat(from, base, to, name, 0); err != nil {
		return fmt.Errorf("link to %s: %w", e.link, err)
	}
	return nil
}

// clear removes what is in the place of an entry.
func (p *placer) clear(dirfd int, name string) error {
	if !p.replace {
		return nil
	}
	err := unix.Unlinkat(dirfd, name, 0)
	if err == unix.EISDIR {
		err = unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
	}
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.ENOTEMPTY:
		if p.layers {
			return removeAt(dirfd, name)
		}
		return fmt.Errorf("a directory with files in it stands in the way")
	}
	return fmt.Errorf("remove the earlier one: %w", err)
}

func (p *placer) directory(e *entry) error {
	dirfd, base, err := p.openParent(e.path)
	if err != nil {
		return err
	}
	standing := mode(dirfd, base)
	if standing == unix.S_IFLNK && p.resolve&unix.RESOLVE_IN_ROOT != 0 && !p.layers {
		// A second archive with "bin/" must not cut off /bin -> usr/bin.
		if there, err := p.open(e.path, unix.O_PATH|unix.O_DIRECTORY); err == nil {
			return there.Close()
		}
	}
	if standing != unix.S_IFDIR || !p.replace {
		if err := p.clear(dirfd, base); err != nil {
			return err
		}
		if err := unix.Mkdirat(dirfd, base, 0o700); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(dirfd, base, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, int(e.uid), int(e.gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.mode); err != nil {
		return err
	}
	return p.remember(fd, e, true)
}

// mode returns the type bits of a name, 0 if it does not exist.
func mode(dirfd int, base string) uint32 {
	var st unix.Stat_t
	if unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0
	}
	return st.Mode & unix.S_IFMT
}

// leaf creates a file, a symbolic link or a fifo.
func (p *placer) leaf(e *entry, content io.Reader, seen func([]byte)) error {
	dirfd, base, err := p.openParent(e.path)
	if err != nil {
		return err
	}
	if err := p.clear(dirfd, base); err != nil {
		return err
	}
	switch e.kind {
	case file:
		if err := p.file(dirfd, base, e, content, seen); err != nil {
			return err
		}
	case symlink:
		if err := unix.Symlinkat(e.link, dirfd, base); err != nil {
			return err
		}
		if err := unix.Fchownat(dirfd, base, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	case fifo:
		if err := unix.Mknodat(dirfd, base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		if err := unix.Fchownat(dirfd, base, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if err := unix.Fchmodat(dirfd, base, e.mode, 0); err != nil {
			return err
		}
	case whiteout:
		if err := unix.Mknodat(dirfd, base, unix.S_IFCHR, 0); err != nil {
			return err
		}
	}
	return setTime(dirfd, base, e.mtime)
}

// maxEntries bounds what an archive or a copy may hold, and so the memory that is needed
// for the directories among it. A desktop of Debian's has 300000 entries.
var maxEntries = 2 << 20

// count refuses a tree of too many entries.
func (p *placer) count() error {
	if p.entries++; p.entries > maxEntries {
		return fmt.Errorf("more than %d files, directories and links: no image holds as many", maxEntries)
	}
	return nil
}

func (p *placer) file(dirfd int, base string, e *entry, content io.Reader, seen func([]byte)) error {
	// O_EXCL does not follow a link either.
	fd, err := unix.Openat(dirfd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.path)
	defer f.Close()
	n, err := copyBuffer(p.ctx, p.buf, content, func(b []byte) error {
		if seen != nil {
			seen(b)
		}
		if len(b) >= 4096 && bytes.Equal(b, p.zeros[:len(b)]) {
			_, err := f.Seek(int64(len(b)), io.SeekCurrent) // a hole, as lastlog is full of
			return err
		}
		_, err := f.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	if n != e.size && !p.changing {
		return io.ErrUnexpectedEOF
	}
	if err := f.Truncate(n); err != nil { // it may end with a hole
		return err
	}
	// In this order: chown(2) clears setuid and capabilities, and the
	// permissions of a group are the mask of an ACL.
	if err := f.Chown(int(e.uid), int(e.gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.mode); err != nil {
		return err
	}
	if err := setXattrs(fd, e.xattrs); err != nil {
		return err
	}
	return f.Close() // quota and network filesystems report a full disk here
}

func setXattrs(fd int, xs []xattr) error {
	for _, x := range xs {
		if err := unix.Fsetxattr(fd, x.name, []byte(x.value), 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", x.name, err)
		}
	}
	return nil
}

func setTime(dirfd int, base string, mtime int64) error {
	t := unix.Timespec{Sec: mtime}
	return unix.UtimesNanoAt(dirfd, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// finish sets the attributes that directories get once they are full.
func (p *placer) finish() error {
	for at, e := range p.directories {
		if err := p.finishDirectory(at, e); err != nil {
			return fmt.Errorf("finish %s: %w", e.path, p.space.explain(err))
		}
	}
	return nil
}

func (p *placer) finishDirectory(at inode, e *entry) error {
	dir, err := p.open(e.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if p.replace && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)) {
		return nil // a later entry of the archive replaced it
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if at != (inode{st.Dev, st.Ino}) {
		return nil // likewise
	}
	if err := setXattrs(int(dir.Fd()), e.xattrs); err != nil {
		return err
	}
	return setTime(int(dir.Fd()), ".", e.mtime)
}
