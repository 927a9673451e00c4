package owners

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxDepth bounds the directories that are open at once.
const maxDepth = 500

// entry is a file of the tree, by a descriptor (O_PATH) of itself and of its directory.
type entry struct {
	dir  int    // of its directory
	fd   int    // O_PATH; open only while the file is visited
	name string // in its directory
	path string // from the tree's root, "." is that itself
	st   unix.Stat_t
}

// at returns a path of the host for what a descriptor cannot do itself.
func (e entry) at() string { return fmt.Sprintf("/proc/self/fd/%d", e.fd) }

func (e entry) is(format uint32) bool { return e.st.Mode&unix.S_IFMT == format }

// walk visits the tree's root and all that is below, directories before what is in them.
func walk(ctx context.Context, root string, visit func(entry) error) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	e := entry{dir: fd, fd: fd, name: ".", path: "."}
	if err := unix.Fstat(fd, &e.st); err != nil {
		return &os.PathError{Op: "stat", Path: root, Err: err}
	}
	return descend(ctx, e, e.st.Dev, 0, visit)
}

func descend(ctx context.Context, e entry, dev uint64, depth int, visit func(entry) error) error {
	if err := visit(e); err != nil {
		return fmt.Errorf("%s: %w", e.path, err)
	}
	if !e.is(unix.S_IFDIR) {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("%s: more than %d directories deep: move it up, or away", e.path, maxDepth)
	}
	fd, err := unix.Openat(e.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", e.path, err)
	}
	dir := os.NewFile(uintptr(fd), e.path)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := step(ctx, int(dir.Fd()), name, e.path, dev, depth, visit); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", e.path, err)
		}
	}
}

// step visits a file and, if it is a directory of the same filesystem, what is below.
func step(ctx context.Context, dir int, name, in string, dev uint64, depth int, visit func(entry) error) error {
	e, err := open(dir, name, in)
	if errors.Is(err, unix.ENOENT) {
		return nil // a name of ours, replaced meanwhile
	}
	if err != nil {
		return err
	}
	defer unix.Close(e.fd)
	if e.st.Dev != dev {
		return nil // something is mounted there
	}
	return descend(ctx, e, dev, depth+1, visit)
}

// open opens a name of a directory, which it does not follow.
func open(dir int, name, in string) (entry, error) {
	e := entry{dir: dir, name: name, path: name}
	if in != "." {
		e.path = in + "/" + name
	}
	var err error
	if e.fd, err = unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return e, fmt.Errorf("open %s: %w", e.path, err)
	}
	if err := unix.Fstat(e.fd, &e.st); err != nil {
		unix.Close(e.fd)
		return e, fmt.Errorf("stat %s: %w", e.path, err)
	}
	return e, nil
}

// below opens a file by its path from the root, whose directories are not links.
func below(root int, path string) (entry, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return entry{}, fmt.Errorf("open %s: %w", path, err)
	}
	e := entry{dir: -1, fd: fd, path: path}
	if err := unix.Fstat(fd, &e.st); err != nil {
		unix.Close(fd)
		return entry{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return e, nil
}
