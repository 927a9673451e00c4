package procctx

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// A guest is the same whoever starts it: from cron with nice 10, from a shell with
// ulimit, from a unit with a CPU mask, by nohup. Every attribute that children
// inherit and execve keeps is reset to what the kernel gives the first process of a
// machine, for a guest's process 1 and for each program that enters.

const rlimits = 16 // RLIM_NLIMITS

// limits returns the resource limits of the kernel's first process (INIT_RLIMITS),
// with systemd's ceiling of open files. processes bounds those of one user; 0 means
// the kernel's default, half of what the machine can have. Without CAP_SYS_RESOURCE
// (a host in a container) no limit exceeds our own.
func limits(processes int64) [rlimits]unix.Rlimit {
	var list [rlimits]unix.Rlimit
	for i := range list {
		list[i] = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	}
	half := uint64(unix.RLIM_INFINITY)
	if b, err := linux.ReadFile("/proc/sys/kernel/threads-max"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			half = n / 2
		}
	}
	if processes == 0 {
		processes = int64(min(half, 1<<62))
	}
	set := func(which int, soft, hard uint64) { list[which] = unix.Rlimit{Cur: soft, Max: hard} }
	set(unix.RLIMIT_STACK, 8<<20, unix.RLIM_INFINITY)
	set(unix.RLIMIT_CORE, 0, unix.RLIM_INFINITY)
	set(unix.RLIMIT_NPROC, uint64(processes), uint64(processes))
	set(unix.RLIMIT_NOFILE, 1024, 512<<10) // select(2) can hold 1024
	set(unix.RLIMIT_MEMLOCK, 8<<20, 8<<20)
	set(unix.RLIMIT_SIGPENDING, half, half)
	set(unix.RLIMIT_MSGQUEUE, 800<<10, 800<<10)
	set(unix.RLIMIT_NICE, 0, 0)
	set(unix.RLIMIT_RTPRIO, 0, 0)
	if mayRaiseLimits() {
		return list
	}
	for which := range list {
		var own unix.Rlimit
		if unix.Prlimit(0, which, nil, &own) == nil {
			list[which].Max = min(list[which].Max, own.Max)
			list[which].Cur = min(list[which].Cur, list[which].Max)
		}
	}
	return list
}

// limits returns a guest's limits: the defaults, overridden by its configuration.
func (a Attributes) limits(processes int64) [rlimits]unix.Rlimit {
	return a.override(limits(processes), processes)
}

func (a Attributes) override(list [rlimits]unix.Rlimit, processes int64) [rlimits]unix.Rlimit {
	bound := list[unix.RLIMIT_NPROC]
	for which, limit := range a.Rlimits {
		list[which] = limit
	}
	if nproc := &list[unix.RLIMIT_NPROC]; processes > 0 { // the limit per user must not exceed that for all users
		nproc.Cur, nproc.Max = min(nproc.Cur, bound.Cur), min(nproc.Max, bound.Max)
	}
	return list
}

// initially returns the limits of a process until it runs the guest's program.
func initially(list [rlimits]unix.Rlimit) [rlimits]unix.Rlimit {
	files := &list[unix.RLIMIT_NOFILE]
	files.Cur, files.Max = max(files.Cur, minOpenFiles), max(files.Max, minOpenFiles)
	return list
}

// minOpenFiles is the number of files that may be open until the guest's program
// runs, even if the program itself may open fewer.
const minOpenFiles = 1024

// mayRaiseLimits reports whether this process has CAP_SYS_RESOURCE.
func mayRaiseLimits() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// resetThread resets the attributes of the calling thread that its children
// inherit and only the host's root may raise.
func resetThread(a Attributes) error {
	if err := mayGainPrivileges(); err != nil {
		return err
	}
	s := newScript()
	s.resetSchedule(a)
	return s.perform()
}

// mayGainPrivileges fails if no_new_privs is set, which cannot be reset and would keep
// every setuid program of the guest from working.
func mayGainPrivileges() error {
	if on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || on != 0 {
		return errors.Join(err, errors.New("vsnode runs with no_new_privs (NoNewPrivileges= in a unit, setpriv), which would keep su, sudo and every other setuid program of the guest from working; start it without"))
	}
	return nil
}

// resetSchedule resets scheduler, priority, processors and I/O class, which only the
// host's root may raise; and the timer slack.
func (s *script) resetSchedule(a Attributes) {
	// SCHED_OTHER, not reset in children.
	scheduler := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: int32(a.Nice)}
	s.call("set scheduler", unix.SYS_SCHED_SETATTR, 0, unsafe.Pointer(scheduler), 0)
	// The kernel ignores processors that do not exist or that cpuset.cpus forbids.
	all := new([1024]byte)
	for i := range all {
		all[i] = 0xff
	}
	s.call("set processors", unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*all), unsafe.Pointer(all))
	class := s.call("set class of input and output", unix.SYS_IOPRIO_SET, whoProcess, 0, a.IOPriority)
	if a.IOPriority == 0 {
		class.or(unix.ENOSYS)
	}
	s.call("set timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, 50_000, 0, 0, 0) // nanoseconds; the kernel's own
}

// resetInherited resets what every process may set for itself: the umask, the personality
// (setarch), the limit of open files, and signal dispositions, of which clone3 keeps
// ignored ones (nohup).
func (s *script) resetInherited(a Attributes) {
	s.call("set umask", unix.SYS_UMASK, 0o022)
	s.call("set personality", unix.SYS_PERSONALITY, int(a.Personality))
	if limit, given := a.Rlimits[unix.RLIMIT_NOFILE]; given {
		s.refs = append(s.refs, &limit)
		s.call("limit open files", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, unsafe.Pointer(&limit), 0)
	}
	byDefault := new([4]uint64) // struct sigaction of the kernel
	s.refs = append(s.refs, byDefault)
	for sig := 1; sig <= 64; sig++ {
		if unix.Signal(sig) != unix.SIGKILL && unix.Signal(sig) != unix.SIGSTOP {
			s.call("reset signals", unix.SYS_RT_SIGACTION, sig, unsafe.Pointer(byDefault), 0, 8)
		}
	}
}

// resetLimits sets the resource limits and oom_score_adj, in a process that
// still runs as the host's root.
func (s *script) resetLimits(a Attributes) {
	list := initially(a.limits(0))
	s.refs = append(s.refs, &list)
	for which := range list {
		s.call("set limits", unix.SYS_PRLIMIT64, 0, which, unsafe.Pointer(&list[which]), 0)
	}
	adj := s.open("open oom_score_adj", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC)
	score := strconv.Itoa(a.OOMScoreAdj)
	s.call("set oom_score_adj", unix.SYS_WRITE, adj, score, len(score))
}

// limitProcess does the same to a process from outside. While the process shares
// our memory, the kernel gives us the same oom_score_adj.
func limitProcess(pid int, list [rlimits]unix.Rlimit) error {
	for which := range list {
		if err := unix.Prlimit(pid, which, &list[which], nil); err != nil {
			return fmt.Errorf("set limits of process %d: %w", pid, err)
		}
	}
	if err := linux.WriteFile(linux.ProcFile(pid, "oom_score_adj"), []byte("0"), 0); err != nil {
		return fmt.Errorf("set oom_score_adj: %w", err)
	}
	return nil
}

// userLimits are the limits that a user namespace takes over from its creator, as
// bounds of all its users together (create_user_ns).
var userLimits = [...]int{unix.RLIMIT_NPROC, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_SIGPENDING, unix.RLIMIT_MEMLOCK}

// limitsMu serializes starts in withUserLimits: limits belong to the whole process.
var limitsMu sync.Mutex

// withUserLimits runs f, which forks, with those of the limits. Only soft limits count, and
// only they can be restored without CAP_SYS_RESOURCE.
func withUserLimits(list [rlimits]unix.Rlimit, f func() error) (err error) {
	limitsMu.Lock()
	defer limitsMu.Unlock()
	for _, which := range userLimits {
		var old unix.Rlimit
		if err := unix.Prlimit(0, which, nil, &old); err != nil {
			return fmt.Errorf("read limits: %w", err)
		}
		if err := unix.Prlimit(0, which, &unix.Rlimit{Cur: list[which].Cur, Max: max(old.Max, list[which].Max)}, nil); err != nil {
			return fmt.Errorf("set limits: %w", err)
		}
		defer func() {
			if rerr := unix.Prlimit(0, which, &old, nil); rerr != nil && err == nil {
				err = fmt.Errorf("set limits back: %w", rerr)
			}
		}()
	}
	return f()
}
