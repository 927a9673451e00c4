package netctx

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	bpffs  = "/sys/fs/bpf"
	pins   = bpffs + "/vservers"
	runDir = "/run/vservers"

	programsLock  = "netctx.lock"
	addressesLock = "addresses.lock"
)

// pinned is the directory of an object's programs.
func pinned(object []byte) string {
	sum := sha256.Sum256(object)
	return filepath.Join(pins, hex.EncodeToString(sum[:8]))
}

// loaded makes sure that the object's programs and maps are pinned, and says
// where. The directory exists only once it is complete.
func loaded(object []byte, pin func(dir string) error) (dir string, err error) {
	dir = pinned(object)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	unlock, err := lock(programsLock)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := mountBPF(); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil { // by somebody else, meanwhile
		return dir, nil
	}
	// Whoever holds the lock is alone: what is there is of one that was killed.
	// No dots: bpffs keeps such names for itself.
	half := dir + "_half"
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	if err := os.MkdirAll(half, 0o700); err != nil {
		return "", err
	}
	if err := pin(half); err != nil {
		return "", fmt.Errorf("load network programs: %w", errors.Join(err, os.RemoveAll(half)))
	}
	if err := os.Rename(half, dir); err != nil {
		return "", err
	}
	pinning()
	return dir, nil
}

// pinNetctx loads the programs that every guest's cgroup gets.
func pinNetctx(dir string) error { return pinCollection(dir, loadNetctx, settingsMap, trafficMap) }

// pinCollection loads an object and pins its programs and the maps named.
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
		pinning()
	}
	for _, name := range maps {
		if err := coll.Maps[name].Pin(filepath.Join(dir, name)); err != nil {
			return err
		}
		pinning()
	}
	return nil
}

// pinning is called at every step, for the test that is killed at each.
var pinning = func() {}

// mountBPF mounts bpffs where systemd would have, unless it is there.
func mountBPF() error {
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err != nil {
		return fmt.Errorf("look for bpffs: %w", &fs.PathError{Op: "statfs", Path: bpffs, Err: err})
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", bpffs, err)
	}
	return nil
}

// lock keeps other vsnodes from doing the same at the same time.
func lock(name string) (unlock func(), err error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(runDir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() {
				unix.Flock(int(f.Fd()), unix.LOCK_UN) // not by closing alone: see nat's
				f.Close()
			}, nil
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}
