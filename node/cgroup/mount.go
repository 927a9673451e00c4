package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// ErrNotMounted means that no cgroup v2 hierarchy is mounted.
var ErrNotMounted = errors.New("no cgroup v2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup)")

// Mount finds the cgroup v2 hierarchy: /sys/fs/cgroup, on hybrid hosts
// /sys/fs/cgroup/unified, or wherever it is mounted.
func Mount() (string, error) {
	var st unix.Statfs_t
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	mounts, err := linux.Mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			return m.Dir, nil
		}
	}
	return "", ErrNotMounted
}

// Controllers returns the controllers that can be used below a cgroup v2 mount:
// those that are neither left out of the kernel nor on cgroup v1.
func Controllers(mount string) ([]string, error) {
	have, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	return strings.Fields(string(have)), err
}

// HasController reports whether a controller can be used below a cgroup v2 mount.
func HasController(mount, name string) (bool, error) {
	have, err := Controllers(mount)
	return slices.Contains(have, name), err
}
