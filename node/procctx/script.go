package procctx

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A script is the list of system calls that a process makes between its birth
// and its execve. It is written down by the parent, where Go is whole, and run
// in the child, where only raw system calls are safe: the child is one thread
// that Go's runtime does not know of, on a stack of its own.
//
// That one thread is the point. Joining a user namespace needs a process with
// one thread (setns(2)), which a running Go program never is; and a child that
// never execs vsnode again leaves no binary of the host for a guest to reach
// through /proc/PID/exe (CVE-2019-5736).
type script struct {
	steps []step
	cells [maxCells]int32 // what is known only when the script runs
	used  int
	said  report        // what the child writes: that the program comes next, or what failed
	keep  []any         // what the addresses in steps point to
	fds   []int         // descriptors of ours that the child uses
	stack [8 << 10]byte // the child's
}

// newScript makes a script on the heap, always, where it stays in its place:
// the child uses it while the stack of the goroutine that made it may move.
//
//go:noinline
func newScript() *script { return new(script) }

const (
	maxCells = 192     // 32 mounts of a configuration, and what every guest has
	status   = cell(0) // of the pipe to the parent
)

// cell is the index of a value in script.cells: a descriptor that some step
// returns, or that the parent sends.
type cell int

// A step is one system call. What it returns may be kept in a cell and used as
// an argument further down.
type step struct {
	what   string // "mount /proc", for the error
	nr     uintptr
	args   [6]uintptr
	cells  uint8 // bit i: args[i] is a cell, whose value is meant
	result cell  // where the result goes; 0: nowhere
	min    int   // the least result that is success; below it: EPIPE
	allow  [2]syscall.Errno
}

// report is what the child writes to the status pipe: what failed, or with
// Errno 0 that the program comes next.
type report struct {
	Step  int32
	Errno int32
}

const reportSize = int(unsafe.Sizeof(report{}))

// call adds a system call. An argument is an int, a uintptr, a string (as C
// has them), a cell (its value when the script runs), or a pointer.
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
			s.keep = append(s.keep, a)
		default:
			panic(fmt.Sprintf("step %s: argument %d is a %T", what, i, a))
		}
	}
	s.steps = append(s.steps, st)
	return &s.steps[len(s.steps)-1]
}

// text keeps a C string and gives its address.
func (s *script) text(str string) uintptr {
	b := append([]byte(str), 0)
	s.keep = append(s.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// texts keeps a NULL-terminated array of C strings, as execve takes it.
func (s *script) texts(list []string) unsafe.Pointer {
	ptrs := make([]uintptr, len(list)+1)
	for i, str := range list {
		ptrs[i] = s.text(str)
	}
	s.keep = append(s.keep, ptrs)
	return unsafe.Pointer(&ptrs[0])
}

// fd is a descriptor of ours that the child uses: all others are closed there
// before anything else.
func (s *script) fd(f *os.File) int {
	s.keep = append(s.keep, f)
	s.fds = append(s.fds, int(f.Fd()))
	return int(f.Fd())
}

// closeInherited comes first. The child has copies of all that this process has
// open at its birth: locks, and ends of the pipes and sockets of other starts,
// which must not live on in a process that waits.
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

// open adds a system call whose result is a descriptor, and gives its cell.
func (s *script) open(what string, nr uintptr, args ...any) cell {
	st := s.call(what, nr, args...)
	st.result = s.cell()
	return st.result
}

// cell takes the next free cell.
func (s *script) cell() cell {
	s.used++
	if s.used == maxCells {
		panic("script: out of cells")
	}
	return cell(s.used)
}

// or tolerates an error: the step then counts as done.
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
// with CLONE_VM, in the same, which saves the copying. The script has to be
// kept until the process has ended or called execve: until outcome returns.
func (s *script) fork(args *cloneArgs) (pid int, err error) {
	// No handler of Go's may run in a process that Go does not know.
	args.flags |= unix.CLONE_CLEAR_SIGHAND // kernel 5.5
	base := uintptr(unsafe.Pointer(&s.stack))
	top := (base + unsafe.Sizeof(s.stack)) &^ 15
	args.stack, args.stackSize = uint64(base), uint64(top-base)
	pid, errno := s.unsignalled(args)
	if errno != 0 {
		return 0, fmt.Errorf("clone3: %w", syscall.Errno(errno))
	}
	return pid, nil
}

// unsignalled spawns with all signals blocked, which the child inherits: until
// the script lets them in they wait. Nothing here yields to the scheduler.
//
//go:nosplit
func (s *script) unsignalled(args *cloneArgs) (pid int, errno uintptr) {
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid, errno = spawn(args, s)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return pid, errno
}

// run makes the calls. No stack growth, no allocation, no write barrier: where
// it runs there is no Go runtime.
//
//go:nosplit
//go:norace
func run(s *script) {
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
			s.said.Step, s.said.Errno = int32(i), int32(errno)
			syscall.RawSyscall(unix.SYS_WRITE, uintptr(s.cells[status]), uintptr(unsafe.Pointer(&s.said)), uintptr(reportSize))
			break
		}
		if errno == 0 && st.result != status {
			s.cells[st.result] = int32(r)
		}
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// explain turns a report of failure into an error.
func (s *script) explain(r report) error {
	errno := syscall.Errno(r.Errno)
	if r.Step < 0 || int(r.Step) >= len(s.steps) {
		return fmt.Errorf("unknown step %d: %w", r.Step, errno)
	}
	return &StepError{What: s.steps[r.Step].what, Errno: errno}
}

// StepError says which step between a process's birth and its program failed.
type StepError struct {
	What  string
	Errno syscall.Errno
}

func (e *StepError) Error() string { return e.What + ": " + e.Errno.Error() }
func (e *StepError) Unwrap() error { return e.Errno }
