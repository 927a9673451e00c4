package netctx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// UnixGuard is a way to keep a guest from the host's abstract Unix sockets,
// which a network namespace would separate and a mount namespace does not
// (CVE-2020-15257).
type UnixGuard string

const (
	// GuardLandlock is for node/procctx: it scopes the guest's processes (kernel 6.12).
	GuardLandlock UnixGuard = "landlock"
	// GuardHooks has Attach put programs on the cgroup (kernel 6.7). They refuse
	// the guest its own abstract sockets, too.
	GuardHooks UnixGuard = "connect_unix"
	// GuardLSM has Attach tell a pair of programs, which it loads once a boot
	// (kernel 6.1 with bpf among its security modules, as of Debian 12).
	GuardLSM UnixGuard = "bpf-lsm"
)

// ErrNoGuard means that a guest in the host's network could reach the host's
// abstract Unix sockets.
var ErrNoGuard = errors.New("abstract Unix sockets of the host cannot be closed to guests in its network: boot kernel 6.12 with Landlock, or with bpf among the security modules (lsm=…,bpf), or use network mode nat")

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
	if ok, err = haveLSM(); err != nil {
		return "", err
	}
	if ok {
		return GuardLSM, nil
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

// haveLSM says whether the kernel asks BPF programs as a security module. Nobody
// knows where securityfs is not mounted; systemd mounts it. That they can be
// loaded (arm64: kernel 6.4; lockdown) shows when they are.
func haveLSM() (bool, error) {
	b, err := os.ReadFile("/sys/kernel/security/lsm")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.Contains(strings.Split(strings.TrimSpace(string(b)), ","), "bpf"), nil
}

func pinUnix(dir string) error { return pinCollection(dir, loadUnixsock) }

// closeUnix refuses abstract Unix sockets to the cgroup, by hooks.
func closeUnix(cgroup *os.File) error {
	dir, err := loaded(_UnixsockBytes, pinUnix)
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

// closeUnixLSM makes the host's programs refuse abstract Unix sockets that are
// not the guest's own to the guest.
func closeUnixLSM(xid int, cgroup uint64) error {
	dir, err := loaded(_LsmBytes, pinLSM)
	if err != nil {
		return err
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, guestsMap), nil)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Put(uint32(xid), cgroup); err != nil {
		return fmt.Errorf("name the guest to the security module: %w", err)
	}
	return nil
}

// pinLSM loads the programs and pins what keeps them attached.
func pinLSM(dir string) error {
	spec, err := loadLsm()
	if err != nil {
		return err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	defer coll.Close()
	for name, p := range coll.Programs {
		l, err := link.AttachLSM(link.LSMOptions{Program: p})
		if err != nil {
			return err
		}
		defer l.Close()
		if err := l.Pin(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return coll.Maps[guestsMap].Pin(filepath.Join(dir, guestsMap))
}
