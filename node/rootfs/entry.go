package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// Entry is what is at one path of a root: a regular file, a symbolic link, nothing, or
// something that cannot be put back.
type Entry struct {
	api.File        // of a regular file, the owner in numbers; else only the path
	Absent   bool   `json:"absent,omitempty"`
	Link     string `json:"link,omitempty"` // target of a symbolic link
	Lost     string `json:"lost,omitempty"` // why it cannot be put back: "a socket"
}

// Look returns what is at a path. A file with more than limit bytes is not read, and
// counts as lost.
func (r Dir) Look(name string, limit int64) (Entry, error) {
	e := Entry{File: api.File{Path: name}}
	dir, err := r.Open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		e.Absent = true
		return e, nil
	}
	if err != nil {
		return e, err
	}
	defer dir.Close()
	at, base := int(dir.Fd()), path.Base(name)
	var st unix.Stat_t
	err = unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		e.Absent = true
		return e, nil
	}
	if err != nil {
		return e, err
	}
	uid, gid := int(st.Uid)-r.Base, int(st.Gid)-r.Base
	e.Owner = fmt.Sprintf("%d:%d", uid, gid)
	switch kind := st.Mode & unix.S_IFMT; {
	case uid < 0 || uid > maxID || gid < 0 || gid > maxID:
		e.Lost = fmt.Sprintf("a file of user %d and group %d, who are not the guest's", st.Uid, st.Gid)
	case kind == unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(at, base, target)
		if err != nil {
			return e, err
		}
		e.Link = string(target[:n])
	case kind != unix.S_IFREG:
		e.Lost = kinds[kind]
	case st.Size > limit:
		e.Lost = fmt.Sprintf("a file of %d MiB", st.Size>>20)
	default:
		if e.Content, err = r.Read(name, limit); err != nil {
			return e, err
		}
		e.Mode, e.Digest = st.Mode&0o7777, api.FileDigest(e.Content)
	}
	return e, nil
}

// maxID is the greatest id of a guest's users and groups.
const maxID = 65535

var kinds = map[uint32]string{
	unix.S_IFDIR: "a directory", unix.S_IFIFO: "a pipe", unix.S_IFSOCK: "a socket", unix.S_IFCHR: "a device", unix.S_IFBLK: "a device",
}

// Differs reports whether a path is not what an earlier Look has found there, or a
// killed Write of it has left something to be removed.
func (r Dir) Differs(e Entry) (bool, error) {
	limit := int64(len(e.Content)) // a longer file differs
	if e.Lost != "" {
		limit = 0
	}
	now, err := r.Look(e.Path, limit)
	if err != nil || !now.same(e) {
		return true, err
	}
	beside, err := r.Look(path.Join(path.Dir(e.Path), besideName(path.Base(e.Path))), 0)
	return !beside.Absent, err
}

// Restore makes a path what an earlier Look has found there, unless that is lost.
func (r Dir) Restore(e Entry) error {
	switch {
	case e.Absent:
		return r.remove(e.Path)
	case e.Link != "":
		return r.link(e)
	}
	return r.Write(e.File)
}

func (e Entry) same(other Entry) bool {
	return e.Absent == other.Absent && e.Link == other.Link && e.Lost == other.Lost &&
		(e.Absent || e.Lost != "" || e.Owner == other.Owner && e.Mode == other.Mode && bytes.Equal(e.Content, other.Content))
}

func (r Dir) remove(name string) error {
	dir, err := r.Open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, base := range []string{besideName(path.Base(name)), path.Base(name)} {
		if err := unix.Unlinkat(int(dir.Fd()), base, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// link makes a symbolic link, beside its place first.
func (r Dir) link(e Entry) error {
	uid, gid, err := r.owner(e.Owner)
	if err != nil {
		return err
	}
	dir, err := r.directory(path.Dir(e.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	at, name := int(dir.Fd()), path.Base(e.Path)
	beside := besideName(name)
	if err := unix.Unlinkat(at, beside, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", beside, err)
	}
	if err := unix.Symlinkat(e.Link, at, beside); err != nil {
		return err
	}
	if err := unix.Fchownat(at, beside, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("give it to %s: %w", e.Owner, err)
	}
	return unix.Renameat(at, beside, at, name)
}
