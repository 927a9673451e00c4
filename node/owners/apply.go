package owners

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tmpName is a copy of a shared file until it takes that file's place. Only a killed
// call leaves one, and the next removes it.
const tmpName = ".vsnode-copy~"

// Apply does what the survey found. Free room for the copies of shared files is the
// caller's to check.
func (s Survey) Apply(ctx context.Context, root string) error {
	top, err := os.Open(root)
	if err != nil {
		return err
	}
	defer top.Close()
	if err := s.unshare(ctx, root, int(top.Fd())); err != nil {
		return err
	}
	for _, k := range s.Kept {
		if err := s.restore(int(top.Fd()), k); err != nil {
			return err
		}
	}
	err = walk(ctx, root, func(e entry) error { return s.chown(e) })
	if err != nil {
		return err
	}
	return sync(top)
}

func sync(top *os.File) error {
	if err := unix.Syncfs(int(top.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: top.Name(), Err: err}
	}
	return nil
}

// chown gives a file its plain owner, and its access lists plain ids.
func (s *Survey) chown(e entry) error {
	if !s.changes(e) {
		return nil
	}
	if s.Scheme.Kind == Shifted && !e.is(unix.S_IFLNK) {
		for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			if err := s.plainACL(e, name); err != nil {
				return err
			}
		}
	}
	uid, gid, _ := s.Scheme.inside(e.st.Uid, e.st.Gid)
	err := unix.Fchownat(e.fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EPERM) && e.is(unix.S_IFREG) { // immutable, as unified files were
		if err := makeMutable(e); err != nil {
			return err
		}
		err = unix.Fchownat(e.fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH)
	}
	if err != nil {
		return fmt.Errorf("give it to %d:%d: %w", uid, gid, err)
	}
	return nil
}

// restore gives a file its owner and then what the chown took. After a kill the chown
// may be done; the rest is done again.
func (s *Survey) restore(root int, k Kept) error {
	e, err := below(root, k.Path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(e.fd)
	if !e.is(unix.S_IFREG) || e.st.Ino != k.Inode && s.Shared == 0 {
		return nil // somebody has put another file there
	}
	if err := s.chown(e); err != nil {
		return fmt.Errorf("%s: %w", k.Path, err)
	}
	if err := unix.Chmod(e.at(), k.Mode); err != nil {
		return fmt.Errorf("%s: give it mode %o again: %w", k.Path, k.Mode, err)
	}
	if k.Caps != nil {
		if err := unix.Setxattr(e.at(), capsAttr, k.Caps, 0); err != nil {
			return fmt.Errorf("%s: give it its capabilities again: %w", k.Path, err)
		}
	}
	return nil
}

// plainACL maps the ids in an access list (linux/posix_acl_xattr.h: a version of 4
// bytes, then entries of tag, permissions and id).
func (s *Survey) plainACL(e entry, name string) error {
	acl, err := attribute(e, name)
	if err != nil || len(acl) < 4 {
		return err
	}
	const user, group, entrySize = 2, 8, 8
	changed := false
	for at := 4; at+entrySize <= len(acl); at += entrySize {
		tag, id := binary.LittleEndian.Uint16(acl[at:]), binary.LittleEndian.Uint32(acl[at+4:])
		if (tag == user || tag == group) && id>>16 == s.Scheme.Tag {
			binary.LittleEndian.PutUint32(acl[at+4:], id&0xffff)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	if err := unix.Setxattr(e.at(), name, acl, 0); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// batch is the number of files that are copied before they are synced to disk and take
// their places.
const batch = 256

// unshare makes files that have hard links outside the tree the tree's own, and files
// mutable. A copy is on disk before it takes the place of the file.
func (s *Survey) unshare(ctx context.Context, root string, top int) error {
	if s.Shared == 0 && s.Immutable == 0 {
		return nil
	}
	many := map[uint64]*linked{}
	var left []string
	err := walk(ctx, root, func(e entry) error {
		switch {
		case strings.HasPrefix(path.Base(e.path), tmpName):
			left = append(left, e.path)
		case e.st.Nlink > 1 && e.is(unix.S_IFREG):
			note(many, e, true)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range left {
		if err := at(top, name, func(dir int, base string) error { return unix.Unlinkat(dir, base, 0) }); err != nil {
			return err
		}
	}
	var all []*linked
	for _, l := range many {
		if l.links > l.seen {
			all = append(all, l)
		} else if err := s.mutable(top, l.paths[0]); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(all, batch) {
		if err := s.own(ctx, top, some); err != nil {
			return err
		}
	}
	return nil
}

func (s *Survey) mutable(top int, name string) error {
	e, err := below(top, name)
	if err != nil {
		return err
	}
	defer unix.Close(e.fd)
	if err := makeMutable(e); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// own copies files beside themselves, waits for the disk, and puts the copies in place
// of all their links in the tree.
func (s *Survey) own(ctx context.Context, top int, files []*linked) error {
	for i, l := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyFile(top, l.paths[0], tmp(i)); err != nil {
			return fmt.Errorf("copy %s, which other trees share: %w", l.paths[0], err)
		}
	}
	if err := unix.Syncfs(top); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	for i, l := range files {
		if err := takePlace(top, l.paths, tmp(i)); err != nil {
			return err
		}
	}
	return nil
}

// takePlace puts a copy, beside the first of the paths, in the place of all of them.
// The others' file stays immutable, if it was: it must not be while a link is replaced.
func takePlace(top int, paths []string, copied string) (err error) {
	old, err := below(top, paths[0])
	if err != nil {
		return err
	}
	defer unix.Close(old.fd)
	was, err := fileFlags(old, mutableToo)
	if err != nil {
		return fmt.Errorf("%s: %w", paths[0], err)
	}
	defer func() {
		if was&immutableFlag != 0 {
			_, rerr := fileFlags(old, func(int) *int { return &was })
			err = errors.Join(err, rerr)
		}
	}()
	for _, name := range paths[1:] {
		if err := replace(top, path.Join(path.Dir(paths[0]), copied), name, copied+"link"); err != nil {
			return err
		}
	}
	return at(top, paths[0], func(dir int, base string) error { return unix.Renameat(dir, copied, dir, base) })
}

func tmp(i int) string { return fmt.Sprint(tmpName, i) }

// replace puts a hard link of from in the place of to.
func replace(top int, from, to, tmp string) error {
	source, err := below(top, from)
	if err != nil {
		return err
	}
	defer unix.Close(source.fd)
	return at(top, to, func(dir int, base string) error {
		if err := unix.Linkat(unix.AT_FDCWD, source.at(), dir, tmp, unix.AT_SYMLINK_FOLLOW); err != nil {
			return err
		}
		return unix.Renameat(dir, tmp, dir, base)
	})
}

// at calls f with a descriptor of the directory of a path below top.
func at(top int, name string, f func(dir int, base string) error) error {
	dir, err := below(top, path.Dir(name))
	if err != nil {
		return err
	}
	defer unix.Close(dir.fd)
	if err := f(dir.fd, path.Base(name)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// copyFile copies a regular file to another name in its directory, with all that
// belongs to it. Where the filesystem can, the data is shared until one is written to.
func copyFile(top int, name, to string) error {
	e, err := below(top, name)
	if err != nil {
		return err
	}
	defer unix.Close(e.fd)
	in, err := os.OpenFile(e.at(), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	return at(top, name, func(dir int, _ string) (err error) {
		fd, err := unix.Openat(dir, to, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		out := os.NewFile(uintptr(fd), to)
		defer func() {
			if err = errors.Join(err, out.Close()); err != nil {
				err = errors.Join(err, unix.Unlinkat(dir, to, 0))
			}
		}()
		if unix.IoctlFileClone(fd, int(in.Fd())) != nil {
			if _, err := io.Copy(out, in); err != nil {
				return err
			}
		}
		return likewise(e, out)
	})
}

// likewise gives a copy the owner, mode, attributes and times of a file.
func likewise(e entry, out *os.File) error {
	fd := int(out.Fd())
	if err := unix.Fchown(fd, int(e.st.Uid), int(e.st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.st.Mode&0o7777); err != nil {
		return err
	}
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Listxattr(e.at(), buf)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:max(n, 0)]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value, err := attribute(e, name)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	times := []unix.Timespec{e.st.Atim, e.st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times, 0)
}
