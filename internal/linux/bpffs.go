package linux

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// BPFFS is where systemd mounts the filesystem of pinned BPF objects.
const BPFFS = "/sys/fs/bpf"

// MountBPF mounts bpffs where systemd does, unless it is mounted already.
func MountBPF() error {
	var st unix.Statfs_t
	if err := unix.Statfs(BPFFS, &st); err != nil {
		return fmt.Errorf("look for bpffs: %w", &fs.PathError{Op: "statfs", Path: BPFFS, Err: err})
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", BPFFS, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", BPFFS, err)
	}
	return nil
}
