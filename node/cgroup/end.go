package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Kill ends every process in it at once (cgroup.kill, kernel 5.14), frozen or
// not, and waits until the last is gone.
func (c Dir) Kill(ctx context.Context) error {
	err := linux.WriteFile(filepath.Join(string(c), "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	empty, err := c.WaitEmptyFor(ctx, dying)
	if err == nil && !empty {
		pids, perr := c.PIDs()
		err = errors.Join(fmt.Errorf("processes %v do not end %v after SIGKILL: they wait for a device or a network filesystem (state D in ps)", pids[:min(len(pids), 10)], dying), perr)
	}
	return err
}

// dying is how long killed processes may take to end.
const dying = time.Minute

// WaitEmptyFor waits for a guest's last process, but not longer than d.
func (c Dir) WaitEmptyFor(ctx context.Context, d time.Duration) (empty bool, err error) {
	tctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err = c.WaitEmpty(tctx)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// WaitEmpty waits until no process is left.
func (c Dir) WaitEmpty(ctx context.Context) error {
	events, err := linux.Open(filepath.Join(string(c), "cgroup.events"), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer events.Close()
	// The kernel tells of one change of cgroup.events in 10 ms
	// (CGROUP_FILE_NOTIFY_MIN_INTV), but at once of the end of process 1, which is
	// the last of its guest.
	fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
	if pid, err := c.Init(); err == nil && pid != 0 {
		if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
			defer unix.Close(pidfd)
			fds = append(fds, unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN})
		}
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		empty, err := isEmpty(events)
		if err != nil || empty {
			return err
		}
		if len(fds) == 1 {
			// Who is left was on the way in: look before it is told.
			if _, err := linux.Poll(ctx, pause, fds...); err != nil {
				return err
			}
			continue
		}
		if _, err := linux.Poll(ctx, time.Minute, fds...); err != nil {
			return err
		}
		if n, err := unix.Poll(fds[1:], 0); err != nil || n > 0 {
			fds = fds[:1]
		}
	}
}

func isEmpty(events *os.File) (bool, error) {
	buf := make([]byte, 256)
	n, err := events.ReadAt(buf, 0)
	if n == 0 {
		if errors.Is(err, unix.ENODEV) { // removed meanwhile
			return true, nil
		}
		return false, fmt.Errorf("read %s: %w", events.Name(), err)
	}
	return strings.Contains(string(buf[:n]), "populated 0"), nil
}

// Thaw lets a guest that froze its cgroups go on, so that it can be asked to
// end. What it freezes again meanwhile can still be killed.
func (c Dir) Thaw() error {
	return c.walk(func(dir string) error {
		file := filepath.Join(dir, "cgroup.freeze")
		b, err := linux.ReadFile(file)
		if err == nil && strings.TrimSpace(string(b)) != "0" {
			err = linux.WriteFile(file, []byte("0"), 0)
		}
		return err
	})
}

// Terminate sends a signal to all processes but one, those that they start
// meanwhile too, and waits for their end until ctx ends.
func (c Dir) Terminate(ctx context.Context, sig unix.Signal, except int) error {
	asked := map[int]bool{}
	for {
		pids, err := c.PIDs()
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == except })
		if len(pids) == 0 {
			return nil
		}
		var fds []unix.PollFd
		for some := range slices.Chunk(pids, atOnce) {
			closePolled(fds)
			if fds, err = c.ask(some, sig, asked); err != nil {
				return err
			}
		}
		if err := waitAll(ctx, fds); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// atOnce bounds the descriptors that Terminate has open.
const atOnce = 256

// ask sends a signal to those of pids that were not asked before, and gives
// descriptors of all of them that are still there.
func (c Dir) ask(pids []int, sig unix.Signal, asked map[int]bool) (fds []unix.PollFd, err error) {
	opened := map[int]int{}
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			opened[pid] = fd
			fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	// Who has a number now that was the cgroup's when it was listed is one of it
	// only if it is listed still.
	still, err := c.PIDs()
	for _, pid := range still {
		if fd, ok := opened[pid]; ok && !asked[pid] && err == nil {
			asked[pid] = true
			err = linux.SignalStopped(fd, sig)
		}
	}
	if err != nil {
		closePolled(fds)
		return nil, fmt.Errorf("ask processes to end: %w", err)
	}
	return fds, nil
}

// waitAll waits for the ends of processes, one after the other, as all are waited
// for, and closes their descriptors.
func waitAll(ctx context.Context, fds []unix.PollFd) error {
	defer closePolled(fds)
	for _, fd := range fds {
		for ended := false; !ended; {
			var err error
			if ended, err = linux.Poll(ctx, time.Minute, fd); err != nil {
				return err
			}
		}
	}
	return nil
}

func closePolled(fds []unix.PollFd) {
	for _, fd := range fds {
		unix.Close(int(fd.Fd))
	}
}
