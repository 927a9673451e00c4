package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// Ways to keep a guest from the host's abstract Unix sockets. AbstractSockets has
// the name of the best one in the Detail of a yes.
var (
	Landlock = &Ability{Name: "landlock", For: "scopes of the guest's processes (kernel 6.12)",
		Probe: func(*System) Answer { return found(haveScopes()) }}
	UnixHooks = &Ability{Name: "connect_unix", For: "programs on the guest's cgroup (kernel 6.7)",
		Probe: func(*System) Answer { return found(haveUnixHooks()) }}
	BPFLSM = &Ability{Name: "bpf-lsm", For: "programs that the kernel asks as a security module (kernel 6.1)",
		Probe: func(*System) Answer { return found(haveLSM()) }}
)

// found returns the answer to whether something is there.
func found(have bool, err error) Answer {
	switch {
	case err != nil:
		return Unknown("%v", err)
	case have:
		return Yes("")
	}
	return No("the kernel does not have it")
}

func abstractSockets(s *System) Answer {
	for _, way := range []*Ability{Landlock, UnixHooks, BPFLSM} {
		switch got := s.Ask(way); got.Verdict {
		case api.Yes:
			return Yes("%s", way.Name)
		case api.Unknown:
			return got
		}
	}
	return No("this kernel has none that vsnode can use")
}

// haveScopes asks for the version of Landlock: the sixth knows scopes.
func haveScopes() (bool, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return errno == 0 && abi >= 6, nil
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

// haveLSM reports whether the kernel asks BPF programs as a security module. Nobody
// knows where securityfs is not mounted; systemd mounts it. That they can be
// loaded (arm64: kernel 6.4; lockdown) shows when they are.
func haveLSM() (bool, error) {
	b, err := linux.ReadFile("/sys/kernel/security/lsm")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.Contains(strings.Split(strings.TrimSpace(string(b)), ","), "bpf"), nil
}
