package cgroup

import (
	"errors"
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
	return find(isMounted, linux.Mounts) // most hosts need no reading of the table
}

// MountIn finds in the mount table of a host what Mount finds on ours.
func MountIn(mounts []linux.Mount) (string, error) {
	return find(func(dir string) bool {
		found := false
		for _, m := range mounts {
			if m.Dir == dir {
				found = m.FSType == fsType // the last one hides those before it
			}
		}
		return found
	}, func() ([]linux.Mount, error) { return mounts, nil })
}

const fsType = "cgroup2"

// find is the rule: the first of the usual places, or else the first of the table.
func find(mounted func(dir string) bool, table func() ([]linux.Mount, error)) (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if mounted(dir) {
			return dir, nil
		}
	}
	mounts, err := table()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.FSType == fsType {
			return m.Dir, nil
		}
	}
	return "", ErrNotMounted
}

func isMounted(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// Controllers returns the controllers that can be used below a cgroup v2 mount:
// those that are neither left out of the kernel nor on cgroup v1.
func Controllers(mount string) ([]string, error) {
	have, err := linux.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	return strings.Fields(string(have)), err
}

// HasController reports whether a controller can be used below a cgroup v2 mount.
func HasController(mount, name string) (bool, error) {
	have, err := Controllers(mount)
	return slices.Contains(have, name), err
}
