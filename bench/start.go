package main

import (
	"context"
	"time"

	"github.com/vsfleet/vsfleet/node/guest"
)

// startRow starts a guest whose init is /bin/true, waits for its end, and
// clears it away. Ours comes by the real road: configuration, user namespace,
// idmapped overlay, network context by BPF, Landlock, seccomp. The peers' have
// a read-only root and no user namespace, and a network namespace of their own
// unless it says otherwise.
func startRow(ctx context.Context, b *bench) error {
	const name = "start"
	if err := b.guest(ctx, name, "/bin/true"); err != nil {
		return err
	}
	if err := b.bundle(ctx, "crun", "/run/bundle-crun", false, "/bin/true"); err != nil {
		return err
	}
	if err := b.bundle(ctx, "crun", "/run/bundle-crun-host", true, "/bin/true"); err != nil {
		return err
	}
	if err := b.bundle(ctx, "runc", "/run/bundle-runc", false, "/bin/true"); err != nil {
		return err
	}
	ended := func() error { return b.cgroup(name).WaitEmpty(ctx) }
	subjects := []subject{
		{"vserver NAME start, stop", func(ctx context.Context) (time.Duration, error) {
			return timed(func() error {
				return inOrder(
					func() error { return quietly(ctx, b.vserver, name, "start") },
					ended,
					func() error { return quietly(ctx, b.vserver, "--silent", name, "stop") })
			})
		}},
		{"start, stop in a running vsnode serve", func(ctx context.Context) (time.Duration, error) {
			return timed(func() error {
				return inOrder(
					func() error { return b.host.Guests.Start(ctx, name, guest.Options{}) },
					ended,
					func() error { _, err := b.host.Guests.Stop(ctx, name); return err })
			})
		}},
		command("crun run", "crun", "run", "--bundle", "/run/bundle-crun", name),
		command("crun run, in the host's network", "crun", "run", "--bundle", "/run/bundle-crun-host", name),
		command("runc run", "runc", "run", "--bundle", "/run/bundle-runc", name),
	}
	return row(ctx, "Start a guest, run /bin/true as its init, end, all cleaned up", b.rounds(30), subjects, []pair{
		{0, 2, 0.8}, {1, 2, 0.8}, {1, 3, 0}, {1, 4, 0},
	})
}

func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
