package procctx

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// End waits at most d for the process to end, and returns how it ended.
func (p Process) End(ctx context.Context, d time.Duration) (ws unix.WaitStatus, ended bool, err error) {
	// The pid cannot be reused: the kernel keeps it until the process is reaped.
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return 0, false, fmt.Errorf("watch process %d: %w", p.PID, err)
	}
	defer unix.Close(pidfd)
	ready, err := linux.Poll(ctx, d, unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN})
	if err != nil || !ready {
		return 0, false, err
	}
	ws, err = wait(p.PID)
	return ws, err == nil, err
}
