package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// state is what must outlive a reboot so that a lab comes back with the same
// addresses. Everything else is derived from it or read from the kernel.
type state struct {
	Name   string       `json:"name"`
	Subnet netip.Prefix `json:"subnet"`
	Hosts  int          `json:"hosts"`
}

const stateFile = "lab.json"

// readState returns nil when there is no lab in dir.
func readState(dir string) (*state, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	if err := checkName(s.Name); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	if !s.Subnet.Addr().Is4() || s.Hosts < 1 || s.Hosts > room(s.Subnet) {
		return nil, fmt.Errorf("%s: no room for %d hosts in %s", filepath.Join(dir, stateFile), s.Hosts, s.Subnet)
	}
	return &s, nil
}

func (s *state) write(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, stateFile), append(data, '\n'), 0o600)
}

// address of host n, counted from 1; the bridge has the first address.
func (s *state) address(n int) netip.Addr {
	a := s.Subnet.Masked().Addr()
	for range n + 1 {
		a = a.Next()
	}
	return a
}

func (s *state) gateway() netip.Addr { return s.address(0) }

// room for hosts in the subnet: its first address names the net, the second
// is the bridge's, the last one is for broadcasts.
func room(subnet netip.Prefix) int { return 1<<(32-subnet.Bits()) - 3 }

// newSuffix marks a file that is being written: it is renamed when complete,
// and removed with the lab when it never was.
const newSuffix = ".new"

// writeFile writes beside and renames, and leaves an equal file untouched.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	if err := os.WriteFile(path+newSuffix, data, mode); err != nil {
		return err
	}
	return os.Rename(path+newSuffix, path)
}

// lockDir makes dir, if it is missing, and locks it. The directory itself is
// the lock, so that nothing is left of the lock once the directory is
// removed; it is root's alone, because whoever can open it can hold the lock.
// Of what is above, only the default directory's parent is the lab's to make.
func lockDir(ctx context.Context, dir string, log func(string)) (unlock func(), err error) {
	for {
		if dir == DefaultDir {
			if err := os.Mkdir(filepath.Dir(dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		err := os.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrNotExist) && dir == DefaultDir {
			continue // its last user has just removed the parent
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its last user has just removed it
		}
		if err != nil {
			return nil, err
		}
		if err := flock(ctx, f, func() { log("waiting for another lab command on " + dir) }); err != nil {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			f.Close()
			return nil, err
		}
		if st.Nlink != 0 {
			return func() { f.Close() }, nil
		}
		f.Close() // removed while we waited
	}
}

// flock locks f or closes it. flock(2) can not be cancelled, so the wait for
// it is left behind when ctx ends; it ends with the process or with the lock.
func flock(ctx context.Context, f *os.File, waiting func()) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		waiting()
		done := make(chan error, 1)
		go func() {
			for {
				err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
				if err == unix.EINTR {
					continue
				}
				done <- err
				return
			}
		}()
		select {
		case err = <-done:
		case <-ctx.Done():
			go func() { <-done; f.Close() }()
			return ctx.Err()
		}
	}
	if err != nil {
		f.Close()
	}
	return err
}

// registry is what the labs of a machine share. It lives in /run because it
// describes the running kernel: after a reboot there is nothing to restore.
// (Machines without a tmpfs there keep it over a reboot; the boot id tells.)
type registry struct {
	dir    string
	boot   string
	unlock func()
}

// record is one lab's claim to its name, made before anything in the kernel
// is, and dropped when all of it is gone.
type record struct {
	Boot string `json:"boot"`
	Dir  string `json:"dir"`
}

const (
	registryDir   = "/run/vsfleet-lab"
	forwardRecord = "ip_forward" // no lab has this name: checkName refuses "_"
	forwardSysctl = "/proc/sys/net/ipv4/ip_forward"
)

func openRegistry(ctx context.Context, log func(string)) (*registry, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	unlock, err := lockDir(ctx, registryDir, log)
	if err != nil {
		return nil, err
	}
	return &registry{dir: registryDir, boot: strings.TrimSpace(string(boot)), unlock: unlock}, nil
}

// read decodes one record; ok is false when it is missing, of an earlier boot
// or torn.
func (r *registry) read(name string) (rec record, ok bool, err error) {
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return rec, false, nil
	}
	if err != nil {
		return rec, false, err
	}
	if json.Unmarshal(data, &rec) != nil || rec.Boot != r.boot {
		return rec, false, nil
	}
	return rec, true, nil
}

func (r *registry) write(name string, rec record) error {
	rec.Boot = r.boot
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(r.dir, name), data, 0o600)
}

// claim takes a lab's name for dir.
func (r *registry) claim(name, dir string) error {
	rec, ok, err := r.read(name)
	if err != nil {
		return err
	}
	if ok && rec.Dir != dir {
		return fmt.Errorf("a lab named %q is up already, in %s: take it down first or choose another --name", name, rec.Dir)
	}
	return r.write(name, record{Dir: dir})
}

// labs lists the names and directories of the labs of this boot.
func (r *registry) labs() (map[string]string, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	labs := make(map[string]string)
	for _, e := range entries {
		if checkName(e.Name()) != nil {
			continue
		}
		rec, ok, err := r.read(e.Name())
		if err != nil {
			return nil, err
		}
		if ok {
			labs[e.Name()] = rec.Dir
		}
	}
	return labs, nil
}

// forward lets the machine forward packets, and remembers that it did not.
func (r *registry) forward() error {
	_, known, err := r.read(forwardRecord)
	if err != nil {
		return err
	}
	value, err := os.ReadFile(forwardSysctl)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(value)) == "1" {
		return nil
	}
	if !known {
		if err := r.write(forwardRecord, record{}); err != nil {
			return err
		}
	}
	return os.WriteFile(forwardSysctl, []byte("1"), 0o644)
}

// release drops a lab's claim. The last one to go turns forwarding off again,
// if it was off, and takes the registry along.
func (r *registry) release(name string) error {
	labs, err := r.labs()
	if err != nil {
		return err
	}
	delete(labs, name)
	if len(labs) == 0 {
		_, off, err := r.read(forwardRecord)
		if err != nil {
			return err
		}
		if off {
			if err := os.WriteFile(forwardSysctl, []byte("0"), 0o644); err != nil {
				return err
			}
		}
		return removeTree(r.dir)
	}
	for _, file := range []string{name, name + newSuffix} {
		if err := os.Remove(filepath.Join(r.dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
