package procctx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/order"
)

// Mount is a mount that a guest has in addition to those of every guest: a
// directory or file of the host (bind), or a tmpfs if Source is empty. The guest's root
// cannot change the flags of a bind mount (stage).
type Mount struct {
	Line      string // of the configuration that asks for it, for errors
	Source    string // a path of the host
	Place     string // path in the guest; its links are resolved inside the guest, and it is made if it is not there
	Recursive bool   // include what is mounted below Source
	Optional  bool   // no mount if Source is not there
	Attrs     uint64 // MOUNT_ATTR_*
	Options   []string
	// UIDs and GIDs say which ids of the source's files are which of the guest; nil: they
	// are the same, as on disk.
	UIDs, GIDs []IDRange
	// HostIDs leaves the ids of the files as the host has them, which in the guest
	// belong to nobody: FUSE takes idmapped mounts from kernel 6.12 on only.
	HostIDs bool
}

// openedMount is a mount whose source is open.
type openedMount struct {
	Mount
	source *os.File // nil: it has none
	file   bool     // the source is no directory
}

// An IDRange maps Count ids on disk, from Disk on, to those of the guest from Guest on.
type IDRange struct{ Disk, Guest, Count int }

// Exposed reports whether users of the host can reach the source of a bind mount that
// the guest can write to: its root can leave a program there that is setuid to the
// host's root (CVE-2021-41091).
func (m Mount) Exposed() bool {
	if m.Source == "" || m.Attrs&unix.MOUNT_ATTR_RDONLY != 0 {
		return false
	}
	if _, err := os.Lstat(m.Source); err != nil {
		return false
	}
	for dir := path.Dir(m.Source); ; dir = path.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == "/" || dir == "." {
			return true
		}
	}
}

// openSource opens the source of a bind mount. No part of its path may be a link:
// otherwise a guest that can write to a directory on the way could obtain any directory
// of the host.
func openSource(name string) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s leads over a symbolic link: give the path without (readlink -f)", name)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open %s: %w on the host: make it, or add nofail", name, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// CheckSource returns the error that a start would fail with for the source of a bind
// mount.
func CheckSource(name string) error {
	f, err := openSource(name)
	f.Close() // invalid if it is nil
	return err
}

// openSources opens the sources of bind mounts.
func openSources(mounts []Mount) (opened []openedMount, err error) {
	for _, mount := range mounts {
		m := openedMount{Mount: mount}
		if m.Source != "" {
			var st unix.Stat_t
			m.source, err = openSource(m.Source)
			if errors.Is(err, fs.ErrNotExist) && m.Optional {
				continue
			}
			if err == nil {
				err = unix.Fstat(int(m.source.Fd()), &st)
			}
			if err != nil {
				closeSources(append(opened, m))
				return nil, fmt.Errorf("%s: %w", m.Line, err)
			}
			m.file = st.Mode&unix.S_IFMT != unix.S_IFDIR
		}
		opened = append(opened, m)
	}
	return opened, nil
}

func closeSources(mounts []openedMount) {
	for _, m := range mounts {
		m.source.Close() // invalid while it is nil
	}
}

// binds returns a detached clone of each bind mount's source, with the guest's ids.
func binds(mounts []openedMount, userns *os.File, xid int) (files []*os.File, err error) {
	for _, m := range mounts {
		if m.source == nil {
			continue
		}
		ids := userns
		switch {
		case m.HostIDs:
			ids = nil
		case m.UIDs != nil:
			if ids, err = idNamespace(xid, m.UIDs, m.GIDs); err != nil {
				closeAll(files)
				return nil, fmt.Errorf("%s: idmap: %w", m.Line, err)
			}
		}
		f, err := idmappedAt(int(m.source.Fd()), "", m.Source, ids, m.Attrs, m.Recursive)
		if ids != userns {
			ids.Close() // invalid if it is nil
		}
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("%s: %w", m.Line, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// idNamespace makes a user namespace that maps ids on disk to those of a guest. It exists
// as long as the file and the mounts that use it.
func idNamespace(xid int, uids, gids []IDRange) (*os.File, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	defer ours.Close()
	// A process that waits until it is no longer needed.
	s := newScript()
	s.await(theirs)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, pipe, err := s.launch(&cloneArgs{flags: unix.CLONE_NEWUSER | unix.CLONE_VM, exitSignal: uint64(unix.SIGCHLD)})
	if err != nil {
		return nil, err
	}
	defer func() {
		unix.Kill(pid, unix.SIGKILL)
		wait(pid)
		unix.Close(pipe)
		runtime.KeepAlive(s)
	}()
	for name, ranges := range map[string][]IDRange{"uid_map": uids, "gid_map": gids} {
		var text strings.Builder
		for _, r := range ranges {
			fmt.Fprintln(&text, r.Disk, BaseID(xid)+r.Guest, r.Count)
		}
		if err := linux.WriteFile(linux.ProcFile(pid, name), []byte(text.String()), 0); err != nil {
			return nil, err
		}
	}
	return linux.Open(linux.ProcFile(pid, "ns/user"), os.O_RDONLY, 0)
}

// mounts attaches mounts at their places, from the outermost on. Places are resolved
// inside the guest's root: links lead to files of the guest. staged opens what is on
// the stage.
func (s *script) mounts(root cell, mounts []openedMount, staged func(string) cell) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	s.refs = append(s.refs, how)
	at := s.cell()
	find := func(what, place string) {
		s.call("find "+what, unix.SYS_OPENAT2, root, place, unsafe.Pointer(how), int(unix.SizeofOpenHow)).result = at
	}
	type bound struct {
		openedMount
		stage int
	}
	var list []bound
	binds := 0
	for _, m := range mounts {
		list = append(list, bound{m, binds})
		if m.Source != "" {
			binds++
		}
	}
	depth := func(m bound) int { return strings.Count(m.Place, "/") }
	order.Stable(list, func(a, b bound) int { return depth(a) - depth(b) })
	for _, m := range list {
		what := m.Place + " (" + m.Line + ")"
		parts := strings.Split(strings.TrimPrefix(m.Place, "/"), "/")
		for i, name := range parts {
			find(what, "/"+path.Join(parts[:i]...))
			if i == len(parts)-1 && m.file {
				s.call("make "+what, unix.SYS_MKNODAT, at, name, unix.S_IFREG|0o644, 0).or(unix.EEXIST).or(unix.EROFS)
			} else {
				s.call("make "+what, unix.SYS_MKDIRAT, at, name, 0o755).or(unix.EEXIST).or(unix.EROFS)
			}
		}
		find(what, m.Place)
		var from cell
		if m.Source == "" {
			from = s.filesystem("tmpfs", int(m.Attrs), m.Options...)
		} else {
			from = staged(stagedBind(m.stage))
		}
		s.call("mount "+what, unix.SYS_MOVE_MOUNT, from, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	}
}
