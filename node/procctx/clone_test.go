package procctx

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLimitOfNamespaces: what the kernel says where no more namespaces may be made, and
// what we make of it.
func TestLimitOfNamespaces(t *testing.T) {
	cmd := exec.Command("sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces && exec unshare --user true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), unix.ENOSPC.Error()) && !strings.Contains(string(out), "No space left on device") {
		t.Errorf("one more user namespace: %s, %v", out, err)
	}
	if err := cloneError(unix.ENOSPC); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "sysctl -w user.max_user_namespaces=") {
		t.Errorf("%v does not name the cure", err)
	}
	if err := cloneError(unix.EPERM); err.Error() != "clone3: operation not permitted" {
		t.Error(err)
	}
}
