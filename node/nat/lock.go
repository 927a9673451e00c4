package nat

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockPath is the lock's file. Its text are the forwards for which conntrack
// has been cleared: see endFlows.
const lockPath = "/run/vservers/nat.lock"

// lock waits until no other vsnode changes the host's private networks.
func lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(lockPath), 0o755); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	f, err := os.OpenFile(lockPath, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	got := make(chan error, 1)
	go func() { got <- flock(f) }()
	select {
	case err = <-got:
	case <-ctx.Done():
		// The goroutine keeps its place in the queue and gives it up at once.
		go func() { <-got; release(f) }()
		return nil, fmt.Errorf("wait for the lock %s: %w", lockPath, ctx.Err())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", lockPath, err)
	}
	return func() { release(f) }, nil
}

// release lets go at once. Closing alone does not: a guest's first process that
// another start has just forked has a copy of the descriptor, and may itself
// wait for who waits for this lock.
func release(f *os.File) {
	unix.Flock(int(f.Fd()), unix.LOCK_UN)
	f.Close()
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}
