package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

// Exit statuses. Those that depend on what came of hosts are outcome.ExitCode's.
const (
	exitInternal = 1
	exitDiffers  = 3 // plan --detailed-exitcode: there is something to change
	exitUsage    = 5 // bad inventory, pattern or flag
)

// mostErrors of an inventory are printed: one mistake in a group of thousands is
// made thousands of times.
const mostErrors = 20

// exitStatus ends the program with a status; all has been said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a mistake of whoever typed the command.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usage makes mistakes of errors, with a hint.
func usage(hint string, args ...any) func(error) error {
	return func(err error) error { return &usageError{err, fmt.Sprintf(hint, args...)} }
}

// status is the exit status for what a command returned. It says what nobody
// has said yet: one line, and a hint where there is one.
func (a *app) status(ctx context.Context, err error) int {
	var exit exitStatus
	var use *usageError
	var files *inventory.Errors
	var pattern *inventory.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, outcome.ErrInterrupted)):
		return outcome.ExitInterrupted
	case errors.As(err, &files):
		for i, one := range files.All {
			if i == mostErrors && len(files.All) > mostErrors+1 && !a.verbose {
				say(fmt.Sprintf("and %d more errors: mend these first, or see them all with --verbose", len(files.All)-i))
				break
			}
			say(one.Error())
		}
		return exitUsage
	case errors.As(err, &use):
		say(err.Error())
		if use.hint != "" {
			fmt.Fprintln(os.Stderr, "hint:", use.hint)
		}
		return exitUsage
	case errors.As(err, &pattern):
		say(err.Error())
		return exitUsage
	case !a.prepared: // cobra's own: an unknown command or flag, a missing argument
		say(err.Error())
		fmt.Fprintf(os.Stderr, "hint: see %s --help\n", cmp.Or(a.typed, "vsfleet"))
		return exitUsage
	}
	say(err.Error())
	return exitInternal
}

func say(text string) { fmt.Fprintln(os.Stderr, "vsfleet:", text) }

// ended is the error for what came of the hosts of a command: nil if all is
// well with all of them.
func (a *app) ended(ctx context.Context, outcomes ...outcome.Outcome) error {
	if slices.Contains(outcomes, outcome.Failed) && a.unlisted != nil {
		fmt.Fprintln(a.stderr, "hint:", view.Clean(a.unlisted.Error()))
	}
	if code := outcome.ExitCode(ctx.Err() != nil, outcomes...); code != 0 {
		return exitStatus(code)
	}
	return nil
}

// failures are the hosts that gave no answer.
func failures[V any](results []fanout.Result[*inventory.Host, V]) []report.Host {
	var list []report.Host
	for _, r := range results {
		if r.Outcome != outcome.OK {
			list = append(list, report.HostOf(r.Host.Name, r.Host.Address, r.Outcome, r.Err))
		}
	}
	return list
}
