package linux

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poll waits until one of fds is ready (poll(2)), and reports false if d passes
// first. It returns the error of ctx as soon as that ends.
func Poll(ctx context.Context, d time.Duration, fds ...unix.PollFd) (ready bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if PollBriefly(d, fds...) {
		return ctx.Err() == nil, ctx.Err()
	}
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

// Alone is set in a process that has nothing else to do while one of its goroutines waits.
var Alone bool

// PollBriefly waits at most 2 ms, or d, in a process that is [Alone], and not at all in
// others. Go does not hear of it: what takes no longer is over before other threads have
// been woken to do what this one cannot, which is nothing.
func PollBriefly(d time.Duration, fds ...unix.PollFd) (ready bool) {
	if !Alone || len(fds) == 0 {
		return false
	}
	most := unix.NsecToTimespec(int64(min(d, 2*time.Millisecond)))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&most)), 0, 0, 0)
	return errno == 0 && n > 0
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
