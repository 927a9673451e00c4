package procctx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Spec describes what a guest's first process is born into.
type Spec struct {
	XID      int
	Hostname string
	Domain   string // NIS domain name; empty: the kernel's "(none)"
	Root     Root
	Cgroup   *os.File // the guest's fresh cgroup: it is born in it (CLONE_INTO_CGROUP, kernel 5.7)
	// PrivateNet gives the guest a network namespace of its own. Connect, if not
	// nil, sets it up before the guest's program runs.
	PrivateNet bool
	Connect    func(netns *os.File) error
	Warn       func(text string) // of what a guest starts without; may be nil
	Scope      bool              // block the host's abstract Unix sockets with Landlock
	Caps       CapSet
	Nesting    bool // the guest may create user and network namespaces
	Raw        bool // with PrivateNet: the guest may open raw and packet sockets
	OwnUptime  bool // the guest's uptime counts from its start (probe.TimeNamespaces)
	// Processes limits the processes of all users of the guest together, where
	// no cgroup controller does; 0: half of what the machine can have.
	Processes int64
	Argv      []string // Argv[0] is looked up in the guest, in Env's PATH if it has no slash
	Env       []string
	// Reaper makes Argv a child of a process 1 of ours, which ends when the guest has no
	// other process: see reaper.go.
	Reaper bool
	Run    []RunFile
	// Console is the guest's standard output and error. If it is nil, ConsoleNode
	// is, a file below the guest's /proc; without either, /dev/null.
	Console     *os.File
	ConsoleNode string
	DevConsole  bool // mount ConsoleNode on /dev/console too
	// Born, if not nil, is called with the process while it waits.
	Born    func(pid int)
	Devices []Device
	// AddToDev adds to the guest's /dev, if not nil, before the guest sees it.
	AddToDev func(dev *os.File) error
	Mounts   []Mount
	Sysctls  []Sysctl
	Attributes
}

// Device is a device node in a guest's /dev.
type Device struct {
	Name         string // below /dev; may have directories
	Mode         uint32 // type and permissions
	Major, Minor uint32
}

// Attributes are inherited by a program from the process that starts it.
type Attributes struct {
	Nice        int
	Rlimits     map[int]unix.Rlimit // by RLIMIT_*
	IOPriority  int                 `json:",omitempty"` // as ioprio_set(2) takes it; 0: by nice
	Personality uint32              `json:",omitempty"` // flags of personality(2)
	// OOMScoreAdj, -1000 to 1000, is given to programs that enter at once. The guest's
	// first process shares memory with vsnode until it runs its program: [Change] gives
	// it to that. No process of the guest can go below it.
	OOMScoreAdj int `json:",omitempty"`
}

// Sysctl is a kernel parameter that is written from inside the guest. Writing one
// that the guest's root may not write fails.
type Sysctl struct {
	Line  string // of the configuration that asks for it, for errors
	Path  string // below /proc/sys
	Value string
}

// Process is a guest's process 1, as started by Start.
type Process struct {
	PID int // as the host numbers it
}

// namespaces are those that every guest is born into. A private network adds a
// network namespace. The cgroup namespace is unshared in the child: clone3 would
// root it at the parent's cgroup (copy_cgroup_ns), not at that of CLONE_INTO_CGROUP.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// Start starts a guest. It returns once the guest's program has taken over as
// process 1; on error nothing is left but the (empty) cgroup.
func Start(ctx context.Context, sp Spec) (Process, error) {
	if err := checkBinaryHidden(); err != nil {
		return Process{}, err
	}
	return start(ctx, sp)
}

func start(ctx context.Context, sp Spec) (Process, error) {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return Process{}, err
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return Process{}, err
	}
	defer ours.Close()
	defer theirs.Close()
	var reaper *os.File
	if sp.Reaper {
		if reaper, err = openReaper(); err != nil {
			return Process{}, err
		}
		defer reaper.Close()
	}
	opened, err := openSources(sp.Mounts)
	if err != nil {
		return Process{}, err
	}
	defer closeSources(opened)
	s, err := startScript(sp, theirs, reaper, opened)
	if err != nil {
		return Process{}, err
	}
	// CLONE_VM: until it runs the guest's program, the guest's only process may
	// share this one's memory.
	flags := uint64(namespaces | unix.CLONE_INTO_CGROUP | unix.CLONE_VM)
	if sp.PrivateNet {
		flags |= unix.CLONE_NEWNET
	}
	if sp.OwnUptime {
		flags |= unix.CLONE_NEWTIME
	}
	l, err := s.launchAs(sp, &cloneArgs{flags: flags, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(sp.Cgroup.Fd())})
	defer l.release()
	if err != nil {
		return Process{}, err
	}
	defer unix.Close(l.pipe)
	pid := l.pid
	// The child's end of the socket must close with the child, so that neither
	// side waits for the other forever.
	theirs.Close()
	err = func() error {
		for _, prepare := range []func() error{
			func() error { return sp.begin(pid) },
			func() error { return sp.mount(ctx, pid, opened, l.do) },
		} {
			if err := errors.Join(prepare(), ctx.Err()); err != nil {
				return err
			}
			if _, err := ours.Write([]byte{1}); err != nil && !errors.Is(err, unix.EPIPE) {
				return fmt.Errorf("write to process %d: %w", pid, err)
			}
		}
		return nil
	}()
	if err != nil {
		unix.Kill(pid, unix.SIGKILL) // before it sees the socket closed, which it would report
	}
	ours.Close()
	if outcome := s.outcome(ctx, l.pipe, unbounded); err == nil || !errors.Is(outcome, errKilled) {
		err = errors.Join(err, outcome)
	}
	if err != nil {
		unix.Kill(pid, unix.SIGKILL)
		wait(pid)
		return Process{}, explain(err)
	}
	return Process{PID: pid}, nil
}

// begin does what the process waits for first.
func (sp Spec) begin(pid int) error {
	if sp.Born != nil {
		sp.Born(pid)
	}
	if err := mapIDs(pid, sp.XID); err != nil || !sp.OwnUptime {
		return err
	}
	return beginClocks(pid)
}

// mount makes the mounts that only the host's root can make (the idmapped root, /sys,
// /dev, bind mounts) and puts them on the stage. do calls a function on the thread in
// the workshop.
func (sp Spec) mount(ctx context.Context, pid int, opened []openedMount, do func(func() error) error) (err error) {
	userns, err := linux.Open(linux.ProcFile(pid, "ns/user"), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer userns.Close()
	sys, err := sp.sys(pid)
	if err != nil {
		return err
	}
	defer sys.Close()
	dev, err := makeDev(sp.XID, sp.Devices)
	if err != nil {
		return fmt.Errorf("make /dev: %w", err)
	}
	defer dev.Close()
	if sp.AddToDev != nil {
		if err := sp.AddToDev(dev); err != nil {
			return fmt.Errorf("make /dev: %w", err)
		}
	}
	bound, err := binds(opened, userns, sp.XID)
	if err != nil {
		return err
	}
	defer closeAll(bound)
	return do(func() error {
		root, err := sp.Root.mount(ctx, userns, sp.XID)
		if err != nil {
			return fmt.Errorf("mount root: %w", err)
		}
		defer root.Close()
		if readOnly(root) && sp.Warn != nil {
			sp.Warn("its root is read-only until its next start, as overlayfs could make no directory in " + sp.Root.Work + ": is its disk full, or its limit of disk space or inodes reached?")
		}
		err = errors.Join(putOnStage(root, stagedRoot), putOnStage(sys, stagedSys), putOnStage(dev, stagedDev))
		for i, bind := range bound {
			err = errors.Join(err, putOnStage(bind, stagedBind(i)))
		}
		return err
	})
}

// sys makes the guest's /sys. A private network is set up first.
func (sp Spec) sys(pid int) (*os.File, error) {
	if !sp.PrivateNet {
		return hostSys()
	}
	netns, err := linux.Open(linux.ProcFile(pid, "ns/net"), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	if sp.Connect != nil {
		if err := sp.Connect(netns); err != nil {
			return nil, err
		}
	}
	return netSys(netns)
}

// explain adds a cure or a cause to the most frequent errors of a start.
func explain(err error) error {
	var st *StepError
	if !errors.As(err, &st) {
		return err
	}
	switch dir, isMount := strings.CutPrefix(st.What, "mount "); {
	case st.Errno == unix.ENOENT && strings.HasPrefix(st.What, "find "):
		return fmt.Errorf("%w in the guest", err)
	case isMount && (st.Errno == unix.ENOTDIR || st.Errno == unix.EINVAL) && strings.HasSuffix(st.What, ")"):
		return fmt.Errorf("%w: a directory goes onto a directory, a file onto a file", err)
	case st.Errno == unix.ENOENT && strings.HasPrefix(st.What, "run "):
		return fmt.Errorf("%w: the guest has no such program (or not the interpreter or loader that it names)", err)
	case isMount && (st.Errno == unix.EINVAL || st.Errno == unix.ENOTDIR):
		return fmt.Errorf("%w: %s in the guest's root is no directory", err, dir)
	}
	return err
}

// launch forks and returns the child's pid and its status pipe.
func (s *script) launch(args *cloneArgs) (pid, pipe int, err error) {
	var ends [2]int // not os.Pipe's: Poll waits for it, not Go
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return 0, 0, fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(ends[1])
	s.cells[status] = int32(ends[1])
	s.fds = append(s.fds, ends[1])
	s.closeInherited()
	pid, err = s.fork(args)
	if err != nil {
		unix.Close(ends[0])
		return 0, 0, err
	}
	return pid, ends[0], nil
}

// launched is a guest's first process, and the thread that made it: the guest's root,
// in the workshop.
type launched struct {
	pid  int
	pipe int
	jobs chan func()
}

// do calls f on the thread.
func (l launched) do(f func() error) (err error) {
	done := make(chan struct{})
	l.jobs <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

// release lets the thread end.
func (l launched) release() { close(l.jobs) }

// launchAs forks as the guest's root, so that the guest's user namespace belongs
// to that user: what the kernel counts per user and all user namespaces of that
// user (inotify instances, message queues, pending signals, timers, nested
// namespaces, processes; ucounts in the kernel) is then counted separately for each
// guest. If the host's root owned them, one guest could exhaust them for the other
// guests and for the host.
//
// The child shares this process's memory, including the thread-local storage of
// the thread that made it: that thread stays until release, which must be called
// once the child runs its program or is gone, also after an error.
func (s *script) launchAs(sp Spec, args *cloneArgs) (launched, error) {
	ordinary := limits(sp.Processes)
	own := sp.override(ordinary, sp.Processes)
	ofAll := own // users together
	ofAll[unix.RLIMIT_NPROC] = ordinary[unix.RLIMIT_NPROC]
	l := launched{jobs: make(chan func())}
	born := make(chan error)
	go linux.OnOwnThread(func() (none struct{}, _ error) {
		born <- func() error {
			if err := resetThread(sp.Attributes); err != nil {
				return err
			}
			if err := actAsCreator(sp.XID); err != nil {
				return err
			}
			if err := errors.Join(enterWorkshop(), makeStage()); err != nil {
				return err
			}
			if err := withUserLimits(ofAll, func() (err error) {
				l.pid, l.pipe, err = s.launch(args)
				return err
			}); err != nil {
				return err
			}
			// On this thread, which owns the child's namespace.
			err := limitProcess(l.pid, initially(own))
			if err != nil {
				unix.Kill(l.pid, unix.SIGKILL)
				wait(l.pid)
				unix.Close(l.pipe)
			}
			return err
		}()
		for job := range l.jobs {
			job()
		}
		return none, nil
	})
	err := <-born
	return l, err
}

// unbounded is a time that no process waits.
const unbounded = 1 << 62 * time.Nanosecond

// outcome reads the status pipe to its end: it closes when the program runs.
// When ctx ends, or after that time, the error is that of ctx, and the process may still
// be waiting.
func (s *script) outcome(ctx context.Context, pipe int, within time.Duration) (err error) {
	defer runtime.KeepAlive(s)
	buf := make([]byte, reportSize)
	until := time.Now().Add(within)
	for ran := false; ; {
		ready, perr := linux.Poll(ctx, time.Until(until), unix.PollFd{Fd: int32(pipe), Events: unix.POLLIN})
		if perr == nil && !ready {
			perr = context.DeadlineExceeded
		}
		if perr != nil {
			return fmt.Errorf("read status: %w", perr)
		}
		n, rerr := unix.Read(pipe, buf) // whole reports: pipe(7), PIPE_BUF
		switch {
		case errors.Is(rerr, unix.EINTR):
			continue
		case rerr != nil:
			return fmt.Errorf("read status: %w", rerr)
		case n < reportSize && err == nil && !ran:
			return errKilled
		case n < reportSize:
			return err
		}
		if rep := *(*report)(unsafe.Pointer(&buf[0])); rep.Errno != 0 {
			err = s.explain(rep)
		} else {
			ran = true
		}
	}
}

var errKilled = errors.New("the process was killed before its program could run")

// wait reaps a child and returns its wait status.
func wait(pid int) (unix.WaitStatus, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return ws, err
		}
	}
}

func socketpair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
