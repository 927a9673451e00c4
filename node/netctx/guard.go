package netctx

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// UnixGuard is a way to keep a guest from the host's abstract Unix sockets,
// which a network namespace would separate and a mount namespace does not
// (CVE-2020-15257).
type UnixGuard string

const (
	// GuardLandlock: node/context scopes the guest's processes (kernel 6.12).
	GuardLandlock UnixGuard = "landlock"
	// GuardHooks: Attach puts programs on the cgroup (kernel 6.7). They refuse
	// the guest its own abstract sockets, too.
	GuardHooks UnixGuard = "connect_unix"
)

// ErrNoGuard means that a guest in the host's network could reach the host's
// abstract Unix sockets.
var ErrNoGuard = errors.New("abstract Unix sockets of the host cannot be closed to guests in its network: boot kernel 6.12 with Landlock or 6.7 with cgroup BPF, or use network mode nat")

// landlockScopeABI is the version of Landlock that knows scopes.
const landlockScopeABI = 6

// Guard tells which way there is on this kernel, the best first.
func Guard() (UnixGuard, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == 0 && abi >= landlockScopeABI {
		return GuardLandlock, nil
	}
	ok, err := haveUnixHooks()
	if err != nil {
		return "", err
	}
	if ok {
		return GuardHooks, nil
	}
	return "", ErrNoGuard
}

// haveUnixHooks tries the smallest program of that kind.
func haveUnixHooks() (bool, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCgroupUnixConnect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if errors.Is(err, unix.EINVAL) { // bpf(2): an attach type that it does not know
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("try a connect_unix program: %w", err)
	}
	return true, p.Close()
}

// closeUnix refuses abstract Unix sockets to the cgroup, by hooks.
func closeUnix(cgroup *os.File) error {
	dir, err := loaded(_UnixsockBytes, loadUnixsock)
	if err != nil {
		return err
	}
	for _, h := range unixHooks {
		if err := attachPinned(cgroup, dir, h); err != nil {
			return err
		}
	}
	return nil
}
