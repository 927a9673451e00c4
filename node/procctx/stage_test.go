package procctx

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

func TestAGuestCannotLiftTheFlagsOfItsMounts(t *testing.T) {
	sp, cg := guest(t, 676, "sleep", "1000")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ what, command, want string }{
		{"devices of its root", "mount -o remount,bind,dev / 2>/dev/null && echo lifted || echo locked", "locked"},
		{"devices of a copy of its root", "mkdir /tmp/c && mount -o bind / /tmp/c && { mount -o remount,bind,dev /tmp/c 2>/dev/null && echo lifted || echo locked; }", "locked"},
		{"its /sys", "mount -o remount,bind,rw /sys 2>/dev/null && echo lifted || echo locked", "locked"},
		{"more flags may be set", "mount -o remount,bind,nosuid,nodev / && grep -c ' / / .*nosuid,nodev' /proc/self/mountinfo", "1"},
		{"what it mounts itself is its own", "mkdir /tmp/d && mount -t tmpfs none /tmp/d 2>&1 && mount -o remount,bind,ro /tmp/d && mount -o remount,bind,rw /tmp/d && touch /tmp/d/x && echo written", "written"},
		{"nothing propagates from the host", "grep -c master: /proc/self/mountinfo", "0"},
	} {
		if got, _ := output(t, p, sp, cg, row.command); got != row.want {
			t.Errorf("%s: %s: got %q, want %q", row.what, row.command, got, row.want)
		}
	}
}

// TestMountsPropagateInsideAGuestOnly has a directory of the host's in a guest that is a
// shared mount on the host, as most are under systemd.
func TestMountsPropagateInsideAGuestOnly(t *testing.T) {
	sp, cg := guest(t, 677, "sleep", "1000")
	host := dataDir(t)
	if err := errors.Join(unix.Mount("none", host, "tmpfs", 0, ""), unix.Mount("", host, "", unix.MS_SHARED, ""),
		os.Mkdir(host+"/of-host", 0o755), os.Mkdir(host+"/of-guest", 0o755)); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(host, unix.MNT_DETACH)
	sp.Mounts = []Mount{{Line: "mounts:1", Source: host, Place: "/host", Recursive: true}}
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	hosts, groups := mountInfo(t, "/proc/self/mountinfo")
	ofHost := map[string]bool{}
	for _, g := range groups {
		ofHost[g] = g != ""
	}
	lines, groups := mountInfo(t, linux.ProcFile(p.PID, "mountinfo"))
	for i, line := range lines {
		if groups[i] == "" || ofHost[groups[i]] || strings.Contains(line, " master:") {
			t.Errorf("a mount of the guest's that is not shared, or with the host: %s", line)
		}
	}
	if len(lines) < 10 || !strings.Contains(strings.Join(hosts, "\n"), " "+host+" rw,relatime shared:") {
		t.Errorf("the guest has %d mounts, and the host:\n%s", len(lines), strings.Join(hosts, "\n"))
	}
	// So systemd prepares the credentials and the inaccessible files of a unit.
	if got, _ := output(t, p, sp, cg, "unshare -m --propagation shared mount -t tmpfs none /host/of-guest && grep -c ' /host/of-guest ' /proc/self/mountinfo"); got != "1" {
		t.Errorf("a mount of another mount namespace of the guest's: %q", got)
	}
	if err := unix.Mount("none", host+"/of-host", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if got, _ := output(t, p, sp, cg, "grep -c ' /host/of-host ' /proc/self/mountinfo; umount /host/of-host 2>/dev/null || echo refused"); got != "0\nrefused" {
		t.Errorf("a mount that the host makes: %q", got)
	}
	hosts, _ = mountInfo(t, "/proc/self/mountinfo")
	of := map[string]int{}
	for _, line := range hosts {
		of[filepath.Base(strings.Fields(line)[4])]++
	}
	if of["of-host"] != 1 || of["of-guest"] != 0 {
		t.Errorf("the host has its own mount %d times, and the guest's %d times", of["of-host"], of["of-guest"])
	}
}

// mountInfo returns the lines of a mountinfo, and the peer group of each.
func mountInfo(t *testing.T, file string) (lines, groups []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines = strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, line := range lines {
		groups = append(groups, peers.FindString(line))
	}
	return lines, groups
}

var peers = regexp.MustCompile(` shared:[0-9]+`)
