package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// Dir is a root filesystem. The kernel resolves all paths inside it.
type Dir struct {
	Root *os.File // may be opened with O_PATH
	Base int      // offset from ids inside the root to ids of its files
	At   string   // the directory that it stands for: paths begin with it; "" is /
	// Mounts below it may be entered: it is the host's own root.
	Mounts bool
}

// Open opens a file or directory below the root. Links are resolved inside, and
// mounts of the guest are not entered: a guest may mount a filesystem that it serves
// itself (FUSE) and make us wait forever.
func (r Dir) Open(name string, flags uint64) (*os.File, error) {
	f, err := r.open(name, flags)
	if errors.Is(err, unix.EXDEV) {
		return nil, errors.New("another filesystem is mounted there")
	}
	return f, err
}

func (r Dir) open(name string, flags uint64) (*os.File, error) {
	name = strings.TrimPrefix(strings.TrimPrefix(name, r.At), "/")
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !r.Mounts {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	fd, err := unix.Openat2(int(r.Root.Fd()), name, &how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Read returns the first limit bytes, at most, of a regular file.
func (r Dir) Read(name string, limit int64) ([]byte, error) {
	// Opening a pipe or a device could block: look before opening.
	found, err := r.Open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(found.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("it is not a regular file")
	}
	// O_NONBLOCK: the guest may hold a lease on the file (fcntl(2)).
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", found.Fd()), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}

// Stat describes a file. A link at the end of the path is not followed.
func (r Dir) Stat(name string) (info api.FileInfo, err error) {
	dir, err := r.Open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return info, nil
	}
	if err != nil {
		return info, err
	}
	defer dir.Close()
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return info, nil
	}
	if err != nil {
		return info, err
	}
	info = api.FileInfo{
		Exists: true, Kind: "other", Bytes: st.Size, Mode: st.Mode & 0o7777,
		UID: int(st.Uid) - r.Base, GID: int(st.Gid) - r.Base,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		info.Kind = "directory"
	case unix.S_IFLNK:
		info.Kind = "link"
	case unix.S_IFREG:
		info.Kind = "file"
		if st.Size > api.MaxFile {
			break
		}
		content, err := r.Read(name, api.MaxFile)
		if err != nil {
			return info, err
		}
		info.Digest = api.FileDigest(content)
	}
	return info, nil
}

// Compare describes how a file differs from want ("" if it does not) and, if
// content is set, returns what it holds.
func (r Dir) Compare(want api.File, content bool) (differs string, have []byte, err error) {
	if want.Absent {
		return r.compareAbsent(want.Path, content)
	}
	uid, gid, err := r.owner(want.Owner)
	if err != nil {
		return "", nil, err
	}
	dir, err := r.Open(path.Dir(want.Path), unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		return "it is not there", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	defer dir.Close()
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), path.Base(want.Path), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "it is not there", nil, nil
	case err != nil:
		return "", nil, err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return "", nil, errors.New("a directory is in its place: remove it first")
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "it is not a regular file", nil, nil
	}
	have, err = r.Read(want.Path, api.MaxFile+1)
	if err != nil {
		return "", nil, err
	}
	var list []string
	if api.FileDigest(have) != want.Digest {
		list = append(list, "content")
	}
	if mode := st.Mode & 0o7777; mode != want.Mode {
		list = append(list, fmt.Sprintf("mode %04o → %04o", mode, want.Mode))
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		list = append(list, fmt.Sprintf("owner %d:%d → %s", int(st.Uid)-r.Base, int(st.Gid)-r.Base, want.Owner))
	}
	if !content || len(have) > api.MaxFile {
		have = nil
	}
	return strings.Join(list, ", "), have, nil
}

// compareAbsent is Compare for a file that should not be there. The content of one that
// only its owner may read is secret.
func (r Dir) compareAbsent(name string, content bool) (differs string, have []byte, err error) {
	e, err := r.Look(name, api.MaxFile)
	if err != nil || e.Absent {
		return "", nil, err
	}
	if content && e.Mode&0o044 != 0 {
		have = e.Content
	}
	return "it is to be removed", have, nil
}

// owner looks up "user:group" in the guest and returns ids of the root's files.
func (r Dir) owner(owner string) (uid, gid int, err error) {
	user, group, _ := strings.Cut(owner, ":")
	if uid, err = r.id("etc/passwd", "user", user); err != nil {
		return 0, 0, err
	}
	gid, err = r.id("etc/group", "group", group)
	return r.Base + uid, r.Base + gid, err
}

// maxDatabase limits the bytes that are read of passwd and group.
const maxDatabase = 4 << 20

func (r Dir) id(file, kind, name string) (int, error) {
	if id, err := strconv.ParseUint(name, 10, 16); err == nil {
		return int(id), nil
	}
	if name == "root" {
		return 0, nil
	}
	data, err := r.Read(file, maxDatabase)
	if err != nil {
		return 0, fmt.Errorf("read /%s: %w", file, err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		if id, err := strconv.ParseUint(f[2], 10, 16); err == nil {
			return int(id), nil
		}
	}
	return 0, fmt.Errorf("there is no %s %q in it: install what makes it, or give the number", kind, name)
}

// besideName is the name under which a file is written before it is renamed. If it
// exists, a killed call has left it.
func besideName(name string) string { return "." + name + ".vsfleet~" }

// Write writes a file completely or not at all. Missing directories are made.
func (r Dir) Write(f api.File) (err error) {
	if f.Absent {
		return r.remove(f.Path)
	}
	uid, gid, err := r.owner(f.Owner)
	if err != nil {
		return err
	}
	dir, err := r.directory(path.Dir(f.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return place(int(dir.Fd()), path.Base(f.Path), uid, gid, f.Mode, func(file *os.File) error {
		_, err := file.Write(f.Content)
		return err
	})
}

// place puts a file that write writes into a directory: all of it, or nothing.
func place(at int, name string, uid, gid int, mode uint32, write func(*os.File) error) (err error) {
	beside := besideName(name)
	if err := unix.Unlinkat(at, beside, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", beside, err)
	}
	fd, err := unix.Openat(at, beside, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), beside)
	defer func() {
		file.Close()
		if err != nil {
			_ = unix.Unlinkat(at, beside, 0)
		}
	}()
	if err := write(file); err != nil {
		return err
	}
	// The owner first: chown(2) clears set-id bits.
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return fmt.Errorf("give it to %d:%d: %w", uid, gid, err)
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return unix.Renameat(at, beside, at, name)
}

// directory opens a directory below the root and makes it, with its parents, if it
// is missing.
func (r Dir) directory(name string) (*os.File, error) {
	dir, err := r.Open(name, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || name == "/" {
		return dir, err
	}
	parent, err := r.directory(path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	err = unix.Mkdirat(int(parent.Fd()), path.Base(name), 0o755)
	if errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("%s is a link that leads nowhere", name)
	}
	if err == nil {
		err = unix.Fchownat(int(parent.Fd()), path.Base(name), r.Base, r.Base, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return r.Open(name, unix.O_PATH|unix.O_DIRECTORY)
}
