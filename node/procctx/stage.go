package procctx

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// What only the host's root can mount is attached on the stage, in a mount namespace of
// the host's that one thread has to itself, and the kernel propagates it into the
// guest's, which is a copy of that namespace: of a mount that comes into a less
// privileged mount namespace it locks the flags (lock_mnt_tree in fs/namespace.c), so
// that the guest's root can take neither nodev nor ro away, there or from a copy. The
// flags of a mount that the guest attaches itself it could change.
const stage = scratch + "/stage"

// The names on the stage; bind mounts have a number (stagedBind). They are relative: the
// stage is the working directory of the thread and of the guest's first process, which
// may not look into the directories above.
const (
	stagedRoot = "root"
	stagedSys  = "sys"
	stagedDev  = "dev"
)

func stagedBind(i int) string { return strconv.Itoa(i) }

// enterWorkshop gives the calling thread, which has to be one of its own, a mount
// namespace in which scratch is an empty directory.
func enterWorkshop() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("layers", scratch, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", scratch, err)
	}
	return nil
}

// makeStage makes the stage in the workshop, and goes there. The layers of a root are attached beside
// it, and so do not propagate.
func makeStage() error {
	if err := unix.Mkdir(stage, 0o700); err != nil {
		return fmt.Errorf("mkdir %s: %w", stage, err)
	}
	for _, flags := range []uintptr{unix.MS_BIND, unix.MS_SHARED} {
		if err := unix.Mount(stage, stage, "", flags, ""); err != nil {
			return fmt.Errorf("make %s a shared mount: %w", stage, err)
		}
	}
	if err := unix.Chdir(stage); err != nil {
		return fmt.Errorf("enter %s: %w", stage, err)
	}
	return nil
}

// putOnStage attaches a detached mount.
func putOnStage(mount *os.File, place string) error {
	var st unix.Stat_t
	err := unix.Fstat(int(mount.Fd()), &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		err = unix.Mkdir(place, 0o700)
	default:
		err = unix.Mknod(place, unix.S_IFREG|0o600, 0)
	}
	if err == nil {
		err = unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		return fmt.Errorf("attach %s: %w", mount.Name(), err)
	}
	return nil
}
