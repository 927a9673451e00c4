package procctx

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Open returns the root filesystem of a guest that does not run, as a detached
// mount with the ids that the guest sees. The caller holds the guest's lock: two
// overlays that use one upper layer at the same time are undefined behavior.
func (r Root) Open(ctx context.Context) (*os.File, error) {
	if r.Image != "" {
		if err := os.MkdirAll(scratch, 0o700); err != nil {
			return nil, err
		}
		return linux.OnOwnThread(func() (*os.File, error) {
			if err := enterWorkshop(); err != nil {
				return nil, err
			}
			return r.overlay(ctx, nil, 0)
		})
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, r.Upper, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", r.Upper, err)
	}
	return os.NewFile(uintptr(fd), r.Upper), nil
}

// Names returns a directory with all that the image has: its names, links and attributes,
// and the content of files only if it is a plain tree.
func (r Root) Names(ctx context.Context) (*os.File, error) {
	if _, ok := r.Described(); ok {
		return layer{description: r.Image}.mount(ctx, nil)
	}
	fd, err := unix.Open(r.Image, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: r.Image, Err: err}
	}
	return os.NewFile(uintptr(fd), r.Image), nil
}

// AsGuestRoot calls f on a thread that acts on files as the root of a running
// guest, whose root filesystem is an idmapped mount that accepts the guest's ids
// only. On the host these begin at BaseID(xid).
func AsGuestRoot(xid int, f func() error) error {
	_, err := linux.OnOwnThread(func() (struct{}, error) {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // the umask is the thread's own
			return struct{}{}, fmt.Errorf("unshare umask: %w", err)
		}
		unix.Umask(0)
		if err := actAsMounter(xid); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, f()
	})
	return err
}
