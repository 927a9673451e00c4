package procctx

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scopeRules returns the Landlock ruleset that keeps a process and its descendants
// from abstract Unix sockets created outside (CVE-2020-15257). It needs kernel 6.12
// and fails on an older one. It handles no file access, so mounts inside the guest
// stay possible (landlock(7)).
func scopeRules() (*os.File, error) {
	attr := struct{ fs, net, scoped uint64 }{scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return nil, fmt.Errorf("make landlock rules: %w", errno)
	}
	return os.NewFile(fd, "landlock"), nil
}
