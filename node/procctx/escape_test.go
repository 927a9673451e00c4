package procctx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// docs/security.md names the escapes that these tests are about, one by one.

// TestAnImageRedirectsNoMount starts images that have links and files where a start
// mounts something or makes a node. The links lead to a directory that there is on the
// host and in the image, in which nothing may appear or vanish.
func TestAnImageRedirectsNoMount(t *testing.T) {
	for _, row := range []struct {
		name, path string
		target     string // of the link; empty: it is a file; %s: the directory
		want       string // of the error; empty: the guest starts
	}{
		{"/dev leads to the host", "dev", "%s", "/dev in the guest's root is no directory"},
		{"/dev leads to the host by a relative path", "dev", "../../../../../../../../%s", "/dev in the guest's root is no directory"},
		{"/dev leads to a directory of the image", "dev", "etc", "/dev in the guest's root is no directory"},
		{"/dev leads through a process", "dev", "/proc/self/root/%s", "/dev in the guest's root is no directory"},
		{"/dev is a file", "dev", "", "/dev in the guest's root is no directory"},
		{"/proc leads to the host", "proc", "%s", "/proc in the guest's root is no directory"},
		{"/proc leads to a directory of the image", "proc", "etc", "/proc in the guest's root is no directory"},
		{"/proc is a file", "proc", "", "/proc in the guest's root is no directory"},
		{"/sys leads to the host", "sys", "%s", "/sys in the guest's root is no directory"},
		{"/sys leads to a directory of the image", "sys", "etc", "/sys in the guest's root is no directory"},
		{"/sys is a file", "sys", "", "/sys in the guest's root is no directory"},
		{"/run leads to the host", "run", "%s", "/run in the guest's root is no directory"},
		{"/run leads to a directory of the image", "run", "etc", "/run in the guest's root is no directory"},
		{"/run is a file", "run", "", "/run in the guest's root is no directory"},
		{"/dev/null leads to the host", "dev/null", "%s/kept", ""},
		{"/dev/null is a file", "dev/null", "", ""},
		{"/dev/console leads to the host", "dev/console", "%s/kept", ""},
		{"/dev/console leads to a kernel setting", "dev/console", "/proc/sys/kernel/core_pattern", ""},
		{"/dev/ptmx leads to the host", "dev/ptmx", "%s/kept", ""},
		{"/dev/pts leads to the host", "dev/pts", "%s", ""},
		{"/dev/shm leads to the host", "dev/shm", "%s", ""},
		{"/dev/mqueue is a file", "dev/mqueue", "", ""},
		{"/proc/sys leads to the host", "proc/sys", "%s", ""},
		{"/sys/fs/cgroup leads to the host", "sys/fs/cgroup", "%s", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			sp, cg := guest(t, 683, "sleep", "1000")
			sp.Console.Close()
			sp.Console, sp.ConsoleNode, sp.DevConsole = nil, "/proc/sys/user/max_mnt_namespaces", true // any file below /proc that the guest can write to
			host := dataDir(t)
			kept := filepath.Join(host, "kept")
			both := filepath.Join(sp.Root.Image, host)
			path := filepath.Join(sp.Root.Image, row.path)
			for _, err := range []error{
				os.WriteFile(kept, []byte("the host's"), 0o666), os.Chmod(kept, 0o666), os.Chmod(host, 0o777),
				os.MkdirAll(both, 0o777), os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o755),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			var err error
			if row.target == "" {
				err = os.WriteFile(path, []byte("the image's"), 0o666)
			} else {
				err = os.Symlink(strings.ReplaceAll(row.target, "%s", host), path)
			}
			if err != nil {
				t.Fatal(err)
			}
			p, err := Start(context.Background(), sp)
			switch {
			case row.want == "" && err != nil:
				t.Errorf("start: %v", err)
			case row.want == "":
				// What is mounted is the kernel's own, and not the image's.
				got, _ := output(t, p, sp, cg, `cut -d" " -f5 /proc/self/mountinfo | busybox sort | busybox tr "\n" " "; stat -c %t:%T /dev/null`)
				if want := "/ /dev /dev/console /dev/mqueue /dev/pts /dev/shm /proc /proc/sys/kernel/random/boot_id /run /sys /sys/fs/cgroup 1:3"; got != want {
					t.Errorf("mounts and /dev/null: %s\nwant %s", got, want)
				}
			case err == nil || !strings.Contains(err.Error(), row.want):
				t.Errorf("start: %v, want %s", err, row.want)
			}
			for dir, want := range map[string]string{host: "[- kept]", sp.Root.Upper + host: "[]", both: "[]"} {
				entries, err := os.ReadDir(dir)
				if err != nil && (dir == host || !os.IsNotExist(err)) {
					t.Fatal(err)
				}
				if fmt.Sprint(entries) != want {
					t.Errorf("%s has %v", dir, entries)
				}
			}
			if b, err := os.ReadFile(kept); err != nil || string(b) != "the host's" {
				t.Errorf("the host's file holds %q, %v", b, err)
			}
		})
	}
}

// TestNoDirectoryOfTheHostsIsEntered has descriptors of the host's root open, as a
// mistake would leave them (without close-on-exec), while a guest is started and
// entered: no program of the guest gets one, and none begins in one, which a
// user's home directory in the guest's /etc/passwd may ask for.
func TestNoDirectoryOfTheHostsIsEntered(t *testing.T) {
	low, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(low)
	high, err := unix.FcntlInt(uintptr(low), unix.F_DUPFD, 200)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(high)
	sp, cg := guest(t, 684, "sleep", "1000")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	run, err := Exec(context.Background(), Command{InitPID: p.PID, Cgroup: cg, Scope: sp.Scope, Caps: sp.Caps,
		Argv: sp.Argv, Env: sp.Env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	for what, pid := range map[string]int{"process 1": p.PID, "a program that entered": run.pid} {
		fds, err := os.ReadDir(linux.ProcFile(pid, "fd"))
		if err != nil {
			t.Fatal(err)
		}
		if len(fds) != 3 {
			t.Errorf("%s has %v", what, fds)
		}
		for _, fd := range []int{low, high} {
			if to, err := os.Readlink(linux.ProcFile(pid, fmt.Sprint("fd/", fd))); err == nil {
				t.Errorf("%s has %s as %d", what, to, fd)
			}
		}
		var cwd, root unix.Stat_t
		if err := errors.Join(unix.Stat(linux.ProcFile(pid, "cwd"), &cwd), unix.Stat(linux.ProcFile(pid, "root"), &root)); err != nil {
			t.Fatal(err)
		}
		if cwd.Dev != root.Dev || cwd.Ino != root.Ino {
			t.Errorf("%s did not begin in its root", what)
		}
	}
	for fd := range high + 10 {
		dir := fmt.Sprint("/proc/self/fd/", fd)
		run, err := Exec(context.Background(), Command{InitPID: p.PID, Cgroup: cg, Scope: sp.Scope, Caps: sp.Caps, Dir: dir,
			Argv: []string{"sleep", "1000"}, Env: sp.Env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
		if err != nil {
			continue
		}
		cwd, err := os.Readlink(linux.ProcFile(run.pid, "cwd"))
		t.Errorf("a program began in %s, which is %s (%v)", dir, cwd, err)
		run.Signal(unix.SIGKILL)
		run.Wait()
	}
}

func init() {
	// Stops whoever enters, and tries to get at what they still have of the host's.
	insides["tracer"] = func() {
		runtime.LockOSThread() // which traces
		fmt.Println("waiting")
		for {
			if unix.Kill(-1, unix.SIGSTOP) != nil {
				continue // nobody has entered
			}
			procs, err := filepath.Glob("/proc/[0-9]*")
			if err != nil {
				panic(err)
			}
			for _, dir := range procs {
				pid, _ := strconv.Atoi(filepath.Base(dir))
				if pid == 1 {
					continue
				}
				state := ""
				for strings.Trim(state, "RSD") == "" {
					stat, err := os.ReadFile(dir + "/stat")
					_, state, _ = strings.Cut(string(stat), ") ")
					if state, _, _ = strings.Cut(state, " "); err != nil {
						state = "gone"
					}
				}
				if comm, err := os.ReadFile(dir + "/comm"); err == nil && state == "T" && string(comm) != "true\n" {
					fmt.Printf("before its program ran: reached %q\n", reach(pid))
				}
				unix.Kill(pid, unix.SIGKILL)
				unix.Wait4(pid, nil, unix.WALL, nil) // one that is traced is the tracer's to wait for
			}
		}
	}
}

// reach returns the ways into another process that work.
func reach(pid int) (ways []string) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	for _, link := range []string{"exe", "cwd", "root", "fd/0"} {
		if _, err := os.Readlink(dir + link); err == nil {
			ways = append(ways, link)
		}
	}
	for _, file := range []string{"mem", "environ", "maps"} {
		if f, err := os.Open(dir + file); err == nil {
			f.Close()
			ways = append(ways, file)
		}
	}
	if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
		if _, err := unix.PidfdGetfd(pidfd, 0, 0); err == nil {
			ways = append(ways, "pidfd_getfd")
		}
		unix.Close(pidfd)
	}
	if err := unix.PtraceSeize(pid); err == nil {
		ways = append(ways, "ptrace")
	}
	return ways
}

// TestNobodyTracesWhoEnters: the guest's root stops programs on their way in, when they
// are in its namespaces but have not run the guest's program yet. There is no Landlock
// guard, which would refuse tracing by itself.
func TestNobodyTracesWhoEnters(t *testing.T) {
	usual := enterTimeout
	defer func() { enterTimeout = usual }()
	enterTimeout = 2 * time.Second
	sp, cg := guest(t, 685, "")
	sp.Scope = false
	asProgram(t, &sp, "tracer")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	console(t, sp, "waiting")
	said := ""
	for until := time.Now().Add(30 * time.Second); strings.Count(said, "before its program ran") < 5; {
		if time.Now().After(until) {
			t.Fatalf("nobody was stopped in time: the test shows nothing: %q", said)
		}
		run, err := Exec(context.Background(), Command{InitPID: p.PID, Cgroup: cg, Caps: sp.Caps,
			Argv: []string{"true"}, Env: sp.Env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
		if err == nil {
			run.Wait()
		}
		b, err := os.ReadFile(sp.Console.Name())
		if err != nil {
			t.Fatal(err)
		}
		said = string(b)
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, "reached") && !strings.Contains(line, "reached []") {
			t.Error(strings.TrimSpace(line))
		}
	}
}
