package guest

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

func mount(t *testing.T, m setting.Mount) setting.Mount {
	t.Helper()
	valid, err := setting.NewMount(m)
	must(t, err)
	return valid
}

func hostDevice(t *testing.T, text string) setting.Device {
	t.Helper()
	d, err := setting.ParseDevice(text)
	must(t, err)
	return d
}

func TestMountsVolumesAndDevicesOfAGuest(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	base := t.TempDir()
	must(t, os.Chmod(base, 0o700))
	for _, dir := range []string{"read", "write", "ids", "ids/sub"} {
		must(t, os.Mkdir(base+"/"+dir, 0o777))
		must(t, os.Chmod(base+"/"+dir, 0o777))
	}
	for _, file := range []string{"read/page", "file"} {
		must(t, os.WriteFile(base+"/"+file, []byte("of the host\n"), 0o644))
	}
	must(t, errors.Join(os.WriteFile(base+"/ids/a", nil, 0o600), os.Chown(base+"/ids/a", 1000, 1001)))
	g := inMode(api.ModeNAT, "storage", 140, "sleep", "1000")
	bind := func(source, target string, options ...string) setting.Mount {
		return mount(t, setting.Mount{Type: setting.Bind, Source: source, Target: target, Options: options})
	}
	g.Mounts = []setting.Mount{
		bind(base+"/read", "/srv/made/for/it", "ro"), bind(base+"/write", "/srv/write", "nosuid"), bind(base+"/file", "/etc/deep/file", "ro"),
		bind(base+"/ids", "/srv/ids", "idmap=uids=1000-33-1;gids=1001-34-1"), bind(base+"/nosuch", "/srv/nosuch", "nofail"),
		bind(base+"/file", "/run/file", "ro"),
		mount(t, setting.Mount{Type: setting.Tmpfs, Target: "/scratch", Options: []string{"mode=1777"}}),
	}
	g.Volumes = []setting.Mount{mount(t, setting.Mount{Type: setting.Volume, Source: "data", Target: "/var/lib/data"})}
	// The kernel's log, which anybody may write to who can open it.
	const kmsg = "/dev/shm/vsfleet-test-kmsg"
	os.Remove(kmsg)
	must(t, errors.Join(unix.Mknod(kmsg, unix.S_IFCHR|0o640, int(unix.Mkdev(1, 11))), os.Chmod(kmsg, 0o640)))
	defer os.Remove(kmsg)
	g.Devices = []setting.Device{hostDevice(t, kmsg+":/dev/sub/mine:r")}
	must(t, h.Create(ctx, g))
	// A node that was in the tree before there was a guest.
	must(t, unix.Mknod(h.rootDir(g.Name)+"/stray", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
	must(t, os.Symlink("/etc", h.rootDir(g.Name)+"/scratch"))
	must(t, h.Start(ctx, g.Name, Options{}))
	c, err := h.Read(g.Name)
	must(t, err)
	for _, row := range setting.Table {
		if !row.Same(&c.Guest, &g) {
			t.Errorf("%s comes back as %q, want %q", row.Key, row.Text(&c.Guest), row.Text(&g))
		}
	}
	for _, row := range []struct{ what, script, want string }{
		{"a directory of the host", "cat /srv/made/for/it/page", "of the host"},
		{"it is read-only", "touch /srv/made/for/it/x 2>/dev/null && echo written || echo refused", "refused"},
		{"and stays so", "mount -o remount,bind,rw /srv/made/for/it 2>/dev/null && echo lifted || echo locked", "locked"},
		{"and so do copies of it", "mkdir -p /copy && mount -o bind /srv/made/for/it /copy && { mount -o remount,bind,rw /copy 2>/dev/null && echo lifted || echo locked; }", "locked"},
		{"one that is writable", "touch /srv/write/x && stat -c %u /srv/write/x", "0"},
		{"nosuid stays", "mount -o remount,bind,suid /srv/write 2>/dev/null && echo lifted || echo locked", "locked"},
		{"a file", "cat /etc/deep/file", "of the host"},
		{"a file in what every guest has mounted", "cat /run/file", "of the host"},
		{"ids of its own", "stat -c %u:%g /srv/ids/a", "33:34"},
		{"ids that are not mapped are nobody's", "stat -c %u /srv/ids/sub", "65534"},
		{"one that is not there", "ls /srv/nosuch 2>/dev/null || echo none", "none"},
		{"a tmpfs over a link, with a size", "grep ' /etc tmpfs' /proc/mounts | grep -o 'size=[0-9k]*'", "size=16384k"},
		{"a volume", "echo kept > /var/lib/data/x && grep -o ' /var/lib/data .*nosuid,nodev' /proc/mounts | wc -l", "1"},
		{"a device", "stat -c '%u %a %t:%T' /dev/sub/mine", "0 640 1:b"},
		{"its access", "( : > /dev/sub/mine ) 2>/dev/null && echo opened || echo refused", "refused"},
		{"a node in the tree is dead", "head -c 3 /stray 2>/dev/null | wc -c; mount -o remount,bind,dev / 2>/dev/null && echo lifted || echo locked", "0\nlocked"},
	} {
		if out, _ := run(t, h, g.Name, "/bin/sh", "-c", row.script); out != row.want {
			t.Errorf("%s: %s: %q, want %q", row.what, row.script, out, row.want)
		}
	}
	second := inMode(api.ModeNAT, "second", 141, "sleep", "1000")
	second.Volumes, second.Network.Forwards = g.Volumes, nil
	second.Devices = []setting.Device{hostDevice(t, kmsg+":/dev/other:w")}
	must(t, h.Create(ctx, second))
	if err := h.Start(ctx, second.Name, Options{}); err == nil || !strings.Contains(err.Error(), "volume data is guest storage's") {
		t.Errorf("two guests have a volume at once: %v", err)
	}
	must(t, h.Delete(ctx, g.Name))
	must(t, h.Start(ctx, second.Name, Options{}))
	if out, _ := run(t, h, second.Name, "cat", "/var/lib/data/x"); out != "kept" {
		t.Errorf("after its guest was deleted the volume has %q", out)
	}
	if out, _ := run(t, h, second.Name, "/bin/sh", "-c", ": > /dev/other && echo opened"); out != "opened" {
		t.Errorf("a device that it may write to: %q", out)
	}
	list, err := h.Volumes(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "data" || list[0].Bytes == 0 || !slices.Equal(list[0].Guests, []string{second.Name}) {
		t.Errorf("volumes are %+v, %v", list, err)
	}
	if err := h.DeleteVolume(ctx, "data"); err == nil || !strings.Contains(err.Error(), "is that of guest second") {
		t.Errorf("a volume in use was deleted: %v", err)
	}
	must(t, h.Delete(ctx, second.Name))
	must(t, h.DeleteVolume(ctx, "data"))
	if err := h.DeleteVolume(ctx, "data"); !errors.Is(err, ErrNoVolume) {
		t.Errorf("deleted twice: %v", err)
	}
	if left, err := os.ReadDir(h.volumesDir()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What a guest makes of its mount point between two starts leads nowhere but into the
// guest.
func TestAMountPointThatTheGuestReplaced(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	source := t.TempDir()
	must(t, os.WriteFile(source+"/x", []byte("x"), 0o644))
	outside := t.TempDir()
	for _, row := range []struct{ what, link, want string }{
		{"a link to a directory of the host", outside, "no such file or directory in the guest"},
		{"a link above its root", "../../../../../../../../../.." + outside, "no such file or directory in the guest"},
		{"a magic link", "/proc/1/root/tmp", "too many levels of symbolic links"},
		{"a link into the guest", "/etc", ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			g := inMode(api.ModeNAT, "swapped", 142, "sleep", "1000")
			g.Mounts = []setting.Mount{mount(t, setting.Mount{Type: setting.Bind, Source: source, Target: "/srv/data", Options: []string{"ro"}})}
			must(t, h.Create(ctx, g))
			defer h.Delete(ctx, g.Name)
			must(t, os.MkdirAll(h.rootDir(g.Name)+"/srv", 0o755))
			must(t, os.Symlink(row.link, h.rootDir(g.Name)+"/srv/data"))
			err := h.Start(ctx, g.Name, Options{})
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("start says %v, want %q", err, row.want)
			}
			if list, err := os.ReadDir(outside); err != nil || len(list) != 0 {
				t.Errorf("on the host there is %v, %v", list, err)
			}
		})
	}
}
