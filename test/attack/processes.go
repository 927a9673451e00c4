package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processRows are about a process of the host, and the administrator's terminal.
func processRows(*outside) []row {
	return []row{
		{"signal-host-process", "pid", func(o *outside) (bool, string) {
			return resultOf(unix.Kill(o.pid, 0), fmt.Sprint("process ", o.pid, " could be killed"))
		}},
		{"see-host-process", "pid", func(o *outside) (bool, string) {
			_, err := os.Stat(fmt.Sprint("/proc/", o.pid, "/status"))
			return resultOf(err, fmt.Sprint("/proc/", o.pid, " is there"))
		}},
		{"open-host-process", "pid", func(o *outside) (bool, string) {
			fd, err := unix.PidfdOpen(o.pid, 0)
			if err == nil {
				unix.Close(fd)
			}
			return resultOf(err, "pidfd opened")
		}},
		{"trace-host-process", "pid", func(o *outside) (bool, string) {
			_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(o.pid), 0, 0, 0, 0)
			if errno == 0 {
				return true, "seized"
			}
			return false, errno.Error()
		}},
		{"read-host-process", "pid", func(o *outside) (bool, string) {
			// Address 0 is never mapped: EFAULT comes after the permission check.
			var b [8]byte
			local := []unix.Iovec{{Base: &b[0], Len: 8}}
			_, err := unix.ProcessVMReadv(o.pid, local, []unix.RemoteIovec{{Base: 0, Len: 8}}, 0)
			if err == nil || err == unix.EFAULT {
				return true, "memory could be read"
			}
			return false, err.Error()
		}},
		{"ask-host-process-priority", "pid", func(o *outside) (bool, string) {
			_, err := unix.Getpriority(unix.PRIO_PROCESS, o.pid)
			return resultOf(err, "priority seen")
		}},
		{"type-into-terminal", "", func(*outside) (bool, string) { return typeInto(unix.TIOCSTI) }},
		{"type-into-terminal-high-bits", "", func(*outside) (bool, string) { return typeInto(unix.TIOCSTI | 1<<32) }},
		{"paste-into-console", "", func(*outside) (bool, string) {
			sub := byte(3) // TIOCL_PASTESEL; on no console: ENOTTY
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCLINUX, uintptr(unsafe.Pointer(&sub)))
			if errno == 0 {
				return true, "pasted"
			}
			return false, errno.Error()
		}},
	}
}

// typeInto puts a character into the terminal that it controls, as if it had
// been typed. It is a new one, so that the terminal of whoever entered the guest is
// left alone.
func typeInto(request uint) (bool, string) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false, err.Error()
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return false, "unlock terminal: " + err.Error()
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return false, "open terminal: " + errno.Error()
	}
	slave := os.NewFile(fd, "terminal")
	defer slave.Close()
	cmd := exec.Command("/proc/self/exe", "--type-inside", fmt.Sprint(request))
	cmd.Stdin = slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return runSelf(cmd)
}

func typeInside(request string) int {
	nr, err := strconv.ParseUint(request, 10, 64)
	if err != nil {
		fmt.Print(err)
		return 1
	}
	c := byte('x')
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, uintptr(nr), uintptr(unsafe.Pointer(&c))); errno != 0 {
		fmt.Print(errno)
		return 1
	}
	fmt.Print("typed")
	return 0
}
