package main

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelRows are about the machine as a whole.
func kernelRows(*outside) []row {
	var rows []row
	for _, path := range []string{
		"/proc/sys/kernel/core_pattern", // a program that the host's root runs
		"/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sys/kernel/sysrq", "/proc/sysrq-trigger",
		"/proc/sys/kernel/panic", "/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/vm/overcommit_memory",
		"/proc/sys/vm/drop_caches", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/suid_dumpable",
		"/proc/kcore", "/proc/mtrr", "/proc/irq/0/smp_affinity", "/proc/acpi/wakeup", "/proc/timer_list",
		"/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/kernel/mm/transparent_hugepage/enabled",
		"/sys/power/state", "/sys/module/kernel/parameters/panic", "/sys/class/net/lo/mtu",
		"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cgroup.max.descendants",
	} {
		rows = append(rows, row{"write" + strings.ReplaceAll(path, "/", "-"), "", func(o *outside) (bool, string) {
			if path == "/sys/class/net/lo/mtu" && !o.sharesNetwork() {
				return false, "its own"
			}
			// Opening asks for the permission; nothing is written.
			fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			return resultOf(err, path+" opened for writing")
		}})
	}
	call := func(name string, nr uintptr, args ...uintptr) {
		rows = append(rows, row{name, "", func(*outside) (bool, string) {
			var a [6]uintptr
			copy(a[:], args)
			r, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
			return allowed(r, errno)
		}})
	}
	nowhere, err := unix.BytePtrFromString("/attack-nowhere/x")
	if err != nil { // it has no NUL
		panic(err)
	}
	path := uintptr(unsafe.Pointer(nowhere))
	// Arguments that have no effect if the call is allowed.
	call("load-module", unix.SYS_INIT_MODULE, path, 0, path)
	call("load-module-file", unix.SYS_FINIT_MODULE, ^uintptr(0), path, 0)
	call("remove-module", unix.SYS_DELETE_MODULE, path, unix.O_NONBLOCK)
	call("kexec", unix.SYS_KEXEC_LOAD, 0, 1000, 0, 0)
	call("kexec-file", unix.SYS_KEXEC_FILE_LOAD, ^uintptr(0), ^uintptr(0), 0, path, 1<<16)
	call("swap-on", unix.SYS_SWAPON, path, 0)
	call("swap-off", unix.SYS_SWAPOFF, path)
	call("account-processes", unix.SYS_ACCT, path)
	call("keyring", unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(3) /* KEY_SPEC_USER_KEYRING, -4 */, 0)
	call("request-key", unix.SYS_REQUEST_KEY, path, path, 0, 0)
	call("perf-events", unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&perfAttr)), ^uintptr(0), 0, ^uintptr(0), 0)
	call("bpf-map", unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&arrayAttr)), unsafe.Sizeof(arrayAttr))
	call("bpf-detach", unix.SYS_BPF, unix.BPF_PROG_DETACH, uintptr(unsafe.Pointer(&detachAttr)), unsafe.Sizeof(detachAttr))
	rows = append(rows,
		row{"set-clock", "", func(*outside) (bool, string) {
			var t unix.Timex
			if _, err := unix.Adjtimex(&t); err != nil {
				return false, err.Error()
			}
			t.Modes = unix.ADJ_TICK // to its present value
			_, err := unix.Adjtimex(&t)
			return resultOf(err, "clock adjusted")
		}},
		row{"io-ports", "", ioPorts},
		row{"raise-open-files", "", func(*outside) (bool, string) {
			err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 30, Max: 1 << 30})
			return resultOf(err, "limit of open files raised above the host's")
		}},
	)
	return rows
}

var (
	// struct perf_event_attr: software event, CPU clock, of the whole machine.
	perfAttr = [16]uint64{1 | 128<<32}
	// union bpf_attr: an array of one element.
	arrayAttr = [4]uint32{2, 4, 4, 1}
	// union bpf_attr: of a descriptor that is not open.
	detachAttr = [4]uint32{^uint32(0), ^uint32(0), 0, 0}
)

// allowed distinguishes a refusal from an error about the arguments.
func allowed(r uintptr, errno unix.Errno) (bool, string) {
	switch {
	case errno == 0:
		return true, fmt.Sprint("done: ", r)
	case errors.Is(errno, unix.EPERM), errors.Is(errno, unix.EACCES), errors.Is(errno, unix.ENOSYS):
		return false, errno.Error()
	}
	return true, "allowed, though: " + errno.Error()
}
