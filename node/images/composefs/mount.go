package composefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Mount returns a detached mount of a description, read-only. It goes with the last
// descriptor of it, unless it is attached somewhere or a layer of an overlay.
//
// Kernels from 6.12 on mount the file itself. Older ones, and those whose EROFS was
// built without CONFIG_EROFS_FS_BACKED_BY_FILE, get a loop device of it, which the kernel
// frees with the mount.
func Mount(ctx context.Context, image *os.File) (*os.File, error) {
	acl, err := readHeader(image)
	if err != nil {
		return nil, err
	}
	mount, err := mountFile(image, acl)
	switch {
	case err == nil:
		return mount, nil
	case errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("mount %s: %w: the kernel has no EROFS (its module is erofs)", image.Name(), err)
	}
	mount, loopErr := mountLoop(ctx, image, acl)
	if loopErr != nil {
		return nil, fmt.Errorf("mount %s: %w; by a loop device: %w", image.Name(), err, loopErr)
	}
	return mount, nil
}

// readHeader reports whether a description has POSIX ACLs.
func readHeader(image *os.File) (acl bool, err error) {
	var h [superOffset + 4]byte
	if _, err := image.ReadAt(h[:], 0); err != nil {
		return false, fmt.Errorf("%s: no description of an image: %w", image.Name(), err)
	}
	le := binary.LittleEndian
	if le.Uint32(h[0:]) != headerMagic || le.Uint32(h[4:]) != headerVersion || le.Uint32(h[superOffset:]) != magic {
		return false, fmt.Errorf("%s: no description of an image in composefs' format", image.Name())
	}
	return le.Uint32(h[8:])&flagACL != 0, nil
}

func mountFile(image *os.File, acl bool) (*os.File, error) {
	return mountErofs("/proc/self/fd/"+strconv.Itoa(int(image.Fd())), acl)
}

// mountErofs mounts the EROFS at a path. Without ACLs in it, the kernel need not look for
// them at every file that it opens.
func mountErofs(source string, acl bool) (*os.File, error) {
	options := []string{"source", source, "ro", ""}
	if !acl {
		options = append(options, "noacl", "")
	}
	return linux.NewMount("erofs", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, options...)
}

func mountLoop(ctx context.Context, image *os.File, acl bool) (*os.File, error) {
	device, err := attach(ctx, image)
	if err != nil {
		return nil, err
	}
	defer device.Close() // the mount has it
	return mountErofs(device.Name(), acl)
}

// attach returns a loop device with a file's content (loop(4)), read-only. The kernel
// frees it once nobody has it open.
func attach(ctx context.Context, image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for ctx.Err() == nil {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a loop device: %w", err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(image.Fd()), Size: blockSize,
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
		})
		if err == nil {
			return device, nil
		}
		device.Close()
		if err != unix.EBUSY { // somebody else's meanwhile
			return nil, fmt.Errorf("configure %s: %w", device.Name(), err)
		}
	}
	return nil, context.Cause(ctx)
}
