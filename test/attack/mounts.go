package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountRows are about flags of mounts that the guest's root must not be able to lift:
// from a copy of the mount, by the new calls and by the old one. Nothing is changed
// where it succeeds.
func mountRows(*outside) []row {
	var rows []row
	for _, m := range []struct {
		name, dir string
		clear     uint64
		keep      uintptr // what remount(2) sets, so that the flag is the only one lifted
	}{
		{"nodev-of-root", "/", unix.MOUNT_ATTR_NODEV, 0},
		{"read-only-of-sys", "/sys", unix.MOUNT_ATTR_RDONLY, unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	} {
		rows = append(rows,
			row{"lift-" + m.name, "", func(*outside) (bool, string) { return liftFlag(m.dir, m.clear) }},
			row{"remount-" + m.name, "", func(*outside) (bool, string) { return remount(m.dir, m.keep) }})
	}
	return append(rows,
		row{"lift-read-only-of-bind", "locked", func(o *outside) (bool, string) { return liftFlag(o.locked, unix.MOUNT_ATTR_RDONLY) }},
		row{"remount-read-only-of-bind", "locked", func(o *outside) (bool, string) { return remount(o.locked, unix.MS_NODEV) }},
		row{"write-into-read-only-bind", "locked", func(o *outside) (bool, string) {
			name := filepath.Join(o.locked, "attack")
			err := os.WriteFile(name, nil, 0o600)
			os.Remove(name)
			return resultOf(err, "written")
		}},
		row{"share-mounts-with-host", "host-groups", sharedMounts},
		row{"mount-sysfs-writable", "", func(*outside) (bool, string) {
			return mounted(func(dir string) error { return unix.Mount("none", dir, "sysfs", 0, "") }, nil)
		}},
	)
}

// sharedMounts looks for a mount that is a peer of one of the host's, or receives what
// is mounted there: after the mount's root, its place and its options, mountinfo has fields like
// shared:1 and master:2, up to a dash.
func sharedMounts(o *outside) (bool, string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return true, err.Error()
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		for _, tag := range f[min(6, len(f)):] {
			kind, group, ok := strings.Cut(tag, ":")
			if !ok {
				break // the dash
			}
			if strings.Contains(o.groups, " "+group+" ") {
				return true, f[4] + " is " + kind + " with the host"
			}
		}
	}
	return false, "no mount of the host's propagates here, or from here"
}

// liftFlag takes a flag from a copy of a mount.
func liftFlag(dir string, flag uint64) (bool, string) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return false, err.Error()
	}
	defer unix.Close(fd)
	return resultOf(unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: flag}), "lifted")
}

// remount gives a copy of a mount other flags.
func remount(dir string, flags uintptr) (bool, string) {
	return mounted(func(to string) error { return unix.Mount(dir, to, "", unix.MS_BIND, "") }, func(to string) error {
		return unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RELATIME|flags, "")
	})
}

// mounted mounts onto a new directory, tries what a mount there allows, and unmounts.
func mounted(mount, try func(dir string) error) (bool, string) {
	dir, err := os.MkdirTemp("", "attack-")
	if err != nil {
		return false, err.Error()
	}
	defer os.Remove(dir)
	if err := mount(dir); err != nil {
		return false, err.Error()
	}
	if try != nil {
		err = try(dir)
	}
	if uerr := unix.Unmount(dir, unix.MNT_DETACH); uerr != nil {
		return true, fmt.Sprint("mounted on ", filepath.Base(dir), ", and not to be unmounted: ", uerr)
	}
	return resultOf(err, "done")
}
