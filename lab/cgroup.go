package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// initScope is where a host's own processes live. A cgroup that hands
// controllers to its children may hold no processes itself (the root of the
// machine is exempt, that of a cgroup namespace is not), so process 1 and
// sshd keep out of the host's root cgroup, as systemd's do.
const initScope = "init.scope"

// cgroup is a directory of the cgroup v2 hierarchy.
type cgroup string

// cgroupRoot finds cgroup v2 where it is mounted: /sys/fs/cgroup, or
// /sys/fs/cgroup/unified on hybrid hosts.
func cgroupRoot() (cgroup, error) {
	mounts, err := linux.Mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			return cgroup(m.Dir), nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

// labCgroup holds all processes of a lab, a child for each host.
func labCgroup(lab string) (cgroup, error) {
	root, err := cgroupRoot()
	return root.child("vsfleet-" + lab), err
}

func (g cgroup) child(name string) cgroup { return cgroup(filepath.Join(string(g), name)) }

func (g cgroup) file(name string) string { return filepath.Join(string(g), name) }

func (g cgroup) make() error {
	if err := os.Mkdir(string(g), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// delegate hands all of g's controllers to its children.
func (g cgroup) delegate() error {
	data, err := os.ReadFile(g.file("cgroup.controllers"))
	if err != nil {
		return err
	}
	var on []string
	for _, c := range strings.Fields(string(data)) {
		on = append(on, "+"+c)
	}
	if len(on) == 0 {
		return nil
	}
	return os.WriteFile(g.file("cgroup.subtree_control"), []byte(strings.Join(on, " ")), 0o644)
}

// pids of the processes that are in g itself.
func (g cgroup) pids() ([]int, error) {
	data, err := os.ReadFile(g.file("cgroup.procs"))
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.file("cgroup.procs"), err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// populated reports whether there is a process in g or below.
func (g cgroup) populated() (bool, error) {
	data, err := os.ReadFile(g.file("cgroup.events"))
	if isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return strings.Contains(string(data), "populated 1"), nil
}

// isGone reports whether err means that the file is not there, or that its cgroup
// was removed while it was open.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// destroy ends every process in g and below, at once and without a race with
// those that fork, waits until they are gone, and removes the cgroups.
func (g cgroup) destroy(ctx context.Context) error {
	for {
		err := os.WriteFile(g.file("cgroup.kill"), []byte("1"), 0o644)
		if isGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := g.waitEmpty(ctx); err != nil {
			return err
		}
		err = g.remove()
		// Somebody moved a process in after the kill, from outside.
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s does not become empty: %w", g, err)
		}
	}
}

// waitEmpty returns when no process is left in g and below.
func (g cgroup) waitEmpty(ctx context.Context) error {
	events, err := os.Open(g.file("cgroup.events"))
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer events.Close()
	buf := make([]byte, 256)
	for {
		n, err := events.ReadAt(buf, 0)
		if isGone(err) || strings.Contains(string(buf[:n]), "populated 0") {
			return nil
		}
		if n == 0 {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("processes in %s do not end: %w", g, err)
		}
		// POLLPRI says that the file has changed since it was read; the
		// timeout is for ctx.
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 100); err != nil && err != unix.EINTR {
			return err
		}
	}
}

// remove g and the cgroups below it, the deepest first. There are no symlinks
// in a cgroup filesystem.
func (g cgroup) remove() error {
	entries, err := os.ReadDir(string(g))
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := g.child(e.Name()).remove(); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(string(g)); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: string(g), Err: err}
	}
	return nil
}
