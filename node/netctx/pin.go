package netctx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
)

const (
	pins   = linux.BPFFS + "/vservers"
	runDir = "/run/vservers"

	programsLock  = "netctx.lock"
	addressesLock = "addresses.lock"
)

// pinDir returns the directory in which an object's programs are pinned.
func pinDir(object []byte) string {
	sum := sha256.Sum256(object)
	return filepath.Join(pins, hex.EncodeToString(sum[:8]))
}

// ensurePinned pins the object's programs and maps unless they are pinned already,
// and returns their directory.
func ensurePinned(object []byte, pin func(dir string) error) (dir string, err error) {
	dir = pinDir(object)
	return dir, load(dir, pin, func() (bool, error) { return exists(dir) })
}

// ensureNetctx does the same for the programs of network contexts. One of them belongs
// to the network namespace and finds guests' listeners by their addresses, so if two
// namespaces share a bpffs, each has its own set.
func ensureNetctx() (dir string, err error) {
	ns, err := networkNamespace()
	if err != nil {
		return "", err
	}
	dir = fmt.Sprintf("%s_%x", pinDir(netctxPacked), ns)
	return dir, load(dir, pinNetctx, func() (bool, error) {
		on, err := steeredBy(dir)
		return on == ns, err
	})
}

func networkNamespace() (inode uint64, err error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return 0, fmt.Errorf("look for the network namespace: %w", err)
	}
	return ns.Ino, nil
}

// Unpin removes the programs that guests have in common, of this and of other packages,
// from a host without guests. If another network namespace shares the bpffs, all but what
// is attached to this one stays.
func Unpin(ctx context.Context) error {
	unlock, err := lock(ctx, programsLock)
	if err != nil {
		return err
	}
	defer unlock()
	ns, err := networkNamespace()
	if err != nil {
		return err
	}
	all, err := filepath.Glob(pins + "/*")
	if err != nil {
		return err
	}
	shared, own := false, map[string]bool{}
	for _, path := range all {
		on, err := steeredBy(path)
		if err != nil {
			return err
		}
		shared, own[path] = shared || on != 0 && on != ns, on == ns
	}
	for _, path := range all {
		if shared && !own[path] {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if shared {
		return nil
	}
	if err := os.Remove(pins); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// steeredBy returns the inode of the network namespace that the programs in dir are
// attached to; 0: none. Inodes are reused, but attachments end with the namespace.
func steeredBy(dir string) (ns uint64, err error) {
	l, err := bpf.Get(filepath.Join(dir, steering))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer l.Close()
	if _, on, err := bpf.LinkInfo(l); err == nil {
		ns = uint64(on)
	}
	return ns, nil
}

// load pins an object's programs and maps unless they are there already. The
// directory exists only once it is complete.
func load(dir string, pin func(dir string) error, there func() (bool, error)) error {
	if ok, err := there(); err != nil || ok {
		return err
	}
	unlock, err := lock(context.Background(), programsLock) //nolint:forbidigo // held for the moment in which programs are loaded
	if err != nil {
		return err
	}
	defer unlock()
	if err := linux.MountBPF(); err != nil {
		return err
	}
	if ok, err := there(); err != nil || ok { // done by somebody else in the meantime
		return err
	}
	// Only the holder of the lock gets here: what exists was left by a vsnode that
	// was killed, or belongs to a network namespace that is gone.
	// No dots: bpffs reserves such names.
	half := dir + "_half"
	for _, old := range []string{half, dir} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(half, 0o700); err != nil {
		return err
	}
	if err := pin(half); err != nil {
		return fmt.Errorf("load network programs: %w", errors.Join(err, os.RemoveAll(half)))
	}
	if err := os.Rename(half, dir); err != nil {
		return err
	}
	afterPin()
	return nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// pinNetctx loads the programs for the guests' cgroups, and attaches the one for the
// network namespace.
func pinNetctx(dir string) error {
	if err := dropUnused(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := pinCollection(dir, netctxSpec, settingsMap, trafficMap); err != nil {
		return err
	}
	p, err := ebpf.LoadPinnedProgram(filepath.Join(dir, steer.name), nil)
	if err != nil {
		return err
	}
	defer p.Close()
	ns, err := linux.Open("/proc/thread-self/ns/net", os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer ns.Close()
	l, err := bpf.Link(int(ns.Fd()), bpf.FD(p.FD()), uint32(ebpf.AttachSkLookup))
	if err != nil {
		return fmt.Errorf("%s: %w", steer.name, err)
	}
	defer l.Close()
	if err := bpf.Pin(l, filepath.Join(dir, steering)); err != nil {
		return err
	}
	afterPin()
	return nil
}

// dropUnused removes the programs of other versions that no guest uses any more. A
// network namespace calls all that are attached, and allows 64.
func dropUnused(pins string) error {
	dirs, err := os.ReadDir(pins)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		dir := filepath.Join(pins, d.Name())
		if ok, err := exists(filepath.Join(dir, steering)); err != nil || !ok {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, settingsMap), nil)
		if err != nil {
			continue // removed in the meantime
		}
		var cgroup uint64
		err = m.NextKey(nil, &cgroup)
		m.Close()
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// pinCollection loads an object and pins its programs and the named maps.
func pinCollection(dir string, load func() (*ebpf.CollectionSpec, error), maps ...string) error {
	spec, err := load()
	if err != nil {
		return err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	defer coll.Close()
	for name, p := range coll.Programs {
		if err := p.Pin(filepath.Join(dir, name)); err != nil {
			return err
		}
		afterPin()
	}
	for _, name := range maps {
		if err := coll.Maps[name].Pin(filepath.Join(dir, name)); err != nil {
			return err
		}
		afterPin()
	}
	return nil
}

// afterPin is called after each step, for a test that is killed there.
var afterPin = func() {}

// lock keeps other processes of vsnode from doing the same at the same time.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, err
	}
	l, err := linux.LockFile(ctx, filepath.Join(runDir, name))
	if err != nil {
		return nil, err
	}
	return l.Unlock, nil
}
