package procctx

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mount is a mount that a guest has in addition to those of every guest: a
// directory or file of the host (bind), or a tmpfs if Source is empty.
type Mount struct {
	Line      string // of the configuration that asks for it, for errors
	Source    string // a path of the host; the ids of its files are the guest's
	Place     string // path in the guest; its links are resolved inside the guest
	Recursive bool   // include what is mounted below Source
	Attrs     uint64 // MOUNT_ATTR_*
	Options   []string
}

// mountFlags are the options that any mount can have. Every mount is nodev.
var mountFlags = map[string]uint64{
	"nosuid": unix.MOUNT_ATTR_NOSUID, "noexec": unix.MOUNT_ATTR_NOEXEC, "noatime": unix.MOUNT_ATTR_NOATIME,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME,
}

// SetOptions reads the options of a line of fstab(5). The error names an option
// that the mount cannot have.
func (m *Mount) SetOptions(options []string) error {
	m.Attrs = unix.MOUNT_ATTR_NODEV
	for _, o := range options {
		key, _, valued := strings.Cut(o, "=")
		switch {
		case slices.Contains([]string{"", "defaults", "rw", "nodev", "suid", "exec", "async", "relatime", "auto", "nofail", "nouser", "bind", "rbind"}, o):
		case o == "ro" && m.Source != "":
			// The mount would be in the guest's mount namespace, whose root may remount it.
			return errors.New("a bind mount cannot be kept read-only from the guest's root: without ro it is writable")
		case o == "ro":
			m.Attrs |= unix.MOUNT_ATTR_RDONLY
		case mountFlags[o] != 0:
			m.Attrs |= mountFlags[o]
		case o == "dev":
			return errors.New("device nodes are dead in a guest: take dev out")
		case m.Source == "" && valued && slices.Contains([]string{"size", "mode", "nr_inodes", "nr_blocks", "uid", "gid"}, key):
			m.Options = append(m.Options, key, strings.TrimPrefix(o, key+"="))
		default:
			return fmt.Errorf("option %s is not known here: take it out", o)
		}
	}
	return nil
}

// Exposed reports whether users of the host can reach the source of a bind mount:
// the guest's root can leave a program there that is setuid to the host's root
// (CVE-2021-41091).
func (m Mount) Exposed() bool {
	for dir := path.Dir(m.Source); ; dir = path.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == "/" || dir == "." {
			return m.Source != ""
		}
	}
}

// open returns a detached clone of a bind mount's source, with the guest's ids. No
// part of its path may be a link: otherwise a guest that can write to a directory
// on the way could obtain any directory of the host.
func (m Mount) open(userns *os.File) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, m.Source, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s: %s leads over a symbolic link: give the path without (readlink -f)", m.Line, m.Source)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: open %s: %w", m.Line, m.Source, err)
	}
	defer unix.Close(fd)
	f, err := idmappedAt(fd, "", m.Source, userns, m.Attrs, m.Recursive)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Line, err)
	}
	return f, nil
}

// openBinds opens the sources of all bind mounts.
func openBinds(mounts []Mount, userns *os.File) (files []*os.File, err error) {
	for _, m := range mounts {
		if m.Source == "" {
			continue
		}
		f, err := m.open(userns)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// mounts attaches mounts at their places. The host's root is gone by then, and the
// kernel resolves paths as in a chroot: links lead to files of the guest.
func (s *script) mounts(mounts []Mount, sent []cell) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	s.refs = append(s.refs, how)
	for _, m := range mounts {
		var from cell
		if m.Source == "" {
			from = s.filesystem("tmpfs", int(m.Attrs), m.Options...)
		} else {
			from, sent = sent[0], sent[1:]
		}
		what := m.Place + " (" + m.Line + ")"
		place := s.open("find "+what, unix.SYS_OPENAT2, unix.AT_FDCWD, m.Place, unsafe.Pointer(how), int(unix.SizeofOpenHow))
		s.call("mount "+what, unix.SYS_MOVE_MOUNT, from, "", place, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	}
}
