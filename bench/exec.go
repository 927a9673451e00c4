package main

import (
	"context"
	"errors"
	"strconv"
)

// execRow runs /bin/true in a guest that runs.
func execRow(ctx context.Context, b *bench) (err error) {
	const name = "exec"
	stop, err := b.running(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	pid, err := b.cgroup(name).Init()
	if err != nil {
		return err
	}
	subjects := []subject{
		command("vserver NAME exec", b.vserver, name, "exec", "/bin/true"),
		command("nsenter -a", "nsenter", "-a", "-t", strconv.Itoa(pid), "/bin/true"),
	}
	for _, runtime := range []string{"crun", "runc"} {
		dir := "/run/bundle-exec-" + runtime
		if err := (bundle{runtime: runtime, root: b.tree}).write(ctx, dir, "/bin/sleep", "1000000"); err != nil {
			return err
		}
		if err := runQuietly(ctx, runtime, "run", "--detach", "--bundle", dir, name); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, runQuietly(ctx, runtime, "delete", "--force", name)) }()
		subjects = append(subjects, command(runtime+" exec", runtime, "exec", name, "/bin/true"))
	}
	return row(ctx, "Run /bin/true in a running guest", b.rounds(50), subjects, []pair{{0, 1, 1.5}, {0, 2, 0}, {0, 3, 0}})
}
