package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
)

// told says which hosts gave no answer, and makes the exit status of all.
func (a *app) told(ctx context.Context, failures []report.Host, outcomes []outcome.Outcome) error {
	if err := view.Errors(a.stderr, failures); err != nil {
		return err
	}
	view.Hints(a.stderr, failures)
	return a.ended(ctx, outcomes...)
}

// question is asked before what cannot be taken back.
type question struct {
	text string
	no   string // what to say after a no
	mute string // why it cannot be asked without a terminal
	hint string // what to do then
}

// ask a question; anything but yes is an error.
func (a *app) ask(ctx context.Context, q question) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !a.stderr.Terminal {
		return usage("%s", q.hint)(errors.New(q.mute))
	}
	fmt.Fprint(a.stderr, q.text, " [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n') // its end is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
		return &usageError{err: errors.New(q.no)}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// progress shows a run while it goes on.
func (a *app) progress(hosts int) *view.Progress {
	if a.quiet {
		return view.NewProgress(view.Plain(io.Discard), hosts, false)
	}
	return view.NewProgress(a.stderr, hosts, a.verbose)
}
