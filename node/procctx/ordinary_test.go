package procctx

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// inside names what this test's own program does as a program of a guest.
const inside = "VSFLEET_TEST_INSIDE"

var insides = map[string]func(){
	// Takes all inotify instances that there are, and holds them.
	"inotify": func() {
		n := 0
		for {
			if _, err := unix.InotifyInit1(0); err != nil {
				fmt.Printf("took %d: %v\n", n, err)
				unix.Pause()
			}
			n++
		}
	},
}

// asProgram puts this test's own program into a guest's image, as its init.
func asProgram(t *testing.T, sp *Spec, what string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(sp.Root.Image+"/bin/probe", b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	sp.Argv = []string{"probe"}
	sp.Env = append(sp.Env, inside+"="+what)
}

// console waits for a text in what a guest prints.
func console(t *testing.T, sp Spec, text string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(sp.Console.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatalf("the guest printed %q, not %q", b, text)
		}
	}
}

func TestWhatTheKernelCountsForAUserIsCountedForEachGuest(t *testing.T) {
	greedy, _ := guest(t, 671, "")
	asProgram(t, &greedy, "inotify")
	p, err := Start(context.Background(), greedy)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(strings.TrimSpace(console(t, greedy, "took ")))

	var owner uint32
	ns, err := os.Open(linux.ProcFile(p.PID, "ns/user"))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, ns.Fd(), unix.NS_GET_OWNER_UID, uintptr(unsafe.Pointer(&owner))); errno != 0 || int(owner) != BaseID(671) {
		t.Errorf("the user namespace is %d's (%v), want %d's, the guest's root", owner, errno, BaseID(671))
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Errorf("the host's root has none left: %v", err)
	}
	unix.Close(fd)
	other, _ := guest(t, 672, "")
	asProgram(t, &other, "inotify")
	if _, err := Start(context.Background(), other); err != nil {
		t.Fatal(err)
	}
	if said := console(t, other, "took "); strings.HasPrefix(said, "took 0:") {
		t.Errorf("another guest: %s", said)
	}
}

func TestProcessesAreBoundedWithoutAController(t *testing.T) {
	sp, cg := guest(t, 673, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; echo all; exec sleep 1000")
	sp.Processes = 8
	if _, err := Start(context.Background(), sp); err != nil {
		t.Fatal(err)
	}
	console(t, sp, "can't fork")
	if pids, err := cg.PIDs(); err != nil || len(pids) > 8 {
		t.Errorf("processes %v (%v), want 8 at most", pids, err)
	}
	free, cg := guest(t, 674, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; echo all; exec sleep 1000")
	if _, err := Start(context.Background(), free); err != nil {
		t.Fatal(err)
	}
	console(t, free, "all")
	if pids, err := cg.PIDs(); err != nil || len(pids) != 13 {
		t.Errorf("a guest without a bound: processes %v (%v), want 13", pids, err)
	}
}

// TestNothingIsInheritedFromWhoeverStartsAGuest starts and enters a guest from a
// process that everything odd was done to which execve keeps.
func TestNothingIsInheritedFromWhoeverStartsAGuest(t *testing.T) {
	const odd = "VSFLEET_TEST_ODD"
	if os.Getenv(odd) == "" {
		const script = `trap "" HUP TERM USR1; umask 077
exec prlimit --nofile=200: --stack=1048576: --core=unlimited: --fsize=9000000000: --nproc=5000: --sigpending=100: --msgqueue=4096: --memlock=65536: \
	setarch -R choom -n 300 -- nice -n 5 ionice -c 3 taskset -c "$1" chrt --batch 0 "$0" -test.run '^TestNothingIsInheritedFromWhoeverStartsAGuest$'`
		cpus := field(t, os.Getpid(), "Cpus_allowed_list")
		first, _, _ := strings.Cut(cpus, "-")
		first, _, _ = strings.Cut(first, ",")
		cmd := exec.Command("sh", "-c", script, "/proc/self/exe", first)
		self, err := os.Readlink("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args[3] = self
		cmd.Env = append(os.Environ(), odd+"="+cpus, "VSFLEET_TEST_SHARED=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	runtimeOdd(t)
	sp, cg := guest(t, 675, "sleep", "1000")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	run, err := Exec(context.Background(), Command{InitPID: p.PID, Cgroup: cg, Scope: sp.Scope, Caps: sp.Caps, Argv: []string{"sleep", "1000"}, Env: sp.Env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	own := limits(0)
	amount := func(n uint64) string {
		if n == unix.RLIM_INFINITY {
			return "unlimited"
		}
		return fmt.Sprint(n)
	}
	for what, pid := range map[string]int{"process 1": p.PID, "a program that entered": run.pid} {
		stat := strings.Fields(read(t, pid, "stat"))
		class, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0)
		if errno != 0 {
			t.Error(errno)
		}
		for _, row := range []struct{ name, got, want string }{
			{"umask", field(t, pid, "Umask"), "0022"},
			{"ignored signals", field(t, pid, "SigIgn"), "0000000000000000"},
			{"blocked signals", field(t, pid, "SigBlk"), "0000000000000000"},
			{"processors", field(t, pid, "Cpus_allowed_list"), os.Getenv(odd)},
			{"nice", stat[18], "0"},
			{"scheduler", stat[40], "0"},
			{"oom_score_adj", strings.TrimSpace(read(t, pid, "oom_score_adj")), "0"},
			{"personality", strings.TrimSpace(read(t, pid, "personality")), "00000000"},
			{"timer slack", strings.TrimSpace(read(t, pid, "timerslack_ns")), "50000"},
			{"idle class of input and output", fmt.Sprint(class>>13 == 3), "false"},
			{"stack", limit(t, pid, "Max stack size"), "8388608"},
			{"core", limit(t, pid, "Max core file size"), "0"},
			{"files", limit(t, pid, "Max open files"), "1024"},
			{"file size", limit(t, pid, "Max file size"), "unlimited"},
			{"processes", limit(t, pid, "Max processes"), amount(own[unix.RLIMIT_NPROC].Cur)},
			{"locked memory", limit(t, pid, "Max locked memory"), "8388608"},
			{"pending signals", limit(t, pid, "Max pending signals"), amount(own[unix.RLIMIT_SIGPENDING].Cur)},
			{"message queues", limit(t, pid, "Max msgqueue size"), "819200"},
		} {
			if row.got != row.want {
				t.Errorf("%s of %s: %s, want %s", row.name, what, row.got, row.want)
			}
		}
	}
}

// runtimeOdd makes sure that the control works: this process is odd itself.
func runtimeOdd(t *testing.T) {
	t.Helper()
	if field(t, os.Getpid(), "Umask") != "0077" || limit(t, os.Getpid(), "Max pending signals") != "100" || strings.TrimSpace(read(t, os.Getpid(), "oom_score_adj")) != "300" {
		t.Fatal("this process is as any other")
	}
}

func read(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(linux.ProcFile(pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func field(t *testing.T, pid int, name string) string {
	t.Helper()
	_, rest, _ := strings.Cut(read(t, pid, "status"), "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// limit is a soft limit.
func limit(t *testing.T, pid int, name string) string {
	t.Helper()
	_, rest, _ := strings.Cut(read(t, pid, "limits"), "\n"+name)
	if f := strings.Fields(rest); len(f) > 0 {
		return f[0]
	}
	return ""
}

// TestDevicesAreTheGuestsOwn: a lock on /dev/null, or a watch, is not seen outside.
func TestDevicesAreTheGuestsOwn(t *testing.T) {
	sp, cg := guest(t, 676, "sleep", "1000")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		var host, theirs unix.Stat_t
		if err := unix.Stat("/dev/"+name, &host); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(filepath.Join(linux.ProcFile(p.PID, "root"), "dev", name), &theirs); err != nil {
			t.Fatal(err)
		}
		if host.Dev == theirs.Dev && host.Ino == theirs.Ino {
			t.Errorf("/dev/%s is the host's", name)
		}
		if host.Rdev != theirs.Rdev || theirs.Mode != unix.S_IFCHR|0o666 || int(theirs.Uid) != BaseID(676) {
			t.Errorf("/dev/%s: device %x, mode %o, owner %d", name, theirs.Rdev, theirs.Mode, theirs.Uid)
		}
	}
	for command, want := range map[string]string{
		"echo x >/dev/full": "No space left", "head -c 3 /dev/zero | wc -c": "3", "readlink /dev/fd": "/proc/self/fd",
		"echo x >/dev/pts/ptmx && echo ok": "ok", "echo y >/dev/shm/y && cat /dev/shm/y": "y",
	} {
		if got, _ := output(t, p, sp, cg, command); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

func TestNoNewPrivilegesAreRefused(t *testing.T) {
	got := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: it ends with the thread
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			got <- err
			return
		}
		got <- resetThread(Attributes{})
	}()
	if err := <-got; err == nil || !strings.Contains(err.Error(), "no_new_privs") {
		t.Errorf("error %v", err)
	}
}
