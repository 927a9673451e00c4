package quota

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/quota/quotatest"
)

const project = 7_012_352 // of context 107

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A host whose kernel has no project quotas (CONFIG_QFMT_V2, CONFIG_XFS_QUOTA) refuses
// them with the cure, as any other filesystem does; test/kernel has a kernel with them.
func bounded(t *testing.T, fstype string) (dir string, bounds bool) {
	dir, bounds = quotatest.Mount(t, fstype, true)
	if !bounds {
		var u *Unable
		if err := Able(dir); !errors.As(err, &u) || !strings.Contains(u.Cure, "prjquota") {
			t.Errorf("without quotas: %v", err)
		}
	}
	return dir, bounds
}

func TestFilesystemsWithoutQuotas(t *testing.T) {
	for _, row := range []struct{ fstype, want string }{
		{"ext4", "DIR is ext4 on DEV without project quotas: stop what uses it, umount DIR; tune2fs -O project,quota -Q prjquota DEV; add prjquota to its options in /etc/fstab; mount DIR"},
		{"xfs", "DIR is xfs on DEV without project quotas: stop what uses it, umount DIR; add prjquota to its options in /etc/fstab; mount DIR"},
	} {
		t.Run(row.fstype, func(t *testing.T) {
			dir, _ := quotatest.Mount(t, row.fstype, false)
			m, err := mountOf(dir)
			must(t, err)
			want := strings.NewReplacer("DIR", dir, "DEV", m.Source).Replace(row.want)
			if err := Able(dir); err == nil || err.Error() != want {
				t.Errorf("%v\nwant %s", err, want)
			}
			if p, all, err := Marked(dir); p != 0 || all || err != nil {
				t.Errorf("marked %d, %v, %v", p, all, err)
			}
		})
	}
	t.Run("tmpfs", func(t *testing.T) {
		if err := Able("/dev/shm"); err == nil || !strings.Contains(err.Error(), "which has no project quotas: put /var/lib/vservers on ext4") {
			t.Error(err)
		}
	})
}

func TestCures(t *testing.T) {
	for _, row := range []struct {
		mount  linux.Mount
		counts bool
		want   string
	}{
		{linux.Mount{Dir: "/v", FSType: "ext4", Source: "/dev/sdb"}, true, "mount -o remount,prjquota /v; add prjquota to its options in /etc/fstab"},
		{linux.Mount{Dir: "/", FSType: "ext4", Source: "/dev/sda1"}, false,
			"from a rescue system tune2fs -O project,quota -Q prjquota /dev/sda1, and add prjquota to its options in /etc/fstab; or give /var/lib/vservers a filesystem of its own"},
		{linux.Mount{Dir: "/", FSType: "xfs", Source: "/dev/sda1"}, false,
			"add rootflags=prjquota to the kernel's command line and reboot; or give /var/lib/vservers a filesystem of its own"},
	} {
		if got := unable(row.mount, row.counts).Cure; got != row.want {
			t.Errorf("%s\nwant %s", got, row.want)
		}
	}
}

// tree makes one file of each kind, with a deep directory and hard links.
func tree(t *testing.T, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir+"/sub/deeper", 0o755))
	for name, content := range map[string]string{"file": "1", "sub/file": "22", "sub/deeper/file": "333"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	must(t, os.Link(dir+"/file", dir+"/sub/linked"))
	must(t, os.Symlink("nowhere", dir+"/sub/link"))
	must(t, unix.Lchown(dir+"/sub/link", 33, 33))
	must(t, unix.Lsetxattr(dir+"/sub/link", "trusted.overlay.origin", []byte("x"), 0))
	must(t, unix.Mkfifo(dir+"/sub/pipe", 0o622))
	must(t, unix.Mknod(dir+"/sub/whiteout", unix.S_IFCHR, 0))
	must(t, os.Symlink("/etc", dir+"/out"))
	must(t, os.WriteFile(dir+"/sub/"+temporary, nil, 0o600)) // of a killed Mark
	// Deeper than a path may name.
	name := strings.Repeat("d", 200)
	fd, err := unix.Open(dir, unix.O_DIRECTORY, 0)
	must(t, err)
	for range 40 {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	last, err := unix.Openat(fd, "last", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	unix.Close(last)
	unix.Close(fd)
}

func TestMark(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			mount, bounds := bounded(t, fstype)
			if !bounds {
				return
			}
			must(t, Able(mount))
			dir := mount + "/root"
			tree(t, dir)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := Mark(ctx, dir, project); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if p, all, err := Marked(dir); p != project || all || err != nil {
				t.Errorf("after one that was killed: %d, %v, %v", p, all, err)
			}
			must(t, Mark(context.Background(), dir, project))
			if p, all, err := Marked(dir); p != project || !all || err != nil {
				t.Errorf("marked: %d, %v, %v", p, all, err)
			}
			if _, err := os.Lstat(dir + "/sub/" + temporary); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what a killed one left is there: %v", err)
			}
			// 3 files with 4 names, root, sub, deeper, 40 directories and a file, 4 special ones.
			u, err := Get(mount, project)
			must(t, err)
			if u.Inodes != 3+3+41+4 {
				t.Errorf("%d inodes are in the project, want %d", u.Inodes, 3+3+41+4)
			}
			// Every kind of file can be renamed into another directory, and is what it was.
			for _, name := range []string{"file", "link", "pipe", "whiteout", "linked"} {
				must(t, os.Rename(dir+"/sub/"+name, dir+"/sub/deeper/"+name))
			}
			var st unix.Stat_t
			must(t, unix.Lstat(dir+"/sub/deeper/link", &st))
			value := make([]byte, 8)
			n, err := unix.Lgetxattr(dir+"/sub/deeper/link", "trusted.overlay.origin", value)
			if to, rerr := os.Readlink(dir + "/sub/deeper/link"); to != "nowhere" || st.Uid != 33 || string(value[:max(n, 0)]) != "x" {
				t.Errorf("link to %s of %d with %q: %v, %v", to, st.Uid, value, err, rerr)
			}
			must(t, unix.Lstat(dir+"/sub/deeper/whiteout", &st))
			if st.Mode != unix.S_IFCHR || st.Rdev != 0 {
				t.Errorf("whiteout is %o of %d", st.Mode, st.Rdev)
			}
			// What links lead to is not touched.
			if _, all, _ := Marked("/etc"); all {
				t.Error("/etc is in a project")
			}
			// A copy has the note alone.
			must(t, os.Mkdir(mount+"/copy", 0o755))
			must(t, unix.Setxattr(mount+"/copy", note, []byte(fmt.Sprint(project)), 0))
			if p, all, err := Marked(mount + "/copy"); p != project || all || err != nil {
				t.Errorf("a copy: %d, %v, %v", p, all, err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			mount, bounds := bounded(t, fstype)
			if !bounds {
				return
			}
			dir := mount + "/root"
			must(t, os.Mkdir(dir, 0o755))
			must(t, Mark(context.Background(), dir, project))
			l := Limits{Space: 20 << 20, SoftSpace: 10 << 20, Inodes: 200, SoftInodes: 100}
			must(t, Set(dir, project, l))
			u, err := Get(dir, project)
			if err != nil || u.Limits != l || u.Inodes != 1 {
				t.Errorf("usage %+v, %v", u, err)
			}
			var st unix.Statfs_t
			must(t, unix.Statfs(dir, &st))
			if size := int64(st.Blocks) * st.Bsize; size != l.SoftSpace || st.Files != uint64(l.SoftInodes) {
				t.Errorf("df says %d bytes and %d files", size, st.Files)
			}
			wrote := bound(t, func() error { return os.WriteFile(dir+"/big", make([]byte, 21<<20), 0o644) })
			if !errors.Is(wrote, unix.EDQUOT) && !errors.Is(wrote, unix.ENOSPC) {
				t.Errorf("more than the limit: %v", wrote)
			}
			must(t, os.Remove(dir+"/big"))
			made := 0
			err = bound(t, func() error {
				for ; made < 300; made++ {
					if err := os.WriteFile(fmt.Sprint(dir, "/", made), nil, 0o644); err != nil {
						return err
					}
				}
				return nil
			})
			if made != int(l.Inodes)-1 || !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%d files, then %v", made, err)
			}
			must(t, Set(dir, project, Limits{}))
			must(t, bound(t, func() error { return os.WriteFile(dir+"/big", make([]byte, 21<<20), 0o644) }))
			u, err = Get(dir, project)
			if err != nil || u.Limits != (Limits{}) || u.Space < 21<<20 || u.Inodes != 201 {
				t.Errorf("afterwards %+v, %v", u, err)
			}
		})
	}
}

// A guest's root owns its files and has every capability in its user namespace, from
// where the kernel changes no project.
func TestProjectCannotBeChangedFromAUserNamespace(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			mount, bounds := bounded(t, fstype)
			if !bounds {
				return
			}
			dir := mount + "/root"
			must(t, os.Mkdir(dir, 0o777))
			must(t, os.Chown(dir, 1000, 1000))
			must(t, Mark(context.Background(), dir, project))
			f, err := os.Open(dir)
			must(t, err)
			defer f.Close()
			a := fsxattr{flags: inherits}
			// The control: outside it works.
			must(t, ioctl(int(f.Fd()), setAttr, unsafe.Pointer(&a)))
			a.project = project
			must(t, ioctl(int(f.Fd()), setAttr, unsafe.Pointer(&a)))
			for what, change := range map[string]fsxattr{
				"to another project": {flags: inherits, project: 1}, "to none": {flags: inherits}, "to no inheritance": {project: project},
			} {
				if err := inUserNamespace(t, dir, change); err == nil {
					t.Errorf("%s: it was changed", what)
				}
			}
			if p, all, err := Marked(dir); p != project || !all || err != nil {
				t.Errorf("project %d, %v, %v", p, all, err)
			}
		})
	}
}

// bound calls f on a thread that may not exceed quotas.
func bound(t *testing.T, f func() error) error {
	t.Helper()
	_, err := linux.OnOwnThread(func() (none struct{}, _ error) {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			return none, err
		}
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			return none, err
		}
		return none, f()
	})
	return err
}
