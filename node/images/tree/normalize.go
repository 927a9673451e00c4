package tree

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Normalize turns a new installation into a tree: it removes device nodes, sockets and
// attributes that control overlayfs, and gives the root directory to root with mode
// 0755, without which no user of the guest could reach anything.
func Normalize(ctx context.Context, dir string) error {
	root, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Chown(0, 0); err != nil {
		return err
	}
	if err := root.Chmod(0o755); err != nil {
		return err
	}
	return normalize(ctx, root)
}

func normalize(ctx context.Context, dir *os.File) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := dropAttributes(dir, e.Name()); err != nil {
			return fmt.Errorf("remove attributes of %s: %w", e.Name(), err)
		}
		switch {
		case e.Type()&(os.ModeDevice|os.ModeSocket) != 0:
			if err := unix.Unlinkat(int(dir.Fd()), e.Name(), 0); err != nil {
				return fmt.Errorf("remove device node %s: %w", e.Name(), err)
			}
		case e.IsDir():
			fd, err := unix.Openat(int(dir.Fd()), e.Name(), unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open %s: %w", e.Name(), err)
			}
			sub := os.NewFile(uintptr(fd), e.Name())
			err = normalize(ctx, sub)
			sub.Close()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// dropAttributes removes attributes by which overlayfs, of which the tree becomes a
// layer, would look for files elsewhere: in other directories, or in data that other
// images share.
func dropAttributes(dir *os.File, name string) error {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
	list := make([]byte, 1024)
	n, err := unix.Llistxattr(path, list)
	if err == unix.ERANGE {
		list = make([]byte, 65536) // XATTR_LIST_MAX
		n, err = unix.Llistxattr(path, list)
	}
	if err == unix.ENOTSUP || n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(attr, "trusted.") || strings.HasPrefix(attr, "user.overlay.") {
			if err := unix.Lremovexattr(path, attr); err != nil {
				return fmt.Errorf("%s: %w", attr, err)
			}
		}
	}
	return nil
}
