// Package quotatest makes filesystems for tests, in files on loop devices.
package quotatest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Mount mounts a new filesystem, ext4 or xfs, with the given options until the test
// ends. bounds is whether it was asked for project quotas and this kernel has them for
// it; without, the filesystem is mounted without.
func Mount(t *testing.T, fstype string, quotas bool) (dir string, bounds bool) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(400 << 20); err != nil { // xfs wants 300 MiB
		t.Fatal(err)
	}
	mkfs := []string{"mkfs.ext4", "-q", "-F", image}
	if fstype == "xfs" {
		mkfs = []string{"mkfs.xfs", "-q", image}
	} else if quotas {
		mkfs = append(mkfs, "-O", "project,quota", "-E", "quotatype=prjquota")
	}
	if out, err := exec.Command(mkfs[0], mkfs[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s (apt-get install e2fsprogs xfsprogs)", mkfs, err, out)
	}
	device := loop(t, f)
	dir = t.TempDir()
	if quotas {
		if unix.Mount(device, dir, fstype, 0, "prjquota") == nil {
			unmounted(t, dir)
			return dir, true
		}
		if fstype == "ext4" { // a kernel without quotas mounts none that has them
			return Mount(t, fstype, false)
		}
	}
	if err := unix.Mount(device, dir, fstype, 0, ""); err != nil {
		t.Fatalf("mount %s: %v", fstype, err)
	}
	unmounted(t, dir)
	return dir, false
}

func unmounted(t *testing.T, dir string) {
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// loop returns a block device with the content of a file. The kernel frees it after the
// last unmount.
func loop(t *testing.T, f *os.File) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal("find a loop device: ", err)
		}
		name := "/dev/loop" + strconv.Itoa(n)
		device, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == unix.EBUSY { // somebody else's meanwhile
			device.Close()
			continue
		}
		if err != nil {
			t.Fatal("attach ", name, ": ", err)
		}
		t.Cleanup(func() { device.Close() })
		return name
	}
}
