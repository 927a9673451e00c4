package procctx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// Command is a program to run in a running guest.
type Command struct {
	InitPID    int        // the guest's process 1, as the host numbers it
	Cgroup     cgroup.Dir // the guest's
	PrivateNet bool
	Scope      bool
	Caps       CapSet
	Nesting    bool
	Raw        bool
	OwnUptime  bool // as Spec.OwnUptime
	User       User
	Argv       []string
	Env        []string
	Dir        string // in the guest; empty: /
	// Standard streams. With Terminal all three are its slave side, and it
	// becomes the controlling terminal of a new session.
	Stdin, Stdout, Stderr *os.File
	Terminal              bool
	Attributes
}

// User is the identity that a program runs with, in ids of the guest.
type User struct {
	UID, GID int
	Groups   []uint32
}

// Running is a program that runs in a guest, as started by Exec.
type Running struct{ pid int }

// ErrNotRunning means that a guest has no process 1, or no longer has one.
var ErrNotRunning = errors.New("guest is not running")

// enterTimeout bounds the time that entering may take: the entering process is in the
// guest's cgroup and at the mercy of its root, who can stop it.
var enterTimeout = 10 * time.Second

// Exec starts a program in a running guest: in all its namespaces and its cgroup,
// under the same seccomp filter as the guest's own processes.
func Exec(ctx context.Context, cmd Command) (*Running, error) {
	if err := checkBinaryHidden(); err != nil {
		return nil, err
	}
	return enter(ctx, cmd)
}

func enter(ctx context.Context, cmd Command) (*Running, error) {
	d, err := findDoor(cmd.InitPID, cmd.Cgroup)
	if err != nil {
		return nil, err
	}
	defer d.close()
	s, err := enterScript(cmd, d.pidfd)
	if err != nil {
		return nil, err
	}
	// Only children enter the pid namespace: a process cannot join one itself.
	own, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("open own pid namespace: %w", err)
	}
	defer unix.Close(own)
	s.pidns = &joined{d.pidfd, own}
	pid, err := d.enter(ctx, s)
	if err != nil {
		return nil, err
	}
	return &Running{pid: pid}, nil
}

// door is where a process enters a running guest.
type door struct {
	pidfd  int      // of its process 1
	cgroup *os.File // that of process 1
}

func (d door) close() {
	unix.Close(d.pidfd)
	d.cgroup.Close()
}

func findDoor(initPID int, guest cgroup.Dir) (d door, err error) {
	if d.pidfd, err = unix.PidfdOpen(initPID, 0); err != nil {
		return d, fmt.Errorf("%w: process %d: %w", ErrNotRunning, initPID, err)
	}
	defer func() {
		if err != nil {
			unix.Close(d.pidfd)
		}
	}()
	// Init's own cgroup: with systemd inside, the guest's outermost cgroup has
	// children and takes no process. It is read after the pidfd was opened, and the
	// pidfd is checked again below, so that a reused pid cannot lead elsewhere.
	dir, err := guest.Of(initPID)
	if errors.As(err, new(*fs.PathError)) {
		err = fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err != nil {
		return d, err
	}
	// Until init's program runs, it may still have the host's root directory.
	if linux.BeforeExec(initPID) {
		return d, fmt.Errorf("%w: it is being started", ErrNotRunning)
	}
	if err := unix.PidfdSendSignal(d.pidfd, 0, nil, 0); err != nil {
		return d, fmt.Errorf("%w: process %d: %w", ErrNotRunning, initPID, err)
	}
	d.cgroup, err = linux.Open(string(dir), os.O_RDONLY, 0)
	return d, err
}

// enter makes a process in the guest's cgroup that runs the script, and waits until the
// script has ended well.
func (d door) enter(ctx context.Context, s *script) (pid int, err error) {
	args := &cloneArgs{flags: unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(d.cgroup.Fd())}
	pid, pipe, err := s.launch(args)
	if err != nil {
		return 0, fmt.Errorf("enter guest: %w", err)
	}
	defer unix.Close(pipe)
	if err := s.outcome(ctx, pipe, enterTimeout); err != nil {
		// SIGKILL works whatever the guest did to it (SIGSTOP, a frozen cgroup).
		unix.Kill(pid, unix.SIGKILL)
		_, werr := wait(pid)
		switch over := ctx.Err(); {
		case errors.Is(err, context.DeadlineExceeded):
			err = fmt.Errorf("in the guest, who entered was stopped or frozen, or got no processor time for %v: %w", enterTimeout, context.DeadlineExceeded)
		case over != nil && errors.Is(err, over):
			err = over
		}
		return 0, errors.Join(err, werr)
	}
	return pid, nil
}

// enterScript returns the system calls that lead into a guest. The guest's root
// cannot inspect the process before execve (CVE-2016-9962): it is not dumpable, and
// its memory, a copy of ours, belongs to the host's user namespace.
func enterScript(cmd Command, pidfd int) (*script, error) {
	if err := mayGainPrivileges(); err != nil {
		return nil, err
	}
	s := newScript()
	s.call("become undumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	s.resetSchedule(cmd.Attributes)
	s.resetLimits(cmd.Attributes)
	flags := namespaces&^unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP
	if cmd.PrivateNet {
		flags |= unix.CLONE_NEWNET
	}
	if cmd.OwnUptime {
		flags |= unix.CLONE_NEWTIME
	}
	s.fds = append(s.fds, pidfd)
	s.call("join namespaces", unix.SYS_SETNS, pidfd, flags)
	// Move all streams out of the way first: one may occupy another's number.
	var streams [3]cell
	for fd, f := range []*os.File{cmd.Stdin, cmd.Stdout, cmd.Stderr} {
		streams[fd] = s.open("keep standard stream", unix.SYS_FCNTL, s.fd(f), unix.F_DUPFD_CLOEXEC, 3)
	}
	for fd, stream := range streams {
		s.call("set standard stream", unix.SYS_DUP3, stream, fd, 0)
	}
	// Always: in vsnode's session, /dev/tty is the administrator's terminal.
	s.call("become session leader", unix.SYS_SETSID)
	if cmd.Terminal {
		s.call("take terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	if err := s.confine(cmd.Caps, cmd.Scope, cmd.PrivateNet, cmd.Nesting, cmd.Raw); err != nil {
		return nil, err
	}
	s.become(cmd.User.UID, cmd.User.GID, cmd.User.Groups)
	s.resetInherited(cmd.Attributes)
	dir := cmd.Dir
	if dir == "" {
		dir = "/"
	}
	s.call("enter "+dir, unix.SYS_CHDIR, dir)
	s.exec(nil, cmd.Argv, cmd.Env)
	return s, nil
}

// Wait waits for the program to end and returns its exit status, or 128 plus the
// signal's number if a signal ended it, as shells do.
func (r *Running) Wait() (int, error) {
	ws, err := wait(r.pid)
	if err != nil {
		return 0, err
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// Soon reports whether the program ends within 2 ms, in a process that is [linux.Alone].
func (r *Running) Soon() bool {
	pidfd, err := unix.PidfdOpen(r.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	return linux.PollBriefly(time.Second, unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN})
}

// Signal sends the program a signal.
func (r *Running) Signal(sig unix.Signal) error { return unix.Kill(r.pid, sig) }

// SignalGroup sends a signal to the program's process group, which it leads.
func (r *Running) SignalGroup(sig unix.Signal) error { return unix.Kill(-r.pid, sig) }

// Shutdown asks a guest's init to end: systemd by SIGRTMIN+3, any other by sig.
// An init that does not catch the signal would not notice it (process 1 of a
// namespace has no default actions): then there is nothing to wait for, and
// Shutdown returns false.
func Shutdown(initPID int, sig unix.Signal) (bool, error) {
	pidfd, err := unix.PidfdOpen(initPID, 0)
	if err != nil {
		return false, nil // gone
	}
	defer unix.Close(pidfd)
	b, err := linux.ReadFile(linux.ProcFile(initPID, "status"))
	if err != nil {
		return false, nil
	}
	status := string(b)
	if isSystemd(status) {
		sig = sigRTMin + 3
	}
	if !catches(status, sig) && !awaitsSignals(initPID) {
		return false, nil
	}
	if err := linux.SignalStopped(pidfd, sig); err != nil {
		return false, fmt.Errorf("signal init (process %d): %w", initPID, err)
	}
	return true, nil
}

// IsSystemd reports whether a guest's init calls itself systemd.
func IsSystemd(initPID int) bool {
	b, err := linux.ReadFile(linux.ProcFile(initPID, "status"))
	return err == nil && isSystemd(string(b))
}

func isSystemd(status string) bool { return strings.HasPrefix(status, "Name:\tsystemd\n") }

// sigRTMin is glibc's SIGRTMIN: glibc reserves the kernel's first two.
const sigRTMin = unix.Signal(34)

// awaitsSignals reports whether a process waits in sigwaitinfo(2), as busybox's init
// does: those that it waits for are meanwhile not in SigBlk. (The file is the name of a
// function of the kernel; /proc/PID/syscall is unreadable where
// kernel.yama.ptrace_scope is 3.)
func awaitsSignals(pid int) bool {
	b, _ := linux.ReadFile(linux.ProcFile(pid, "wchan"))
	return strings.Contains(string(b), "sigtimedwait")
}

// catches reports whether a process handles a signal according to its
// /proc/PID/status: by a handler (SigCgt), or blocked for a signalfd (SigBlk), as
// systemd does.
func catches(status string, sig unix.Signal) bool {
	for _, name := range []string{"\nSigCgt:\t", "\nSigBlk:\t"} {
		_, rest, ok := strings.Cut(status, name)
		var mask uint64
		if !ok {
			continue
		}
		if _, err := fmt.Sscanf(rest, "%x", &mask); err == nil && mask&(1<<(sig-1)) != 0 {
			return true
		}
	}
	return false
}
