package tree

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Normalize turns a new installation into a tree: it removes device nodes and
// sockets, and gives the root directory to root with mode 0755, without which
// no user of the guest could reach anything.
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
