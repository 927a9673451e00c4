package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Populated reports whether any process is in the cgroup or below: what "running"
// means. A cgroup that does not exist is not populated.
func (c Dir) Populated() (bool, error) {
	b, err := linux.ReadFile(filepath.Join(string(c), "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return strings.Contains(string(b), "populated 1"), nil
}

// PIDs lists the processes in the cgroup and below, those of the guest's own
// root cgroup first.
func (c Dir) PIDs() ([]int, error) {
	var pids []int
	err := c.walk(func(dir string) error {
		b, err := linux.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return err
	})
	return pids, err
}

// walk calls f for the cgroup and all below it. That one of them is gone is no
// error, nor is what a threaded cgroup does not support: its domain does.
func (c Dir) walk(f func(dir string) error) error {
	over := func(err error) bool {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP)
	}
	var st unix.Stat_t
	if err := unix.Stat(string(c), &st); err != nil || st.Nlink <= 2 { // most have none below: its files need not be listed
		if err == nil {
			err = f(string(c))
		}
		if over(err) {
			return nil
		}
		return err
	}
	return filepath.WalkDir(string(c), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = f(path)
		}
		if over(err) {
			return nil
		}
		return err
	})
}

// Init finds process 1 of a running guest. 0: there is none.
func (c Dir) Init() (int, error) { return c.Process(1) }

// Process finds a process of a running guest by its number there: the process in the
// cgroup whose innermost pid it is, one pid namespace below ours. 0: there is none.
func (c Dir) Process(number int) (int, error) {
	pids, err := c.PIDs()
	if err != nil {
		return 0, err
	}
	inside := strconv.Itoa(number)
	for _, pid := range pids {
		numbers, err := linux.NamespacePIDs(pid)
		if err != nil {
			continue // ended meanwhile
		}
		if len(numbers) == 2 && numbers[1] == inside {
			return pid, nil
		}
	}
	return 0, nil
}

// Of returns the cgroup of a process, which must be c or below. A process that
// has ended is an *fs.PathError.
func (c Dir) Of(pid int) (Dir, error) {
	b, err := linux.ReadFile(linux.ProcFile(pid, "cgroup"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		mount := c.mount()
		// Seen from a cgroup namespace the path is below its root, as is the mount.
		dir := filepath.Join(mount, p)
		if dir == string(c) || strings.HasPrefix(dir, string(c)+"/") {
			return Dir(dir), nil
		}
		return "", fmt.Errorf("process %d is in cgroup %s, not in %s", pid, p, c)
	}
	return "", fmt.Errorf("process %d is in no cgroup of version 2", pid)
}

// WaitExec waits until a guest whose vsnode was killed while starting it either
// runs its own program or is gone, and reports whether it runs: its first
// process notices by itself.
func (c Dir) WaitExec(ctx context.Context) (runs bool, err error) {
	for {
		if full, err := c.Populated(); err != nil || !full {
			return false, err
		}
		pid, err := c.Init()
		if err != nil {
			return false, err
		}
		if pid != 0 && !linux.BeforeExec(pid) {
			return true, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		_, _ = unix.Poll(nil, 1)
	}
}
