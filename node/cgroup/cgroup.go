package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is the directory of a cgroup.
type Dir string

// Guest returns the cgroup of a guest; it need not exist.
func Guest(mount, name string) Dir { return Dir(filepath.Join(mount, "vservers", name)) }

// Guests lists the guests whose cgroups are there, running or not. Names with a leading
// dot are of hooks.
func Guests(mount string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(mount, "vservers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && e.Name()[0] != '.' {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Owner returns the user of the host that a cgroup belongs to: a guest's root,
// or another of its ids if it gave it away. fs.ErrNotExist: there is no cgroup.
func (c Dir) Owner() (uid int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(string(c), &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: string(c), Err: err}
	}
	return int(st.Uid), nil
}

// Make makes a guest's cgroup afresh and gives the guest's root, id on the host,
// what it needs to divide it further (cgroups(7), "delegation"): the limits stay the host's.
// An old one is removed first: programs attached to it would run before ours.
func (c Dir) Make(id int) (*os.File, error) {
	if err := c.Remove(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(string(c), 0o755); err != nil {
		return nil, err
	}
	// What a guest makes below has to be walked: 12 levels are more than systemd
	// and containers in it make, and 12 names of 255 characters are a path that fits.
	for name, most := range map[string]string{"cgroup.max.depth": "12", "cgroup.max.descendants": "10000"} {
		if err := os.WriteFile(filepath.Join(string(c), name), []byte(most), 0); err != nil {
			return nil, fmt.Errorf("bound the guest's cgroups: %w", err)
		}
	}
	for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
		if err := os.Chown(filepath.Join(string(c), name), id, id); err != nil {
			return nil, fmt.Errorf("delegate cgroup: %w", err)
		}
	}
	return os.Open(string(c))
}

// Remove removes the empty cgroup and those below it, deepest first. The
// kernel may hold a cgroup for a moment after its last process was reaped.
func (c Dir) Remove() error {
	for deadline := time.Now().Add(2 * time.Second); ; {
		err := removeTree(string(c))
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if full, perr := c.Populated(); perr != nil || full {
			return fmt.Errorf("remove cgroup %s: processes are still in it", c)
		}
		_, _ = unix.Poll(nil, 1)
	}
}

func removeTree(dir string) error {
	// Most are leaves: try before looking.
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, rerr := os.ReadDir(dir)
	if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		return rerr
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
