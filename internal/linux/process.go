package linux

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ProcFile returns the path of a file of a process in /proc (proc(5)).
func ProcFile(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// SinceBoot returns the time since the host's boot, including sleep. Setting the clock
// does not change it.
func SinceBoot() time.Duration {
	var boot unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) // cannot fail for a clock that the kernel has (2.6.39)
	return time.Duration(boot.Nano())
}

// ForkTime returns the time when a process was forked, since the host's boot.
func ForkTime(pid int) (time.Duration, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	// starttime, the 22nd field, in hundredths of a second.
	if len(f) < 20 {
		return 0, fmt.Errorf("%s is not as proc_pid_stat(5) says", ProcFile(pid, "stat"))
	}
	ticks, err := strconv.ParseInt(f[19], 10, 64)
	return time.Duration(ticks) * time.Second / 100, err
}

// BeforeExec reports whether a process has not called execve since it was forked (the
// flag PF_FORKNOEXEC), or is gone.
func BeforeExec(pid int) bool {
	f, err := statFields(pid)
	if err != nil || len(f) < 7 {
		return true
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	const forkNoExec = 0x40
	return err == nil && flags&forkNoExec != 0
}

// statFields reads /proc/PID/stat from its third field on: the second, the
// program's name in parentheses, may hold anything.
func statFields(pid int) ([]string, error) {
	b, err := ReadFile(ProcFile(pid, "stat"))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])), nil
}

// NamespacePIDs returns the PIDs of a process in its PID namespaces, from ours inwards
// (NSpid in proc_pid_status(5)).
func NamespacePIDs(pid int) ([]string, error) {
	b, err := ReadFile(ProcFile(pid, "status"))
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(b), "\nNSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.Fields(line), nil
}

// SignalStopped sends a signal to a process by its pidfd (pidfd_send_signal(2)), and
// SIGCONT after it: a stopped process would not notice the signal. If the process has
// ended, that is not an error.
func SignalStopped(pidfd int, sig unix.Signal) error {
	for _, sig := range []unix.Signal{sig, unix.SIGCONT} {
		if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}
