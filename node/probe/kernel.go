package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func kernel(s *System) Answer {
	major, minor, ok := parseRelease(s.Release)
	switch {
	case !ok:
		return Unknown("%q is not a kernel version", s.Release)
	case major < 6 || major == 6 && minor < 1:
		return No("%s is older than 6.1", s.Release)
	}
	return Yes("%s", s.Release)
}

// parseRelease reads the first two numbers of a kernel's release, as
// "6.1.0-50-amd64" or "6.18-rc1".
func parseRelease(release string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(rest[:end])
	return major, minor, err1 == nil && err2 == nil && major >= 0
}

func userNamespaces(s *System) Answer {
	if text, err := s.Read("proc/sys/user/max_user_namespaces"); err == nil {
		if n, err := strconv.Atoi(text); err == nil && n == 0 {
			return No("user.max_user_namespaces is 0")
		}
	}
	ns, err := userNamespace()
	if err == nil {
		ns.Close()
	}
	return Tried(err)
}

// nestedUserNamespaces: these two settings do not stop the host's root, but
// they stop a guest's, who has no capability against the first user namespace.
func nestedUserNamespaces(s *System) Answer {
	for _, setting := range []struct{ file, blocks string }{
		{"kernel/unprivileged_userns_clone", "0"},             // Debian's patch
		{"kernel/apparmor_restrict_unprivileged_userns", "1"}, // Ubuntu 24.04
	} {
		value, err := s.Read("proc/sys/" + setting.file)
		if err == nil && value == setting.blocks {
			name := strings.ReplaceAll(setting.file, "/", ".")
			other := map[string]string{"0": "1", "1": "0"}[value]
			return No("%s is %s", name, value).WithCure("sysctl -w %s=%s", name, other)
		}
	}
	return Yes("")
}

// userNamespace makes a user namespace that maps the ids 0 to 65535 to
// themselves, and returns a descriptor of it. The process that a namespace has to be
// made with waits for input until it is killed. (Traced, it would stop by itself, but
// not where kernel.yama.ptrace_scope is 3.)
func userNamespace() (ns *os.File, err error) {
	runtime.LockOSThread() // the process dies with the thread
	defer runtime.UnlockOSThread()
	defer func() {
		if err != nil {
			err = fmt.Errorf("make a user namespace: %w", err)
		}
	}()
	stdin, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	defer stdin.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1 << 16}}
	child, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "read -r _"}, &os.ProcAttr{
		Env:   []string{},
		Files: []*os.File{stdin},
		Sys:   &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return nil, err
	}
	ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
	kerr := child.Kill()
	_, werr := child.Wait()
	if err == nil && (kerr != nil || werr != nil) {
		ns.Close()
		return nil, errors.Join(kerr, werr)
	}
	return ns, err
}

// setnsPidfd joins the UTS namespace that we are in.
func setnsPidfd(*System) Answer {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return Tried(fmt.Errorf("pidfd_open: %w", err))
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWUTS); err != nil {
		return Tried(fmt.Errorf("setns: %w", err))
	}
	return Yes("")
}

// cloneIntoCgroup asks for a process in a "cgroup" that is none. The kernel
// that knows the flag (5.7) looks, and answers EBADF; so there is no process in
// any case.
func cloneIntoCgroup(*System) Answer {
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Tried(err)
	}
	defer unix.Close(dir)
	args := struct { // struct clone_args as of kernel 5.7
		flags, pidfd, childTID, parentTID, exitSignal    uint64
		stack, stackSize, tls, setTID, setTIDLen, cgroup uint64
	}{flags: unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(dir)}
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno == unix.EBADF {
		return Yes("")
	}
	return Tried(fmt.Errorf("clone3: %w", errno))
}

func seccomp(*System) Answer {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		return Tried(fmt.Errorf("seccomp: %w", errno))
	}
	return Yes("")
}

// timeNamespaces: before kernel 6.3 a process that shares its maker's memory, as a
// guest's first one does, does not enter its time namespace with execve, but its
// children do (exec_task_namespaces in the kernel). No call shows that without running a program.
func timeNamespaces(s *System) Answer {
	if _, err := fs.Stat(s.Files, "proc/self/ns/time_for_children"); err != nil {
		return No("there is no /proc/self/ns/time_for_children")
	}
	if major, minor, ok := parseRelease(s.Release); ok && (major < 6 || major == 6 && minor < 3) {
		return No("kernel %s enters them too late", s.Release)
	}
	return Yes("")
}
