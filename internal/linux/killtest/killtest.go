// Package killtest ends a program before one of the system calls by which it changes
// something, for tests of what a kill at any moment leaves.
//
// The program is traced (ptrace(2)) with all its threads; processes that it starts are not.
// Each of these calls counts: what makes, renames or removes a file, a mount or a program of
// BPF, what writes to a file, and what asks the kernel by netlink. Before the k-th of them
// the whole program gets SIGKILL, and the call is not made. So between two kills lies one
// change, and a test that kills before each has seen every state that a kill can leave. Only
// the order in which threads make their calls can differ from run to run.
package killtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Result is how a program ended.
type Result struct {
	Changes int  // calls that change something, which it made or was about to make
	Killed  bool // before one of them
	Status  int  // the exit status of one that was not killed
}

// Steps returns before which of the changes of a program to kill it: before each with
// KILL_STEPS=all in the environment, else before some that KILL_SEED chooses.
func Steps(t testing.TB, changes, some int) (steps []int) {
	t.Helper()
	for k := range changes {
		steps = append(steps, k+1)
	}
	if os.Getenv("KILL_STEPS") == "all" {
		t.Logf("killed before each of %d changes", changes)
		return steps
	}
	seed, err := strconv.ParseUint(os.Getenv("KILL_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	if testing.Short() {
		some = min(some, 6)
	}
	steps = steps[:min(some, changes)]
	t.Logf("of %d changes killed before %d (KILL_SEED=%d)", changes, steps, seed)
	return steps
}

// Run runs a program and kills it before the k-th call that changes something; 0: never.
func Run(t testing.TB, k int, env []string, argv ...string) Result {
	t.Helper()
	type end struct {
		Result
		err error
	}
	ended := make(chan end)
	go func() {
		runtime.LockOSThread() // which traces; it ends with this function
		r, err := run(k, env, argv)
		ended <- end{r, err}
	}()
	e := <-ended
	if e.err != nil {
		t.Fatalf("trace %q: %v", argv, e.err)
	}
	return e.Result
}

func run(k int, env, argv []string) (r Result, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return r, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Env: env, Files: []uintptr{null.Fd(), null.Fd(), 2}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return r, err
	}
	set := false
	known := map[int]bool{pid: true} // threads that have begun
	for {
		var status unix.WaitStatus
		// Of this thread only: the test may have other children.
		thread, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return r, err
		}
		if status.Exited() || status.Signaled() {
			if thread == pid {
				r.Status = status.ExitStatus()
				return r, nil
			}
			continue
		}
		if !set {
			if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
				return r, err
			}
			set = true
		}
		signal := status.StopSignal()
		switch {
		case signal == unix.SIGTRAP|0x80:
			signal = 0
			if changes(thread) && !r.Killed {
				if r.Changes++; r.Changes == k {
					r.Killed = true
					if err := unix.Kill(pid, unix.SIGKILL); err != nil {
						return r, err
					}
				}
			}
		case signal == unix.SIGTRAP, signal == unix.SIGSTOP && !known[thread]:
			signal = 0
		}
		known[thread] = true
		if err := unix.PtraceSyscall(thread, int(signal)); err != nil && !errors.Is(err, unix.ESRCH) { // killed
			return r, err
		}
	}
}

// A call is struct ptrace_syscall_info at the entry of a system call.
type call struct {
	op     uint8
	_      [3]uint8
	arch   uint32
	ip, sp uint64
	number uint64
	args   [6]uint64
	_      [8]byte
}

const entry = 1

// changes reports whether a thread is at the entry of a call that changes something.
func changes(thread int) bool {
	var c call
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread), unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c)), 0, 0)
	if errno != 0 || n == 0 || c.op != entry {
		return false
	}
	switch c.number {
	case unix.SYS_OPENAT:
		return c.args[2]&unix.O_CREAT != 0
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", thread, int(c.args[0])))
		return err == nil && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/dev/")
	case unix.SYS_CLONE:
		return c.args[0]&unix.CLONE_THREAD == 0
	}
	return changing[c.number]
}

var changing = map[uint64]bool{
	unix.SYS_MKDIRAT: true, unix.SYS_UNLINKAT: true, unix.SYS_RENAMEAT: true, unix.SYS_RENAMEAT2: true, unix.SYS_LINKAT: true,
	unix.SYS_SYMLINKAT: true, unix.SYS_MKNODAT: true, unix.SYS_FCHMODAT: true, unix.SYS_FCHMOD: true, unix.SYS_FCHOWNAT: true,
	unix.SYS_FCHOWN: true, unix.SYS_FTRUNCATE: true, unix.SYS_SETXATTR: true, unix.SYS_LSETXATTR: true, unix.SYS_FSETXATTR: true,
	unix.SYS_REMOVEXATTR: true, unix.SYS_FREMOVEXATTR: true, unix.SYS_COPY_FILE_RANGE: true, unix.SYS_UTIMENSAT: true,
	unix.SYS_MOUNT: true, unix.SYS_UMOUNT2: true, unix.SYS_MOVE_MOUNT: true, unix.SYS_FSMOUNT: true, unix.SYS_MOUNT_SETATTR: true,
	unix.SYS_OPEN_TREE: true, unix.SYS_UNSHARE: true, unix.SYS_SETNS: true, unix.SYS_CLONE3: true,
	unix.SYS_BPF: true, unix.SYS_SENDTO: true, unix.SYS_SENDMSG: true,
	unix.SYS_KILL: true, unix.SYS_PIDFD_SEND_SIGNAL: true,
}
