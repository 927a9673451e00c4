package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Dir is the directory of a cgroup.
type Dir string

// Where guests are below the mount: each in one of ours or, where systemd runs the host,
// in that of a unit. Within the unit the guest has a cgroup of its own: systemd writes to
// the unit's as it sees fit.
const (
	ours     = "vservers"
	slice    = "vservers.slice"
	unitName = "vserver@"
	unitKind = ".service"
	inUnit   = "guest"
)

// Guest returns the cgroup of a guest, which need not exist: that in its unit, if that is
// there, or else one of ours.
func Guest(mount, name string) Dir {
	if dir := InUnit(mount, name); dir.exists() {
		return dir
	}
	return Dir(filepath.Join(mount, ours, name))
}

// InUnit returns the cgroup that a guest has in its unit of systemd; it need not exist.
func InUnit(mount, name string) Dir {
	return Dir(filepath.Join(mount, slice, unitName+name+unitKind, inUnit))
}

// IsInUnit reports whether the cgroup is in a unit of systemd.
func (c Dir) IsInUnit() bool { return filepath.Base(string(c)) == inUnit && c.levels() == 3 }

// levels returns how many levels a guest's cgroup is below the mount.
func (c Dir) levels() int {
	if strings.HasSuffix(filepath.Dir(filepath.Dir(string(c))), "/"+slice) {
		return 3
	}
	return 2
}

// mount returns the mount that a guest's cgroup is below.
func (c Dir) mount() string {
	dir := string(c)
	for range c.levels() {
		dir = filepath.Dir(dir)
	}
	return dir
}

func (c Dir) exists() bool {
	var st unix.Stat_t
	return unix.Stat(string(c), &st) == nil
}

// Guests lists the guests whose cgroups are there, running or not.
func Guests(mount string) ([]string, error) {
	owners, err := Owners(mount)
	return slices.Sorted(maps.Keys(owners)), err
}

// Owners returns the users of the host to whom the cgroups of the guests belong (see
// [Dir.Owner]), by the guests' names. It takes one system call for each.
func Owners(mount string) (map[string]int, error) {
	owners := map[string]int{}
	for _, dir := range []string{ours, slice} { // that in a unit counts: see Guest
		at, names, err := linux.Names(filepath.Join(mount, dir))
		if err != nil {
			return nil, err
		}
		defer at.Close()
		for _, entry := range names {
			name, path := entry, entry
			if dir == slice {
				name = strings.TrimPrefix(strings.TrimSuffix(entry, unitKind), unitName)
				if path = entry + "/" + inUnit; len(name) != len(entry)-len(unitKind)-len(unitName) {
					continue
				}
			}
			var st unix.Stat_t
			if name == "" || name[0] == '.' { // of hooks
				continue
			}
			if unix.Fstatat(int(at.Fd()), path, &st, 0) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				owners[name] = int(st.Uid)
			}
		}
	}
	return owners, nil
}

// Leave moves this process, which a unit of systemd began, out of the guest's unit's own
// cgroup into one beside the guest's: controllers can be switched on only in a cgroup
// without processes (cgroups(7), "no internal processes").
func (c Dir) Leave() error {
	beside := filepath.Join(filepath.Dir(string(c)), "vsnode")
	if err := os.Mkdir(beside, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return linux.WriteFile(filepath.Join(beside, "cgroup.procs"), []byte("0"), 0)
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
		if err := linux.WriteFile(filepath.Join(string(c), name), []byte(most), 0); err != nil {
			return nil, fmt.Errorf("bound the guest's cgroups: %w", err)
		}
	}
	for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
		if err := os.Chown(filepath.Join(string(c), name), id, id); err != nil {
			return nil, fmt.Errorf("delegate cgroup: %w", err)
		}
	}
	return linux.Open(string(c), os.O_RDONLY, 0)
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
