package procctx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// Change gives the processes of a running guest other attributes than they began with.
// A process that has chosen a value of its own keeps it, but no limit exceeds a new
// hard one. Processes that are born meanwhile are changed too. If killed, call it
// again.
func Change(guest cgroup.Dir, from, to Attributes) error {
	// A child has what its parent had when it was born: once a round finds no process
	// that is unknown, no parent is left that has the old value.
	done := map[int]bool{}
	for range 100 {
		pids, err := guest.PIDs()
		if err != nil {
			return err
		}
		unknown := false
		for _, pid := range pids {
			if done[pid] {
				continue
			}
			unknown, done[pid] = true, true
			// A number may have become somebody else's.
			if _, err := guest.Of(pid); err != nil {
				continue
			}
			err := changeProcess(pid, from, to)
			if errors.Is(err, unix.EPERM) && !mayRaiseLimits() {
				return fmt.Errorf("change process %d: %w: vsnode has no CAP_SYS_RESOURCE on this host: restart the guest", pid, err)
			}
			if err != nil && !ended(err) {
				return fmt.Errorf("change process %d: %w", pid, err)
			}
		}
		if !unknown {
			return nil
		}
	}
	return errors.New("change its processes: it makes new ones faster than they can be changed: limit its processes, or restart it")
}

func ended(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

func changeProcess(pid int, from, to Attributes) error {
	was, is := from.limits(0), to.limits(0)
	for which := range is {
		if was[which] == is[which] {
			continue
		}
		var now unix.Rlimit
		if err := unix.Prlimit(pid, which, nil, &now); err != nil {
			return fmt.Errorf("read its limits: %w", err)
		}
		next := is[which]
		if now != was[which] { // it has chosen
			next = unix.Rlimit{Cur: min(now.Cur, next.Max), Max: next.Max}
			if now.Max < was[which].Max {
				next = unix.Rlimit{Cur: min(now.Cur, next.Max), Max: min(now.Max, next.Max)}
			}
		}
		if err := unix.Prlimit(pid, which, &next, nil); err != nil {
			return fmt.Errorf("set its limits: %w", err)
		}
	}
	if from.OOMScoreAdj != to.OOMScoreAdj {
		if err := changeOOMScore(pid, from.OOMScoreAdj, to.OOMScoreAdj); err != nil {
			return fmt.Errorf("set oom_score_adj: %w", err)
		}
	}
	if from.Nice == to.Nice && from.IOPriority == to.IOPriority {
		return nil
	}
	tasks, err := os.ReadDir(linux.ProcFile(pid, "task"))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err == nil {
			err = changeThread(tid, from, to)
		}
		if err != nil && !ended(err) {
			return err
		}
	}
	return nil
}

func changeOOMScore(pid, from, to int) error {
	file := linux.ProcFile(pid, "oom_score_adj")
	b, err := linux.ReadFile(file)
	if err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(from) {
		return err
	}
	return linux.WriteFile(file, []byte(strconv.Itoa(to)), 0)
}

func changeThread(tid int, from, to Attributes) error {
	if from.Nice != to.Nice {
		now, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		if err != nil {
			return fmt.Errorf("read nice: %w", err)
		}
		if 20-now == from.Nice { // the system call returns 20 less nice
			if err := unix.Setpriority(unix.PRIO_PROCESS, tid, to.Nice); err != nil {
				return fmt.Errorf("set nice: %w", err)
			}
		}
	}
	if from.IOPriority == to.IOPriority {
		return nil
	}
	now, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, whoProcess, uintptr(tid), 0)
	if errno != 0 {
		return fmt.Errorf("read class of input and output: %w", errno)
	}
	// A thread without a class of its own answers one by its nice value.
	const class = 13
	if own := int(now); own == from.IOPriority || from.IOPriority == 0 && own>>class <= classBestEffort {
		if err := setIOPrio(tid, to.IOPriority); err != nil {
			return fmt.Errorf("set class of input and output: %w", err)
		}
	}
	return nil
}

const (
	whoProcess      = 1 // IOPRIO_WHO_PROCESS
	classBestEffort = 2 // IOPRIO_CLASS_BE
)

// setIOPrio sets the class and level of a thread; 0: the caller's.
func setIOPrio(tid, prio int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(tid), uintptr(prio)); errno != 0 {
		return errno
	}
	return nil
}
