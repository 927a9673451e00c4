package linux

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Poll waits until one of fds is ready (poll(2)), and reports false if d passes
// first. It returns the error of ctx as soon as that ends.
func Poll(ctx context.Context, d time.Duration, fds ...unix.PollFd) (ready bool, err error) {
	if ctx.Done() == nil {
		return poll(ctx, d, fds)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return false, fmt.Errorf("eventfd: %w", err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
		unix.Close(wake)
	}()
	return poll(ctx, d, append(fds, unix.PollFd{Fd: int32(wake), Events: unix.POLLIN}))
}

func poll(ctx context.Context, d time.Duration, fds []unix.PollFd) (ready bool, err error) {
	for until := time.Now().Add(d); ; {
		left := time.Until(until)
		// Rounded up, so that a wait of less than a millisecond is not a busy loop.
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
