package procctx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/cgroup"
)

// TestMain runs the tests in a mount namespace whose mounts are shared, as
// systemd makes them: what a guest mounts must not come back through them.
func TestMain(m *testing.M) {
	if what := os.Getenv(inside); what != "" {
		insides[what]()
		return
	}
	if os.Getenv("VSFLEET_TEST_SHARED") == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), "VSFLEET_TEST_SHARED=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		if err != nil {
			panic(err)
		}
		return
	}
	// As an installed vsnode is.
	if err := os.Chmod("/proc/self/exe", 0o700); err != nil {
		panic(err)
	}
	// What vsnode keeps in /run is not to stay behind on this machine.
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("run", "/run", "tmpfs", 0, "")); err != nil {
		panic(err)
	}
	for _, propagation := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|propagation, ""); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// busybox makes a tree with one static program that is all of its userland.
func busybox(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("needs apt-get install busybox-static")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dataDir(t), "tree")
	for _, dir := range []string{"bin", "proc", "sys", "dev", "run", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "sleep", "cat", "id", "hostname", "ls", "mount", "ps", "touch", "kill", "stat", "chown", "mknod", "readlink", "cut", "grep", "head", "wc", "mkdir"} {
		if err := os.Symlink("busybox", filepath.Join(tree, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// dataDir is a directory on a disk: overlayfs takes no upper layer on overlayfs.
func dataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// guest prepares a guest called for the test; its cgroup is killed afterwards.
func guest(t testing.TB, xid int, argv ...string) (Spec, cgroup.Dir) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root")
	}
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	cg := cgroup.Guest(mount, fmt.Sprint("test-", strings.ReplaceAll(t.Name(), "/", "-"), "-", xid))
	dir := dataDir(t)
	sp := Spec{
		XID:      xid,
		Hostname: "testme",
		Root:     Root{Image: busybox(t), Upper: dir + "/upper", Work: dir + "/work"},
		Scope:    canScope(),
		Caps:     AllCaps,
		Argv:     argv,
		Env:      []string{"PATH=/bin"},
	}
	for _, d := range []string{sp.Root.Upper, sp.Root.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if sp.Cgroup, err = cg.Make(BaseID(xid)); err != nil {
		t.Fatal(err)
	}
	if sp.Console, err = os.Create(dir + "/console"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sp.Cgroup.Close()
		sp.Console.Close()
		if err := cg.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		if err := cg.Remove(); err != nil {
			t.Error(err)
		}
	})
	return sp, cg
}

// output runs a shell command in a running guest.
func output(t testing.TB, p Process, sp Spec, cg cgroup.Dir, command string) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	run, err := Exec(context.Background(), Command{
		InitPID: p.PID, Cgroup: cg, PrivateNet: sp.PrivateNet, Scope: sp.Scope, Caps: sp.Caps,
		Argv: []string{"sh", "-c", command}, Env: sp.Env, Stdin: null, Stdout: w, Stderr: w,
	})
	w.Close()
	if err != nil {
		t.Fatalf("exec %q: %v", command, err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	code, err := run.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b)), code
}

func TestGuestIsAMachineOfItsOwn(t *testing.T) {
	for _, private := range []bool{false, true} {
		name := "in the host's network"
		if private {
			name = "with a network of its own"
		}
		t.Run(name, func(t *testing.T) {
			sp, cg := guest(t, 666, "sleep", "1000")
			sp.PrivateNet = private
			p, err := Start(context.Background(), sp)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range []struct{ what, command, want string }{
				{"its host name is the one given", "hostname", "testme"},
				{"its root is root", "id -u", "0"},
				{"process 1 is its init", "cat /proc/1/comm", "sleep"},
				{"init is the host's id of the context", "cat /proc/self/uid_map | { read a b c; echo $a $b $c; }", "0 43646976 65536"},
				{"it sees its own processes only", "set -- /proc/[0-9]*; echo $#", "2"},
				{"its cgroup is the outermost", "cat /proc/1/cgroup | grep ^0::", "0::/"},
				{"cgroups are mounted", "ls /sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.procs"},
				{"what it writes is its own root's", "touch /etc/x && stat -c %u /etc/x", "0"},
				{"image files are root's", "stat -c %u /bin/busybox", "0"},
				{"all may keep locks", "stat -c '%a %u' /run/lock", "1777 0"},
				{"devices work", "echo x > /dev/null && cat /dev/null && echo ok", "ok"},
				{"terminals can be made", "ls /dev/pts/ptmx", "/dev/pts/ptmx"},
				{"it can change owners", "touch /tmp/o && chown 33:33 /tmp/o && stat -c %u:%g /tmp/o", "33:33"},
				{"seccomp is on", "grep '^Seccomp:' /proc/self/status | cut -f2", "2"},
				{"the host's kernel settings are closed", "echo x 2>/dev/null >/proc/sys/kernel/core_pattern && echo open || echo closed", "closed"},
				{"it makes no devices", "mknod /tmp/d b 8 0 2>/dev/null && echo made || echo refused", "refused"},
				{"the host's root is not mounted anywhere", "grep -c ' /run/vservers ' /proc/self/mountinfo", "0"},
				{"init holds nothing else of the host's", "ls /proc/1/fd", "0\n1\n2"},
			} {
				got, _ := output(t, p, sp, cg, row.command)
				if got != row.want {
					t.Errorf("%s: %s: got %q, want %q", row.what, row.command, got, row.want)
				}
			}
			if _, err := os.Stat(sp.Root.Upper + "/etc/x"); err != nil {
				t.Errorf("what the guest wrote is not in its upper directory: %v", err)
			}
			var st unix.Stat_t
			if err := unix.Stat(sp.Root.Upper+"/tmp/o", &st); err != nil || st.Uid != 33 {
				t.Errorf("on disk the guest's user 33 is %d (%v)", st.Uid, err)
			}
			if pid, err := cg.Init(); err != nil || pid != p.PID {
				t.Errorf("Init: %d, %v; want %d", pid, err, p.PID)
			}
			if _, code := output(t, p, sp, cg, "exit 7"); code != 7 {
				t.Errorf("exit status %d, want 7", code)
			}
			if _, code := output(t, p, sp, cg, "kill -9 $$"); code != 137 {
				t.Errorf("exit status %d, want 137", code)
			}
		})
	}
}

func TestFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	for _, row := range []struct {
		what string
		mend func(*testing.T, *Spec)
		want string
	}{
		{"a program that is not there", func(_ *testing.T, sp *Spec) { sp.Argv = []string{"nosuch"} }, "run nosuch: no such file or directory"},
		{"an init that is a directory", func(_ *testing.T, sp *Spec) { sp.Argv = []string{"/etc"} }, "run /etc: permission denied"},
		{"an image whose /dev is a link to the host's", func(t *testing.T, sp *Spec) {
			os.Remove(sp.Root.Image + "/dev")
			if err := os.Symlink("/proc", sp.Root.Image+"/dev"); err != nil {
				t.Fatal(err)
			}
		}, "/dev in the guest's root is no directory"},
		{"an image that is not there", func(_ *testing.T, sp *Spec) { sp.Root.Image = "/nonexistent" }, "no such file or directory"},
		{"an upper layer on a filesystem without ids to map", func(_ *testing.T, sp *Spec) {
			sp.Root.Upper, sp.Root.Work = "/proc/sys", "/proc/fs"
		}, "takes no idmapped mounts"},
	} {
		t.Run(row.what, func(t *testing.T) {
			sp, cg := guest(t, 667, "true")
			row.mend(t, &sp)
			_, err := Start(context.Background(), sp)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
			if full, err := cg.Populated(); err != nil || full {
				t.Errorf("populated %t, %v", full, err)
			}
		})
	}
}

func TestKillEndsEveryProcess(t *testing.T) {
	sp, cg := guest(t, 668, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; sleep 1000")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	if err := cg.Kill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if pids, err := cg.PIDs(); err != nil || len(pids) != 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
	if _, err := Exec(context.Background(), Command{InitPID: p.PID, Cgroup: cg, Argv: []string{"true"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}); err == nil {
		t.Error("entered a guest that is gone")
	}
}

func TestNothingOfOursStays(t *testing.T) {
	sp, _ := guest(t, 669, "true")
	before, mountsBefore := descriptors(t), mountTable(t)
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wait(p.PID); err != nil {
		t.Fatal(err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if after := mountTable(t); after != mountsBefore {
		t.Errorf("mounts before:\n%s\nafter:\n%s", mountsBefore, after)
	}
}

func mountTable(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func descriptors(t *testing.T) int {
	t.Helper()
	runtime.GC() // closes what earlier tests dropped
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func BenchmarkStartTrue(b *testing.B) {
	sp, cg := guest(b, 670, "true")
	for b.Loop() {
		p, err := Start(context.Background(), sp)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := wait(p.PID); err != nil {
			b.Fatal(err)
		}
		if err := cg.WaitEmpty(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func canScope() bool {
	rules, err := scopeRules()
	if err != nil {
		return false
	}
	rules.Close()
	return true
}
