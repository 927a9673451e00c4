package cgroup

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testMount returns a cgroup of the test's own, to be taken for the mount. It is
// killed and removed afterwards.
func testMount(t *testing.T) string {
	t.Helper()
	mount, err := Mount()
	must(t, err)
	dir, err := os.MkdirTemp(mount, "vsfleet-test-cgroup-")
	must(t, err)
	t.Cleanup(func() {
		must(t, Dir(dir).Kill(context.Background()))
		must(t, Dir(dir).Remove())
	})
	return dir
}

// testGuest makes a guest's cgroup below a mount of the test's own.
func testGuest(t *testing.T) Dir {
	t.Helper()
	c := Guest(testMount(t), "www")
	f, err := c.Make(os.Getuid())
	must(t, err)
	f.Close()
	return c
}

// start starts a shell in a cgroup and waits until its script says up.
func start(t *testing.T, c Dir, flags uintptr, script string) int {
	t.Helper()
	dir, err := os.Open(string(c))
	must(t, err)
	defer dir.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Cloneflags: flags}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		t.Fatalf("a process in %s says %q, %v", c, line, err)
	}
	return cmd.Process.Pid
}

const sleeps = "echo up; exec sleep 1000"

// mkdir makes a cgroup below.
func mkdir(t *testing.T, c Dir, name string) Dir {
	t.Helper()
	dir := Dir(filepath.Join(string(c), name))
	must(t, os.MkdirAll(string(dir), 0o755))
	return dir
}

func write(t *testing.T, c Dir, file, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(string(c), file), []byte(text), 0))
}

func read(t *testing.T, c Dir, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(string(c), file))
	must(t, err)
	return strings.TrimSpace(string(b))
}

func TestMake(t *testing.T) {
	const id = 666 << 16
	for _, row := range []struct {
		name   string
		before func(t *testing.T, c Dir)
	}{
		{"for the first time", func(*testing.T, Dir) {}},
		{"where an empty one is", func(t *testing.T, c Dir) { mkdir(t, c, "") }},
		{"where one with others below is", func(t *testing.T, c Dir) { mkdir(t, c, "a/b/c"); mkdir(t, c, "a/d") }},
		// The kernel would kill what is born into it.
		{"where one is that was killed empty", func(t *testing.T, c Dir) {
			mkdir(t, c, "")
			must(t, c.Kill(context.Background()))
		}},
		{"where one is whose processes were killed", func(t *testing.T, c Dir) {
			start(t, mkdir(t, c, ""), 0, sleeps)
			must(t, c.Kill(context.Background()))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := Guest(testMount(t), "www")
			row.before(t, c)
			f, err := c.Make(id)
			must(t, err)
			defer f.Close()
			if uid, err := c.Owner(); err != nil || uid != id {
				t.Errorf("owner %d, %v", uid, err)
			}
			if f.Name() != string(c) {
				t.Errorf("opened %s, want %s", f.Name(), c)
			}
			var given []string
			entries, err := os.ReadDir(string(c))
			must(t, err)
			for _, e := range entries {
				var st unix.Stat_t
				must(t, unix.Stat(filepath.Join(string(c), e.Name()), &st))
				if st.Uid != 0 || st.Gid != 0 {
					given = append(given, e.Name())
				}
				if e.IsDir() {
					t.Errorf("%s is there still", e.Name())
				}
			}
			if want := []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}; !slices.Equal(given, want) {
				t.Errorf("the guest's are %v, want %v", given, want)
			}
			if depth, most := read(t, c, "cgroup.max.depth"), read(t, c, "cgroup.max.descendants"); depth != "12" || most != "10000" {
				t.Errorf("depth %s, descendants %s", depth, most)
			}
			start(t, c, 0, sleeps)
		})
	}
}

func TestACgroupWithProcessesStays(t *testing.T) {
	for _, row := range []struct {
		name, below string
		try         func(c Dir) error
	}{
		{"when it is removed", "", Dir.Remove},
		{"when it is removed, with one below", "a/b", Dir.Remove},
		{"when it is made anew", "", func(c Dir) error { _, err := c.Make(1); return err }},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := testGuest(t)
			pid := start(t, mkdir(t, c, row.below), 0, sleeps)
			err := row.try(c)
			if want := "remove cgroup " + string(c) + ": processes are still in it"; err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
			if pids, err := c.PIDs(); err != nil || !slices.Equal(pids, []int{pid}) {
				t.Errorf("left are %v, %v; want %d", pids, err, pid)
			}
		})
	}
}

func TestACgroupThatIsNotThere(t *testing.T) {
	ctx := context.Background()
	c := Guest(testMount(t), "nosuch")
	if full, err := c.Populated(); full || err != nil {
		t.Errorf("populated: %v, %v", full, err)
	}
	if pids, err := c.PIDs(); pids != nil || err != nil {
		t.Errorf("processes: %v, %v", pids, err)
	}
	if pid, err := c.Init(); pid != 0 || err != nil {
		t.Errorf("process 1: %d, %v", pid, err)
	}
	if runs, err := c.WaitExec(ctx); runs || err != nil {
		t.Errorf("runs: %v, %v", runs, err)
	}
	if _, err := c.Owner(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("owner: %v", err)
	}
	for name, err := range map[string]error{"kill": c.Kill(ctx), "remove": c.Remove(), "thaw": c.Thaw(), "wait": c.WaitEmpty(ctx), "terminate": c.Terminate(ctx, unix.SIGTERM, 0)} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGuests(t *testing.T) {
	mount := testMount(t)
	if names, err := Guests(mount); names != nil || err != nil {
		t.Errorf("before the first: %v, %v", names, err)
	}
	for _, name := range []string{"www", "b.example", "memory"} {
		mkdir(t, Guest(mount, name), "")
	}
	// One in a unit has another owner than what is left of it elsewhere.
	mkdir(t, InUnit(mount, "www"), "")
	for dir, uid := range map[string]int{string(InUnit(mount, "www")): 65536, filepath.Join(mount, ours, "memory"): 131072} {
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/vservers.slice/other.service/guest", "/vservers.slice/vserver@empty.service", "/vservers/.hook"} {
		mkdir(t, Dir(mount+dir), "")
	}
	want := map[string]int{"www": 65536, "b.example": 0, "memory": 131072}
	if owners, err := Owners(mount); err != nil || !maps.Equal(owners, want) {
		t.Errorf("%v, %v, want %v", owners, err, want)
	}
	// The kernel's own files beside them are none.
	if names, err := Guests(mount); err != nil || !slices.Equal(names, []string{"b.example", "memory", "www"}) {
		t.Errorf("%v, %v", names, err)
	}
}
