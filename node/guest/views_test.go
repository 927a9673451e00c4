package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// A guest with views: lxcfs sees its own limits, by the real lxcfs, and a host without it
// refuses to start one and to restart one that runs.
func TestAGuestSeesItsLimitsByLXCFS(t *testing.T) {
	ctx := context.Background()
	g := inMode(api.ModeShared, "views", 127, "sleep", "1000")
	g.NoNesting, g.Views = true, setting.LXCFS
	total, err := os.ReadFile("/proc/meminfo")
	must(t, err)
	memory, _, _ := strings.Cut(string(total), "\n")
	limited := oneProcessor(t, &g)
	if g.Limits.Processors != "" { // memory is on cgroup v2 as well
		g.Limits.MemoryBytes, memory = 256<<20, "MemTotal:         262144 kB"
	}
	h := host(t)
	must(t, h.Create(ctx, g))

	must(t, os.MkdirAll(lxcfsDir, 0o755))
	must(t, unix.Mount("tmpfs", lxcfsDir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(lxcfsDir, unix.MNT_DETACH)) })
	missing := "views: no lxcfs on /var/lib/lxcfs: it is not mounted: apt-get install lxcfs"
	if err := h.Start(ctx, g.Name, Options{}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Fatalf("start: error %v, want %s", err, missing)
	}
	end := runLXCFS(t)
	must(t, limited(func() error { return h.Start(ctx, g.Name, Options{}) }))
	files := len(viewFiles)
	if !ownUptime() {
		files++ // /proc/stat
	}
	for _, row := range []struct{ what, command, want string }{
		{"processors", "busybox grep -c ^processor /proc/cpuinfo", "1"},
		{"processors that are on", "busybox tr -d 0-9 </sys/devices/system/cpu/online", ""},
		{"memory", "busybox head -n 1 /proc/meminfo", memory},
		{"the mounts", "busybox grep -c lxcfs.*ro,nosuid,nodev,noexec /proc/mounts", fmt.Sprint(files)},
		{"a way to the host's cgroups", "ls -d /proc/meminfo/.. /var/lib/lxcfs 2>&1 | busybox grep -vc : ", "0"},
		{"a write", "echo 1 2>&1 >/proc/meminfo | busybox wc -l", "1"},
		{"the host's view", "busybox umount /proc/meminfo && busybox grep -c MemTotal /proc/meminfo", "1"},
	} {
		if out, _ := run(t, h, g.Name, "/bin/sh", "-c", row.command); out != row.want {
			t.Errorf("%s: %s prints %q, want %q", row.what, row.command, out, row.want)
		}
	}

	end()
	if err := h.Restart(ctx, g.Name, Options{}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("restart: error %v, want %s", err, missing)
	}
	if on, err := h.Running(g.Name); err != nil || !on {
		t.Errorf("it runs on: %v (%v)", on, err)
	}
}

// A start warns of what containers in the guest lose, and only then.
func TestViewsAndNesting(t *testing.T) {
	for _, row := range []struct {
		views     string
		noNesting bool
		warnings  int
	}{{"", false, 0}, {"", true, 0}, {setting.LXCFS, true, 0}, {setting.LXCFS, false, 1}} {
		c := Config{Guest: api.Guest{Views: row.views, NoNesting: row.noNesting}}
		if got := c.warnings(); len(got) != row.warnings {
			t.Errorf("views %q, no nesting %v: %q", row.views, row.noNesting, got)
		}
	}
}

const oldCpuset = "/sys/fs/cgroup/cpuset" // where it is on version 1

// oneProcessor limits the guest to a processor: by cgroup v2, or where the controller is
// on version 1 by the cgroup of whoever starts it.
func oneProcessor(t *testing.T, g *api.Guest) (start func(func() error) error) {
	if _, err := os.Stat(oldCpuset); err != nil {
		g.Limits.Processors = "0"
		return func(f func() error) error { return f() }
	}
	dir := fmt.Sprintf("%s/vsfleet-test-views-%d", oldCpuset, os.Getpid())
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { must(t, os.Remove(dir)) })
	nodes, err := os.ReadFile(oldCpuset + "/cpuset.mems")
	must(t, err)
	write := func(file, text string) { must(t, os.WriteFile(file, []byte(text), 0)) }
	write(dir+"/cpuset.mems", string(nodes))
	write(dir+"/cpuset.cpus", "0")
	return func(f func() error) error {
		write(dir+"/cgroup.procs", fmt.Sprint(os.Getpid()))
		defer write(oldCpuset+"/cgroup.procs", fmt.Sprint(os.Getpid()))
		return f()
	}
}

// runLXCFS mounts lxcfs where its unit does, in the mount namespace of these tests.
func runLXCFS(t *testing.T) (end func()) {
	t.Helper()
	if _, err := exec.LookPath("lxcfs"); err != nil {
		t.Fatal("needs apt-get install lxcfs")
	}
	must(t, unix.Mount("", lxcfsDir, "", unix.MS_SHARED, ""))
	argv := []string{"lxcfs", "-f", "-p", filepath.Join(t.TempDir(), "pid"), lxcfsDir}
	if _, err := os.Stat(oldCpuset); err != nil {
		// It wants the cgroup of the machine's process 1, which is not in the cgroup
		// namespace of these tests.
		argv = append([]string{"nsenter", "--cgroup=/proc/1/ns/cgroup", "sh", "-c", `umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$0" "$@"`}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}
	t.Cleanup(end)
	for deadline := time.Now().Add(10 * time.Second); ; unix.Poll(nil, 10) {
		if _, err := lxcfsMounts(nil); err == nil {
			return end
		}
		if time.Now().After(deadline) {
			end()
			t.Fatalf("lxcfs is not there after 10 s: %s", log.String())
		}
	}
}
