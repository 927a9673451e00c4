package owners

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Survey is what has to be done to a tree.
type Survey struct {
	Scheme  Scheme `json:"scheme"`
	Files   int    `json:"files"`   // that are not plain
	Foreign int    `json:"foreign"` // files with other ids, which stay as they are
	Example string `json:"example,omitempty"`
	// Kept are the files that chown(2) takes something from.
	Kept []Kept `json:"kept,omitempty"`
	// Shared files have hard links outside the tree.
	Shared      int   `json:"shared,omitempty"`
	SharedBytes int64 `json:"sharedBytes,omitempty"`
	Free        int64 `json:"-"` // room on the filesystem
	Immutable   int   `json:"immutable,omitempty"`
}

// Kept is a file whose setuid or setgid bit or capabilities have to outlast its chown.
type Kept struct {
	Path  string `json:"path"`
	Inode uint64 `json:"inode"`
	Mode  uint32 `json:"mode"`
	Caps  []byte `json:"caps,omitempty"` // security.capability
}

// maxKept bounds the list, which is kept on disk.
const maxKept = 100_000

const capsAttr = "security.capability"

// linked is a file with several hard links.
type linked struct {
	links, seen int
	bytes       int64
	paths       []string
}

// Look reads a tree. tags are those that the guest may have had.
func Look(ctx context.Context, root string, tags ...uint32) (Survey, error) {
	seen, examples := map[upper]int{}, map[upper]string{}
	many := map[uint64]*linked{}
	var s Survey
	err := walk(ctx, root, func(e entry) error {
		up := upper{e.st.Uid >> 16, e.st.Gid >> 16}
		if seen[up]++; examples[up] == "" {
			examples[up] = e.path
		}
		if e.st.Nlink > 1 && e.is(unix.S_IFREG) {
			note(many, e, false)
			if on, err := immutable(e); err != nil {
				return err
			} else if on {
				s.Immutable++
			}
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	s.Scheme = guess(seen, tags)
	for up, n := range seen {
		switch _, _, ok := s.Scheme.inside(up.uid<<16, up.gid<<16); {
		case up == upper{}:
		case ok:
			s.Files += n
		default:
			s.Foreign += n
			s.Example = examples[up]
		}
	}
	for _, l := range many {
		if l.links > l.seen {
			s.Shared++
			s.SharedBytes += l.bytes
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return s, fmt.Errorf("look for room in %s: %w", root, err)
	}
	s.Free = int64(fs.Bavail) * fs.Frsize
	if s.Files == 0 {
		return s, nil
	}
	return s, s.keep(ctx, root)
}

// keep lists the files that lose something by chown.
func (s *Survey) keep(ctx context.Context, root string) error {
	return walk(ctx, root, func(e entry) error {
		if !e.is(unix.S_IFREG) || !s.changes(e) {
			return nil
		}
		caps, err := attribute(e, capsAttr)
		if err != nil {
			return err
		}
		if e.st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 && caps == nil {
			return nil
		}
		if len(s.Kept) == maxKept {
			return fmt.Errorf("more than %d files are setuid or have capabilities", maxKept)
		}
		s.Kept = append(s.Kept, Kept{e.path, e.st.Ino, e.st.Mode & 0o7777, caps})
		return nil
	})
}

// changes reports whether the file is not plain and of the tree's scheme.
func (s *Survey) changes(e entry) bool {
	uid, gid, ok := s.Scheme.inside(e.st.Uid, e.st.Gid)
	return ok && (uid != e.st.Uid || gid != e.st.Gid)
}

// note counts a hard link; paths: and remembers where it is.
func note(many map[uint64]*linked, e entry, paths bool) {
	l := many[e.st.Ino]
	if l == nil {
		l = &linked{links: int(e.st.Nlink), bytes: e.st.Blocks * 512}
		many[e.st.Ino] = l
	}
	l.seen++
	if paths {
		l.paths = append(l.paths, e.path)
	}
}

// attribute returns an extended attribute of a file, or nil.
func attribute(e entry, name string) ([]byte, error) {
	buf := make([]byte, 64<<10) // XATTR_SIZE_MAX
	n, err := unix.Getxattr(e.at(), name, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return buf[:n], nil
}

// The flag of chattr(1) that Linux-VServer set on unified files, so that writing to one
// made a copy of it; without its kernel nobody can write to it.
const immutableFlag = 0x10 // FS_IMMUTABLE_FL

func immutable(e entry) (bool, error) {
	flags, err := fileFlags(e, func(int) *int { return nil })
	return flags&immutableFlag != 0, err
}

// makeMutable takes the flag away.
func makeMutable(e entry) error {
	_, err := fileFlags(e, mutableToo)
	return err
}

func mutableToo(flags int) *int {
	if flags&immutableFlag == 0 {
		return nil
	}
	flags &^= immutableFlag
	return &flags
}

// fileFlags returns the flags of a regular file and sets those that change returns.
func fileFlags(e entry, change func(int) *int) (int, error) {
	fd, err := unix.Open(e.at(), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return 0, nil // the filesystem has none
	}
	if err != nil {
		return 0, fmt.Errorf("read its flags: %w", err)
	}
	if to := change(flags); to != nil {
		if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, *to); err != nil {
			return flags, fmt.Errorf("make it mutable: %w", err)
		}
	}
	return flags, nil
}
