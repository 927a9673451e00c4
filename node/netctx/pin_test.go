package netctx

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// killStep is the number of pins after which the loader is killed.
const killStep = "NETCTX_TEST_KILL"

// loaderMain loads the programs, or is killed before it has finished.
func loaderMain() int {
	if text := os.Getenv(killStep); text != "" {
		left, err := strconv.Atoi(text)
		if err != nil {
			panic(err)
		}
		afterPin = func() {
			if left--; left < 0 {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		}
	}
	if _, err := ensureNetctx(); err != nil {
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

// allPins counts the programs of cgroups, the one of the network namespace with its
// link, and two maps.
const allPins = len(hooks) + 4

// complete reports whether the directory of pins exists, and fails if it is incomplete.
func complete(t *testing.T) bool {
	t.Helper()
	dirs, err := filepath.Glob(pinDir(netctxPacked) + "_*[0-9a-f]")
	if err != nil {
		t.Fatal(err)
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return strings.HasSuffix(dir, "_half") })
	if len(dirs) == 0 {
		return false
	}
	entries, err := os.ReadDir(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != allPins {
		t.Errorf("%d pins of %d", len(entries), allPins)
	}
	return true
}

func TestLoadingKilledAtAnyStepIsDoneAgain(t *testing.T) {
	if err := os.RemoveAll(pins); err != nil {
		t.Fatal(err)
	}
	// Every pin, the rename, and one run that is not killed.
	for step := range allPins + 2 {
		err := loaderCommand(killStep + "=" + strconv.Itoa(step)).Run()
		if last := step == allPins+1; (err == nil) != last && !complete(t) {
			t.Fatalf("step %d: %v", step, err)
		}
		if done := complete(t); done != (step >= allPins) {
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

// A host that has no guests any more keeps nothing, unless another network namespace, a
// host itself perhaps, has programs in the same bpffs.
func TestUnpin(t *testing.T) {
	there := func() (names []string) {
		t.Helper()
		entries, err := os.ReadDir(pins)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if err := os.RemoveAll(pins); err != nil {
		t.Fatal(err)
	}
	ours, err := ensureNetctx()
	if err != nil {
		t.Fatal(err)
	}
	var theirs string
	_, inside := newNetns(t)
	if err := inside(func() (err error) { theirs, err = ensureNetctx(); return err }); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(pins, "console_1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Unpin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := there(); len(got) != 2 || slices.Contains(got, filepath.Base(ours)) || !slices.Contains(got, filepath.Base(theirs)) {
		t.Errorf("beside another network namespace it left %q", got)
	}
	for range 2 {
		if err := inside(func() error { return Unpin(t.Context()) }); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(pins); !os.IsNotExist(err) {
			t.Errorf("alone it left %q", there())
		}
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
	for unix.Unmount(linux.BPFFS, unix.MNT_DETACH) == nil {
	}
	for range 2 {
		if _, err := ensureNetctx(); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(linux.BPFFS, &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
		t.Errorf("filesystem %x, %v", st.Type, err)
	}
}

// Programs of an older version stay as long as a guest has them: a network
// namespace has room for 64.
func TestUnusedProgramsAreRemoved(t *testing.T) {
	if err := os.RemoveAll(pins); err != nil {
		t.Fatal(err)
	}
	missing := func() (bool, error) { return false, nil }
	used, unused := filepath.Join(pins, "01_1"), filepath.Join(pins, "02_1")
	for _, dir := range []string{unused, used} {
		if err := load(dir, pinNetctx, missing); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := exists(unused); ok || err != nil {
		t.Errorf("%s is there: %v, %v", unused, ok, err)
	}
	for _, h := range hooks {
		if err := attachPinned(newCgroup(t), used, h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ensureNetctx(); err != nil {
		t.Fatal(err)
	}
	if ok, err := exists(used); !ok || err != nil {
		t.Errorf("%s, which a guest has, is there: %v, %v", used, ok, err)
	}
	if err := os.RemoveAll(used); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkAttach(b *testing.B) {
	for range b.N {
		if err := Attach(newCgroup(b), www("80/tcp")); err != nil {
			b.Fatal(err)
		}
	}
}
