package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// registry holds what the labs of a machine share. It lives in /run because it
// describes the running kernel: after a reboot there is nothing to restore.
// (Machines without a tmpfs there keep it over a reboot; the boot id in it is
// another one then.)
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

// close unlocks the registry. One in which nothing was written goes; that it
// cannot, because there are records, is the usual case.
func (r *registry) close() {
	os.Remove(r.dir)
	r.unlock()
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

// enableForwarding lets the machine forward packets, and records that it did not
// before.
func (r *registry) enableForwarding() error {
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
