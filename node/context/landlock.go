package context

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scopeABI is the version of Landlock that knows scopes (kernel 6.12).
const scopeABI = 6

// LandlockABI is the kernel's version of Landlock; 0 where there is none.
func LandlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// CanScope says whether Landlock can keep a guest in the host's network
// namespace from the host's abstract Unix sockets (CVE-2020-15257).
func CanScope() bool { return LandlockABI() >= scopeABI }

// scopeRules makes the ruleset that keeps a process and all that it starts
// from abstract Unix sockets made outside. It handles no file access, so
// mounts inside the guest stay possible (landlock(7)).
func scopeRules() (*os.File, error) {
	attr := struct{ fs, net, scoped uint64 }{scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return nil, fmt.Errorf("make landlock rules: %w", errno)
	}
	return os.NewFile(fd, "landlock"), nil
}
