package linux

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPoll(t *testing.T) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for name, alone := range map[string]bool{"beside others": false, "alone": true} {
		t.Run(name, func(t *testing.T) {
			Alone = alone
			defer func() { Alone = false }()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			fd := unix.PollFd{Fd: int32(r.Fd()), Events: unix.POLLIN}
			check := func(what string, want bool, reason error, ctx context.Context, d time.Duration) {
				t.Helper()
				if ready, err := Poll(ctx, d, fd); ready != want || !errors.Is(err, reason) {
					t.Errorf("%s: %v, %v", what, ready, err)
				}
			}
			check("nothing comes", false, nil, context.Background(), 5*time.Millisecond)
			check("nobody waits", false, nil, context.Background(), 0)
			later, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			check("who waits gives up", false, context.DeadlineExceeded, later, time.Minute)
			time.AfterFunc(10*time.Millisecond, func() { w.Close() })
			check("it comes later", true, nil, context.Background(), time.Minute)
			check("it is there", true, nil, context.Background(), time.Minute)
			check("it is there, and nobody wants it", false, context.Canceled, over, time.Minute)
			begun := time.Now()
			if ready, err := Poll(context.Background(), 10*time.Millisecond); ready || err != nil || time.Since(begun) < 10*time.Millisecond {
				t.Errorf("only time passes: %v, %v after %v", ready, err, time.Since(begun))
			}
		})
	}
}
