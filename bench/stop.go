package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/guest"
)

// stopRow stops guests of some, many and very many processes, beside the
// kernel alone: a write to cgroup.kill, and the event that says it is empty.
func stopRow(ctx context.Context, b *bench) error {
	for _, n := range []int{1, 50, 500} {
		name := fmt.Sprintf("stop-%d", n)
		init := []string{"/bin/sleep", "1000000"}
		if n > 1 {
			script := fmt.Sprintf("i=1; while [ $i -lt %d ]; do sleep 1000000 & i=$((i+1)); done; wait", n)
			init = []string{"/bin/sh", "-c", script}
		}
		if err := b.guest(ctx, name, init...); err != nil {
			return err
		}
		stop := func(ctx context.Context) error { _, err := b.host.Guests.Stop(ctx, name); return err }
		subjects := []subject{
			{"vserver NAME stop", func(ctx context.Context) (time.Duration, error) {
				if err := b.startFull(ctx, name, n); err != nil {
					return 0, err
				}
				return timed(func() error { return runQuietly(ctx, b.vserver, name, "stop") })
			}},
			{"stop in a running vsnode serve", func(ctx context.Context) (time.Duration, error) {
				if err := b.startFull(ctx, name, n); err != nil {
					return 0, err
				}
				return timed(func() error { return stop(ctx) })
			}},
			{"the kernel alone", func(ctx context.Context) (time.Duration, error) {
				if err := b.startFull(ctx, name, n); err != nil {
					return 0, err
				}
				d, err := timed(func() error { return b.cgroup(name).Kill(ctx) })
				if err == nil {
					err = stop(ctx)
				}
				return d, err
			}},
		}
		title := fmt.Sprintf("Stop a guest of %d processes", n)
		if err := row(ctx, title, b.rounds(max(5, 20-n/20)), subjects, []pair{{0, 2, 0}, {1, 2, 1.5}}); err != nil {
			return err
		}
	}
	return nil
}

// startFull starts a guest and waits until it has n processes, and until the kernel
// would report the next change of its cgroup at once, which it does at most every
// 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV).
func (b *bench) startFull(ctx context.Context, name string, n int) error {
	if err := b.host.Guests.Start(ctx, name, guest.Options{}); err != nil {
		return err
	}
	for {
		pids, err := b.cgroup(name).PIDs()
		if err != nil {
			return err
		}
		if len(pids) >= n {
			time.Sleep(20 * time.Millisecond)
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		unix.Poll(nil, 1) // the kernel sends no event for their number
	}
}
