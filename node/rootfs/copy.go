package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Trees are copied as tar streams of regular files, directories and symbolic links. The
// first entry is what is copied; all others are below it. Names are relative and clean.

// maxDepth bounds the directories below what is copied: each level takes a descriptor.
const maxDepth = 100

// Put takes a tree from a tar stream and puts it at dest, or into dest if that is a
// directory. Files are owned by owner ("user:group"); if that is empty, by the owner of
// the file that they replace, else by root. A file is replaced completely or not at all;
// directories that are there are filled.
func (r Dir) Put(ctx context.Context, dest, owner string, stream io.Reader) error {
	p := putter{Dir: r, uid: -1}
	if owner != "" {
		var err error
		if p.uid, p.gid, err = r.owner(owner); err != nil {
			return err
		}
	}
	in := tar.NewReader(stream)
	for first := true; ; first = false {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := in.Next()
		if err == io.EOF && !first {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if name == "" || name == "." || path.IsAbs(name) || path.Clean(name) != name || name == ".." || strings.HasPrefix(name, "../") {
			return fmt.Errorf("the stream has the name %q", h.Name)
		}
		top, rest, _ := strings.Cut(name, "/")
		if first {
			if p.at, err = r.destination(dest, top, h.Typeflag == tar.TypeDir); err != nil {
				return err
			}
		}
		if err := p.put(path.Join(p.at, rest), h, in); err != nil {
			return fmt.Errorf("%s: %w", path.Join(p.at, rest), err)
		}
	}
}

// destination returns where something of this name goes.
func (r Dir) destination(dest, name string, isDir bool) (string, error) {
	found, err := r.Open(dest, unix.O_PATH|unix.O_DIRECTORY)
	switch {
	case err == nil:
		found.Close()
		return path.Join(dest, name), nil
	case errors.Is(err, unix.ENOTDIR) && !isDir && !strings.HasSuffix(dest, "/"):
		return dest, nil // a file, to be replaced
	case errors.Is(err, unix.ENOENT) && (isDir || !strings.HasSuffix(dest, "/")):
		return path.Clean(dest), nil
	}
	return "", fmt.Errorf("%s: %w", dest, err)
}

// putter puts the entries of one stream.
type putter struct {
	Dir
	uid, gid int    // -1: of what is replaced
	at       string // where the first entry goes
}

func (p *putter) put(name string, h *tar.Header, content io.Reader) error {
	parent, err := p.Open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer parent.Close()
	at, base, mode := int(parent.Fd()), path.Base(name), uint32(h.Mode&0o777)
	uid, gid, was := p.Base, p.Base, uint32(0)
	var st unix.Stat_t
	switch err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == nil:
		uid, gid, was = int(st.Uid), int(st.Gid), st.Mode&unix.S_IFMT
	case !errors.Is(err, unix.ENOENT):
		return err
	}
	if p.uid >= 0 {
		uid, gid = p.uid, p.gid
	}
	switch {
	case was == unix.S_IFDIR && h.Typeflag == tar.TypeDir:
		return nil // it keeps its owner and mode
	case was == unix.S_IFDIR:
		return errors.New("a directory is in its place: remove it first")
	case was != 0 && h.Typeflag == tar.TypeDir:
		return errors.New("a file is in the place of a directory: remove it first")
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := unix.Mkdirat(at, base, 0o700); err != nil {
			return err
		}
		if err := unix.Fchownat(at, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return p.chmod(name, mode)
	case tar.TypeSymlink:
		beside := besideName(base)
		if err := unix.Unlinkat(at, beside, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := unix.Symlinkat(h.Linkname, at, beside); err != nil {
			return err
		}
		if err := unix.Fchownat(at, beside, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return unix.Renameat(at, beside, at, base)
	case tar.TypeReg:
		return place(at, base, uid, gid, mode, func(f *os.File) error {
			if _, err := io.Copy(f, content); err != nil {
				return err
			}
			when := unix.NsecToTimeval(h.ModTime.UnixNano())
			return unix.Futimes(int(f.Fd()), []unix.Timeval{when, when})
		})
	}
	return fmt.Errorf("a copy holds files, directories and links, not entries of kind %q", h.Typeflag)
}

// chmod sets the mode of a directory that was just made. It is opened again, without
// following a link that may have been put in its place.
func (p *putter) chmod(name string, mode uint32) error {
	dir, err := p.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Chmod(os.FileMode(mode))
}

// Get writes what is at a path as a tar stream. If the path itself is a link, what it
// leads to is copied. Pipes, sockets, devices and other filesystems are left out; note
// is called for each.
func (r Dir) Get(ctx context.Context, name string, stream io.Writer, note func(string)) error {
	found, err := r.Open(name, unix.O_PATH)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer found.Close()
	base := path.Base(path.Clean("/" + name))
	if base == "/" {
		base = "root"
	}
	g := getter{ctx: ctx, out: tar.NewWriter(stream), base: r.Base, note: note}
	if err := g.entry(found, base, 0); err != nil {
		return err
	}
	return g.out.Close()
}

// getter writes the entries of one stream.
type getter struct {
	ctx  context.Context
	out  *tar.Writer
	base int
	note func(string)
}

// entry writes what an O_PATH descriptor is of, and what is below it.
func (g *getter) entry(found *os.File, name string, depth int) error {
	if g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(found.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o777), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
		Uid: max(0, int(st.Uid)-g.base), Gid: max(0, int(st.Gid)-g.base),
	}
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if err := g.out.WriteHeader(h); err != nil {
			return err
		}
		return g.directory(found, name, depth)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(found.Fd()), "", target)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(target[:n])
		return g.out.WriteHeader(h)
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		return g.file(found, h)
	default:
		g.note(name + ": " + kinds[kind] + ", left out")
		return nil
	}
}

// file writes a regular file. If it shrinks meanwhile, the rest is zeros.
func (g *getter) file(found *os.File, h *tar.Header) error {
	// O_NONBLOCK: the guest may hold a lease on the file (fcntl(2)).
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", found.Fd()), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	if err := g.out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(g.out, io.LimitReader(f, h.Size))
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if n < h.Size {
		g.note(h.Name + ": it became shorter while it was read")
		_, err = io.CopyN(g.out, zeros{}, h.Size-n)
	}
	return err
}

func (g *getter) directory(found *os.File, name string, depth int) error {
	if depth == maxDepth {
		return fmt.Errorf("%s: more than %d directories, one below the other", name, maxDepth)
	}
	fd, err := unix.Openat(int(found.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	for {
		// A guest can fill a directory with any number of names.
		names, err := dir.Readdirnames(1000)
		for _, n := range names {
			child, err := Dir{Root: dir}.open(n, unix.O_PATH|unix.O_NOFOLLOW)
			switch {
			case errors.Is(err, unix.ENOENT):
				continue // it is gone
			case errors.Is(err, unix.EXDEV):
				g.note(name + "/" + n + ": another filesystem, left out")
				continue
			case err != nil:
				return fmt.Errorf("%s/%s: %w", name, n, err)
			}
			err = g.entry(child, name+"/"+n, depth+1)
			child.Close()
			if err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
