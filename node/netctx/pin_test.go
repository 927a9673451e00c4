package netctx

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// killStep is the number of pins after which the loader is killed.
const killStep = "NETCTX_TEST_KILL"

// loaderMain loads the programs, or is killed on the way.
func loaderMain() int {
	if text := os.Getenv(killStep); text != "" {
		left, err := strconv.Atoi(text)
		if err != nil {
			panic(err)
		}
		pinning = func() {
			if left--; left < 0 {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		}
	}
	if _, err := loaded(_NetctxBytes, pinNetctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func loaderCommand(env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), roleVar+"="+loader), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// complete says whether the directory of pins is there, and fails if it is not whole.
func complete(t *testing.T) bool {
	t.Helper()
	entries, err := os.ReadDir(pinned(_NetctxBytes))
	if os.IsNotExist(err) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(hooks)+2 {
		t.Errorf("%d pins of %d", len(entries), len(hooks)+2)
	}
	return true
}

func TestLoadingKilledAtAnyStepIsDoneAgain(t *testing.T) {
	if err := os.RemoveAll(pins); err != nil {
		t.Fatal(err)
	}
	// Every pin, the rename, and one that is not killed.
	for step := range len(hooks) + 4 {
		err := loaderCommand(killStep + "=" + strconv.Itoa(step)).Run()
		if last := step == len(hooks)+3; (err == nil) != last && !complete(t) {
			t.Fatalf("step %d: %v", step, err)
		}
		if done := complete(t); done != (step >= len(hooks)+2) {
			t.Errorf("killed after step %d: complete is %v", step, done)
		}
	}
	entries, err := os.ReadDir(pins)
	if err != nil || len(entries) != 1 {
		t.Errorf("left over in %s: %v, %v", pins, entries, err)
	}
	if err := Attach(newCgroup(t), www()); err != nil {
		t.Error(err)
	}
}

func TestManyLoadAtOnce(t *testing.T) {
	if err := os.RemoveAll(pins); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := loaderCommand().Run(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !complete(t) {
		t.Error("not loaded")
	}
}

func TestBpffsIsMountedWhereItIsNot(t *testing.T) {
	for unix.Unmount(bpffs, unix.MNT_DETACH) == nil {
	}
	for range 2 {
		if _, err := loaded(_NetctxBytes, pinNetctx); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
		t.Errorf("filesystem %x, %v", st.Type, err)
	}
}

func BenchmarkAttach(b *testing.B) {
	for range b.N {
		if err := Attach(newCgroup(b), www("80/tcp")); err != nil {
			b.Fatal(err)
		}
	}
}
