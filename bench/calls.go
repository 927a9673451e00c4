package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/node/guest"
)

// callsProgram is bench/floor/calls.c in a guest.
const callsProgram = "bin/calls"

// callsRow does simple things in a guest, and in a process of the host under a seccomp
// filter that allows everything: any filter at all costs a system call about a fifth.
// What a row calls a time is a thousand times what one took.
func callsRow(ctx context.Context, b *bench) (err error) {
	const name = "calls"
	stop, err := b.running(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, what := range []struct {
		do, title string
		least     float64
	}{{"calls", "A system call (getppid)", 0.97}, {"reads", "A read of a page of a file (pread)", 0.97}, {"computes", "Arithmetic", 0.99}} {
		host := filepath.Join(b.tree, callsProgram)
		subjects := []subject{
			printed("in a guest", func(ctx context.Context) (string, error) {
				var out, errs bytes.Buffer
				status, err := b.host.Guests.RunOver(ctx, name, guest.Program{Argv: []string{"/" + callsProgram, what.do}},
					guest.Streams{In: strings.NewReader(""), Out: &out, Errs: &errs})
				if err == nil && status != 0 {
					err = fmt.Errorf("exit status %d: %s", status, errs.String())
				}
				return out.String(), err
			}),
			printed("on the host, with a filter that allows all", func(ctx context.Context) (string, error) {
				out, err := exec.CommandContext(ctx, host, what.do, "filter").Output()
				return string(out), err
			}),
			printed("on the host", func(ctx context.Context) (string, error) {
				out, err := exec.CommandContext(ctx, host, what.do).Output()
				return string(out), err
			}),
		}
		if err := row(ctx, what.title+", a thousand times", b.rounds(30), subjects, []pair{{0, 1, 1 / what.least}, {0, 2, 0}}); err != nil {
			return err
		}
	}
	return nil
}

// printed is a subject that prints how many picoseconds something took.
func printed(name string, run func(ctx context.Context) (string, error)) subject {
	return subject{name, func(ctx context.Context) (time.Duration, error) {
		text, err := run(ctx)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		return time.Duration(n), err
	}}
}
