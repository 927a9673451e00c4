package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/guest"
)

// startRow starts a guest whose init is /bin/true, sees it end, and cleans up, all
// of which is one start. Ours is the real one: configuration, user namespace,
// idmapped overlay, network context by BPF, Landlock, seccomp. The peers' have
// no user namespace, a network namespace of their own and a root that they only
// read, unless it says otherwise: an end of a root that is written to writes
// the disk's dirty pages (ovl_sync_fs). The floor is what the kernel takes for the
// same guest: see bench/floor/floor.c.
func startRow(ctx context.Context, b *bench) (err error) {
	const name = "start"
	if err := b.guest(ctx, name, "/bin/true"); err != nil {
		return err
	}
	for dir, c := range map[string]bundle{
		"/run/bundle-crun":         {runtime: "crun", root: b.tree},
		"/run/bundle-crun-overlay": {runtime: "crun", root: layers + "/merged", writable: true},
		"/run/bundle-crun-host":    {runtime: "crun", root: b.tree, hostNet: true},
		"/run/bundle-runc":         {runtime: "runc", root: b.tree},
	} {
		if err := c.write(ctx, dir, "/bin/true"); err != nil {
			return err
		}
	}
	floor, stop, err := b.startFloor(ctx, "/bin/true")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	b.host.Guests.WatchStarts = true
	defer func() { b.host.Guests.WatchStarts = false }()
	subjects := []subject{
		// A start sees the end of what ends at once, and clears it away.
		command("vserver NAME start", b.vserver, "--silent", name, "start"),
		{"start in a running vsnode serve", func(ctx context.Context) (time.Duration, error) {
			return timed(func() error {
				err := b.host.Guests.Start(ctx, name, guest.Options{})
				if ended := (*guest.EndedError)(nil); !errors.As(err, &ended) || ended.End.Status != 0 {
					return fmt.Errorf("%s did not end with 0: %w", name, err)
				}
				return nil
			})
		}},
		command("crun run", "crun", "run", "--bundle", "/run/bundle-crun", name),
		{"crun run, with a layer to write on", func(ctx context.Context) (time.Duration, error) {
			return timed(func() error { return b.runOverlay(ctx, "/run/bundle-crun-overlay", name) })
		}},
		command("crun run, in the host's network", "crun", "run", "--bundle", "/run/bundle-crun-host", name),
		command("runc run", "runc", "run", "--bundle", "/run/bundle-runc", name),
		{"the system calls alone (bench/floor)", floor.once},
	}
	return row(ctx, "Start a guest, run /bin/true as its init, end, all cleaned up", b.rounds(30), subjects, []pair{
		{0, 2, 0.8}, {1, 6, 1.25}, {1, 2, 0.6}, {1, 3, 0.8}, {1, 4, 0}, {1, 5, 0},
	})
}

// layers of the peer that has a writable root too.
const layers = "/var/lib/layers"

// runOverlay runs crun on an overlay of the image that is mounted for it.
func (b *bench) runOverlay(ctx context.Context, bundle, name string) (err error) {
	for _, dir := range []string{"/upper", "/work", "/merged"} {
		if err := os.MkdirAll(layers+dir, 0o755); err != nil {
			return err
		}
	}
	options := "lowerdir=" + b.tree + ",upperdir=" + layers + "/upper,workdir=" + layers + "/work"
	if err := unix.Mount("overlay", layers+"/merged", "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(layers+"/merged", 0)) }()
	return runQuietly(ctx, "crun", "run", "--bundle", bundle, name)
}
