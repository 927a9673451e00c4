package context

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// poll waits until one of fds is ready, and reports false if d passes first.
// It returns at once with the error of ctx when that ends.
func poll(ctx context.Context, d time.Duration, fds ...unix.PollFd) (ready bool, err error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return false, fmt.Errorf("eventfd: %w", err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
		unix.Close(wake)
	}()
	fds = append(fds, unix.PollFd{Fd: int32(wake), Events: unix.POLLIN})
	for until := time.Now().Add(d); ; {
		left := time.Until(until)
		// Rounded up: a wait of less than a millisecond is not a busy loop.
		n, err := unix.Poll(fds, int(max(0, left+time.Millisecond-1)/time.Millisecond))
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, fmt.Errorf("poll: %w", err)
		case n > 0:
			return true, nil
		case left <= 0:
			return false, nil
		}
	}
}

// End waits for the end of a process that Start made, d at most, and returns
// how it ended.
func (p Process) End(ctx context.Context, d time.Duration) (ws unix.WaitStatus, ended bool, err error) {
	// The number cannot be another's: until it is waited for, it is kept.
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return 0, false, fmt.Errorf("watch process %d: %w", p.PID, err)
	}
	defer unix.Close(pidfd)
	ready, err := poll(ctx, d, unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN})
	if err != nil || !ready {
		return 0, false, err
	}
	ws, err = wait(p.PID)
	return ws, err == nil, err
}

// OOMKills is how many processes of the cgroup the kernel killed for want of
// memory. Where cgroup v2 has no memory controller nobody counts them.
func (c Cgroup) OOMKills() int {
	b, err := os.ReadFile(string(c) + "/memory.events")
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "oom_kill %d", &n)
	}
	return n
}
