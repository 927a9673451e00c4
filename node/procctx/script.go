package procctx

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A script is the list of system calls that a process makes between clone3 and
// execve. The parent prepares it in ordinary Go; the child runs it, where only raw
// system calls are safe: the child is one thread unknown to Go's runtime, on a stack
// of its own.
//
// This way the child has only one thread, as joining a user namespace requires
// (setns(2)); a running Go program always has several. And because the child never
// execs vsnode again, a guest cannot reach a binary of the host through
// /proc/PID/exe (CVE-2019-5736).
type script struct {
	steps  []step
	cells  [maxCells]int32 // values known only when the script runs
	used   int
	report report        // written by the child: the program runs next, or a step failed
	refs   []any         // keeps alive what the addresses in steps point to
	fds    []int         // descriptors of ours that the child uses
	pidns  *joined       // the child is born there; nil: in ours
	stack  [8 << 10]byte // the child's
}

// newScript returns a script on the heap, where it does not move: the child uses it
// while the stack of the goroutine that made it may move.
//
//go:noinline
func newScript() *script { return new(script) }

// joined names a pid namespace, and the way back to ours, by pidfds of processes there.
type joined struct{ there, back int }

const (
	maxCells = 192     // enough for 32 configured mounts and what every guest has
	status   = cell(0) // of the pipe to the parent
)

// cell is the index of a value in script.cells: a descriptor that some step
// returns, or that the parent sends.
type cell int

// A step is one system call. Its result may be stored in a cell and used as an
// argument of later steps.
type step struct {
	what   string // "mount /proc", for the error
	nr     uintptr
	args   [6]uintptr
	cells  uint8 // bit i: args[i] is a cell that holds the argument
	result cell  // the cell for the result; 0: none
	min    int   // the least result that is success; below it: EPIPE
	allow  [2]syscall.Errno
}

// A report is written by the child to the status pipe: the step that failed, or
// with Errno 0 that the program runs next.
type report struct {
	Step  int32
	Errno int32
}

const reportSize = int(unsafe.Sizeof(report{}))

// call adds a system call. An argument is an int, a uintptr, a string (passed as a
// C string), a cell (its value when the script runs), or a pointer.
func (s *script) call(what string, nr uintptr, args ...any) *step {
	st := step{what: what, nr: nr}
	for i, a := range args {
		switch a := a.(type) {
		case int:
			st.args[i] = uintptr(a)
		case uintptr:
			st.args[i] = a
		case string:
			st.args[i] = s.text(a)
		case cell:
			st.args[i] = uintptr(a)
			st.cells |= 1 << i
		case unsafe.Pointer:
			st.args[i] = uintptr(a)
			s.refs = append(s.refs, a)
		default:
			panic(fmt.Sprintf("step %s: argument %d is a %T", what, i, a))
		}
	}
	s.steps = append(s.steps, st)
	return &s.steps[len(s.steps)-1]
}

// text keeps a C string alive and returns its address.
func (s *script) text(str string) uintptr {
	b := append([]byte(str), 0)
	s.refs = append(s.refs, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// texts returns a NULL-terminated array of C strings, as execve takes it.
func (s *script) texts(list []string) unsafe.Pointer {
	ptrs := make([]uintptr, len(list)+1)
	for i, str := range list {
		ptrs[i] = s.text(str)
	}
	s.refs = append(s.refs, ptrs)
	return unsafe.Pointer(&ptrs[0])
}

// fd returns the number of a descriptor that the child uses: the child closes all
// others before anything else.
func (s *script) fd(f *os.File) int {
	s.refs = append(s.refs, f)
	s.fds = append(s.fds, int(f.Fd()))
	return int(f.Fd())
}

// closeInherited puts the closing of descriptors before all steps. The child is
// born with copies of all descriptors of this process: locks, and ends of the pipes
// and sockets of other starts, which must not stay open in a process that waits.
func (s *script) closeInherited() {
	used := slices.Compact(slices.Sorted(slices.Values(s.fds)))
	ours, next := s.steps, 3
	s.steps = nil
	for _, fd := range used {
		if fd > next {
			s.call("close descriptors", unix.SYS_CLOSE_RANGE, next, fd-1, 0)
		}
		next = max(next, fd+1)
	}
	s.call("close descriptors", unix.SYS_CLOSE_RANGE, next, uintptr(^uint32(0)), 0)
	s.steps = append(s.steps, ours...)
}

// open adds a system call whose result is a descriptor, and returns its cell.
func (s *script) open(what string, nr uintptr, args ...any) cell {
	st := s.call(what, nr, args...)
	st.result = s.cell()
	return st.result
}

// cell allocates a cell.
func (s *script) cell() cell {
	s.used++
	if s.used == maxCells {
		panic("script: out of cells")
	}
	return cell(s.used)
}

// or allows an error: the script goes on after it.
func (st *step) or(errno syscall.Errno) *step {
	if st.allow[0] == 0 {
		st.allow[0] = errno
	} else {
		st.allow[1] = errno
	}
	return st
}

// cloneArgs is struct clone_args of clone3(2), up to the cgroup (kernel 5.7).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
	setTID, setTIDSize, cgroup                                           uint64
}

var _ [88]byte = [unsafe.Sizeof(cloneArgs{})]byte{} // as spawn_*.s has it

// spawn calls clone3 and run in the child.
func spawn(args *cloneArgs, s *script) (pid int, errno uintptr)

// fork makes a process that runs the script, in a copy of this one's memory or,
// with CLONE_VM, in the same, which saves the copying. The script must stay alive
// until the process has ended or called execve, that is, until outcome returns.
func (s *script) fork(args *cloneArgs) (pid int, err error) {
	// No signal handler of Go may run in a process that Go does not know.
	args.flags |= unix.CLONE_CLEAR_SIGHAND // kernel 5.5
	base := uintptr(unsafe.Pointer(&s.stack))
	top := (base + unsafe.Sizeof(s.stack)) &^ 15
	args.stack, args.stackSize = uint64(base), uint64(top-base)
	in := s.pidns
	if in == nil {
		in = &joined{-1, -1}
	}
	pid, errno, joining, returning := s.spawnBlocked(args, in.there, in.back)
	switch {
	case returning != 0: // Go could make no thread from this one
		panic("return to the host's pid namespace: " + returning.Error())
	case joining != 0:
		return 0, fmt.Errorf("join pid namespace: %w", joining)
	case errno != 0:
		return 0, cloneError(errno)
	}
	return pid, nil
}

// cloneError is the error of clone3. ENOSPC means the limits of namespaces (clone(2),
// namespaces(7)) and not a disk.
func cloneError(errno syscall.Errno) error {
	if errno == unix.ENOSPC {
		return fmt.Errorf("clone3: %w: the host's limit of namespaces is reached: raise it with sysctl -w user.max_user_namespaces=65536, or what else in /proc/sys/user is low", errno)
	}
	return fmt.Errorf("clone3: %w", errno)
}

// spawnBlocked spawns with all signals blocked. The child inherits that: signals
// stay pending until the script unblocks them. Nothing here yields to the scheduler, so
// that no thread is made while children of this one are born in another pid namespace:
// clone(2) would refuse it.
//
//go:nosplit
func (s *script) spawnBlocked(args *cloneArgs, there, back int) (pid int, errno, joining, returning syscall.Errno) {
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	if there >= 0 {
		_, _, joining = syscall.RawSyscall(unix.SYS_SETNS, uintptr(there), unix.CLONE_NEWPID, 0)
	}
	if joining == 0 {
		var failed uintptr
		pid, failed = spawn(args, s)
		errno = syscall.Errno(failed)
	}
	if there >= 0 && joining == 0 {
		_, _, returning = syscall.RawSyscall(unix.SYS_SETNS, uintptr(back), unix.CLONE_NEWPID, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return pid, errno, joining, returning
}

// run makes the calls, in the child. It must not grow the stack, allocate or use
// write barriers: the Go runtime does not exist there.
//
//go:nosplit
//go:norace
func run(s *script) {
	if s.makeCalls(); s.report.Errno != 0 {
		syscall.RawSyscall(unix.SYS_WRITE, uintptr(s.cells[status]), uintptr(unsafe.Pointer(&s.report)), uintptr(reportSize))
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// makeCalls makes the calls until one fails, and reports that one.
//
//go:nosplit
//go:norace
func (s *script) makeCalls() {
	for i := range s.steps {
		st := &s.steps[i]
		a := st.args
		for j := range a {
			if st.cells&(1<<j) != 0 {
				a[j] = uintptr(s.cells[a[j]])
			}
		}
		r, _, errno := syscall.RawSyscall6(st.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno == 0 && int(r) < st.min {
			errno = syscall.EPIPE
		}
		if errno != 0 && errno != st.allow[0] && errno != st.allow[1] {
			s.report.Step, s.report.Errno = int32(i), int32(errno)
			return
		}
		if errno == 0 && st.result != status {
			s.cells[st.result] = int32(r)
		}
	}
}

// perform makes the calls on this thread.
func (s *script) perform() error {
	if s.makeCalls(); s.report.Errno != 0 {
		return s.explain(s.report)
	}
	return nil
}

// explain turns a report of failure into an error.
func (s *script) explain(r report) error {
	errno := syscall.Errno(r.Errno)
	if r.Step < 0 || int(r.Step) >= len(s.steps) {
		return fmt.Errorf("unknown step %d: %w", r.Step, errno)
	}
	return &StepError{What: s.steps[r.Step].what, Errno: errno}
}

// StepError is the failure of a step between a process's birth and its program.
type StepError struct {
	What  string
	Errno syscall.Errno
}

func (e *StepError) Error() string { return e.What + ": " + e.Errno.Error() }
func (e *StepError) Unwrap() error { return e.Errno }
