package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hostPath is a directory of a host.
type hostPath struct {
	path string // relative to the host's root
	mode fs.FileMode
}

// realDirs are on the filesystem of the lab's directory and not on the host's
// overlayfs: what vsnode mounts overlays and id-mapped mounts from.
var realDirs = []hostPath{
	{"var/lib/vservers", 0o755},
	{"var/lib/vsnode", 0o700},
	{"etc/vservers", 0o755},
}

// realDir is where a host's directory is kept: flat, so that a mode belongs to
// each and none to those above.
func realDir(hostDir, name string) string {
	return filepath.Join(hostDir, "real-"+strings.ReplaceAll(name, "/", "-"))
}

const (
	strict   = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	volatile = unix.MS_NOSUID | unix.MS_NODEV
)

// hostMounts are mounted in this order, in the host's root.
var hostMounts = []struct {
	point, fstype string
	flags         uintptr
	data          string
}{
	{"/proc", "proc", strict, ""},
	{"/sys", "sysfs", strict, ""},
	{"/sys/fs/cgroup", "cgroup2", strict, ""},
	{"/sys/fs/bpf", "bpf", strict, "mode=0700"},
	{"/dev", "tmpfs", unix.MS_NOSUID, "mode=0755"},
	{"/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,gid=5,mode=0620,ptmxmode=0666"},
	{"/dev/shm", "tmpfs", volatile, "mode=1777"},
	{"/dev/mqueue", "mqueue", strict, ""},
	{"/run", "tmpfs", volatile, "mode=0755"},
	{"/run/lock", "tmpfs", strict, "mode=1777"},
	{"/tmp", "tmpfs", volatile, "mode=1777"},
}

// enterRoot makes the host's root filesystem and makes it this process's. It
// is called in a new mount namespace with the host's directory as working
// directory; relative paths need no quoting in overlayfs's options.
func enterRoot() error {
	// Before anything: on most machines / is shared, and what we mount would
	// appear there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	clones := make([]int, len(realDirs))
	for i, dir := range realDirs {
		source := realDir(".", dir.path)
		fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return fmt.Errorf("open %s: %w", source, err)
		}
		defer unix.Close(fd)
		clones[i] = fd
	}
	if err := mountOverlay(); err != nil {
		return err
	}
	if err := unix.Chdir("root"); err != nil {
		return err
	}
	// pivot_root(2): with the same directory twice, the old root ends up on
	// top of the new one and is unmounted from there.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	// From here on every path is the host's own.
	for _, m := range hostMounts {
		if err := os.MkdirAll(m.point, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.point, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.point, err)
		}
	}
	for i, dir := range realDirs {
		if err := unix.MoveMount(clones[i], "", unix.AT_FDCWD, "/"+dir.path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount /%s: %w", dir.path, err)
		}
	}
	if err := makeDevices(); err != nil {
		return err
	}
	// As systemd has it on a real host, so that a guest's mounts which would
	// leak there leak here. The peer group is new: nothing leads out of it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

func mountOverlay() error {
	err := unix.Mount("overlay", "root", "overlay", 0, "lowerdir=/,upperdir=upper,workdir=work,redirect_dir=on")
	if err == nil {
		return nil
	}
	err = fmt.Errorf("mount the host's overlayfs over this machine's /: %w", err)
	var st unix.Statfs_t
	if unix.Statfs("/", &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		err = fmt.Errorf("%w (/ is an overlayfs itself, so this is a container: the kernel stacks two of them and no more; run the lab on the machine or in a virtual one)", err)
	}
	return err
}

// makeDevices fills /dev with what every system has. It is not a devtmpfs: a
// kernel has only one, and the host's changes would be the machine's.
func makeDevices() error {
	for _, d := range []struct {
		name         string
		major, minor uint32
	}{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	} {
		p := "/dev/" + d.name
		if err := unix.Mknod(p, unix.S_IFCHR, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return &os.PathError{Op: "mknod", Path: p, Err: err}
		}
		if err := os.Chmod(p, 0o666); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	return nil
}
