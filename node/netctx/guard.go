package netctx

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/node/probe"
)

// UnixGuard is a way to keep a guest from the host's abstract Unix sockets, which a
// network namespace would separate and a mount namespace does not (CVE-2020-15257).
// Its value is the name of a kernel ability.
type UnixGuard string

const (
	// GuardLandlock has node/procctx scope the guest's processes (kernel 6.12).
	GuardLandlock UnixGuard = "landlock"
	// GuardHooks has Attach attach programs to the cgroup (kernel 6.7). They refuse
	// the guest's own abstract sockets, too.
	GuardHooks UnixGuard = "connect_unix"
	// GuardLSM has Attach enter the guest into a map of programs that it loads once per boot
	// (kernel 6.1 with bpf among its security modules, as of Debian 12).
	GuardLSM UnixGuard = "bpf-lsm"
)

// Guard returns the best way that this kernel supports. Without any, a guest in the
// host's network could reach the host's abstract Unix sockets, and the error is a
// probe.ErrMissing.
func Guard() (UnixGuard, error) {
	if err := probe.Want(probe.AbstractSockets); err != nil {
		return "", err
	}
	return UnixGuard(probe.Ask(probe.AbstractSockets).Detail), nil
}

func pinUnix(dir string) error { return pinCollection(dir, loadUnixsock) }

// closeUnix attaches hooks that refuse abstract Unix sockets to the cgroup.
func closeUnix(cgroup *os.File) error {
	dir, err := ensurePinned(_UnixsockBytes, pinUnix)
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

// closeUnixLSM enters the guest into the map of the host's LSM programs, which then
// refuse it all abstract Unix sockets except its own.
func closeUnixLSM(xid int, cgroup uint64) error {
	dir, err := ensurePinned(_LsmBytes, pinLSM)
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

// pinLSM loads the programs and pins the links that keep them attached.
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
		l, err := bpf.LinkTracepoint("", bpf.FD(p.FD()))
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		defer l.Close()
		if err := bpf.Pin(l, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return coll.Maps[guestsMap].Pin(filepath.Join(dir, guestsMap))
}
