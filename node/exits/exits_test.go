package exits

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf/bpftest"
	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// TestMain runs the tests with a bpffs of their own.
func TestMain(m *testing.M) { bpftest.Main(m) }

// inCgroup starts a shell as process 1 of a pid namespace, in a cgroup of its own. It
// begins when its input is closed.
func inCgroup(t testing.TB, script string) (dir *os.File, cmd *exec.Cmd, begin io.Closer) {
	t.Helper()
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(mount, fmt.Sprint("vsfleet-test-exits-", os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cgroup.Dir(path).Remove(); err != nil {
			t.Error(err)
		}
	})
	if dir, err = os.Open(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	cmd = exec.Command("sh", "-c", "read x; "+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if begin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return dir, cmd, begin
}

func watch(t testing.TB, dir *os.File, pid int) {
	t.Helper()
	pidns, err := os.Open(linux.ProcFile(pid, "ns/pid"))
	if err != nil {
		t.Fatal(err)
	}
	defer pidns.Close()
	if err := Watch(dir, pidns); err != nil {
		t.Fatal(err)
	}
}

func TestExitIsKnown(t *testing.T) {
	for _, row := range []struct {
		name, script string
		want         unix.WaitStatus
	}{
		{"an exit status", "exit 3", 3 << 8},
		{"success", "sh -c 'exit 9'; exit 0", 0},
		{"a reboot", "busybox reboot -f; sleep 100", unix.WaitStatus(unix.SIGHUP)},
		{"a power-off", "busybox poweroff -f; sleep 100", unix.WaitStatus(unix.SIGINT)},
		{"a kill from outside", "sh -c 'while :; do :; done'", unix.WaitStatus(unix.SIGKILL)},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir, cmd, begin := inCgroup(t, row.script)
			watch(t, dir, cmd.Process.Pid)
			if x, err := Look(dir.Name()); !errors.Is(err, ErrNone) {
				t.Errorf("while it runs: %+v, %v", x, err)
			}
			if row.want == unix.WaitStatus(unix.SIGKILL) {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			before := linux.SinceBoot()
			begin.Close()
			_ = cmd.Wait() // what it says is below
			x, err := Look(dir.Name())
			if err != nil || x.How != row.want || syscall.WaitStatus(x.How) != cmd.ProcessState.Sys() {
				t.Errorf("%+v, %v, want %#x", x, err, row.want)
			}
			if row.want != unix.WaitStatus(unix.SIGKILL) && x.Since < before || x.Since > linux.SinceBoot() {
				t.Errorf("it ended %v after the boot, not %v or later", x.Since, before)
			}
			if err := Forget(dir.Name()); err != nil {
				t.Error(err)
			}
			if x, err := Look(dir.Name()); !errors.Is(err, ErrNone) {
				t.Errorf("forgotten: %+v, %v", x, err)
			}
		})
	}
}

// Who removes the pin takes what was known, and no more.
func TestPinIsMadeAgain(t *testing.T) {
	dir, cmd, begin := inCgroup(t, "exit 5")
	watch(t, dir, cmd.Process.Pid)
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	if x, err := Look(dir.Name()); !errors.Is(err, ErrNone) {
		t.Errorf("%+v, %v", x, err)
	}
	watch(t, dir, cmd.Process.Pid)
	begin.Close()
	_ = cmd.Wait()
	if x, err := Look(dir.Name()); err != nil || x.How.ExitStatus() != 5 {
		t.Errorf("%+v, %v", x, err)
	}
}

func BenchmarkWatch(b *testing.B) {
	dir, cmd, begin := inCgroup(b, "")
	watch(b, dir, cmd.Process.Pid)
	for b.Loop() {
		watch(b, dir, cmd.Process.Pid)
	}
	begin.Close()
	_ = cmd.Wait()
	_ = Forget(dir.Name())
}
