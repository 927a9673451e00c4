package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

// Exit statuses. outcome.ExitCode has those that depend on hosts.
const (
	exitInternal = 1
	exitDiffers  = 3 // plan --detailed-exitcode: there is something to change
	exitUsage    = 5 // bad inventory, pattern or flag
)

// mostErrors bounds how many errors of an inventory are printed: one mistake in a
// group of thousands is made thousands of times.
const mostErrors = 20

// exitStatus is an error that ends the program with a status and prints nothing.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a mistake in the command line.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usage returns a function that makes an error a usageError with a hint.
func usage(hint string, args ...any) func(error) error {
	return func(err error) error { return &usageError{err, fmt.Sprintf(hint, args...)} }
}

// exitCode returns the exit status for the error of a command. If the error has
// not been printed yet, exitCode prints it: one line, and a hint where there is one.
func (a *app) exitCode(ctx context.Context, err error) int {
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
			if i == mostErrors && len(files.All) > mostErrors+1 && a.verbose == 0 {
				message(fmt.Sprintf("and %d more errors: fix these first, or show all with --verbose", len(files.All)-i))
				break
			}
			message(one.Error())
			if one.Excerpt != "" {
				fmt.Fprintln(os.Stderr, one.Excerpt)
			}
		}
		return exitUsage
	case errors.As(err, &use):
		message(err.Error())
		if use.hint != "" {
			fmt.Fprintln(os.Stderr, "hint:", use.hint)
		}
		return exitUsage
	case errors.As(err, &pattern):
		message(err.Error())
		return exitUsage
	case !a.prepared: // by cobra: an unknown command or flag, a missing argument
		message(err.Error())
		fmt.Fprintf(os.Stderr, "hint: see %s --help\n", cmp.Or(a.typed, "vsfleet"))
		return exitUsage
	}
	message(err.Error())
	return exitInternal
}

// message prints a line on standard error, with the name of the program.
func message(text string) { fmt.Fprintln(os.Stderr, "vsfleet:", text) }

// exit prints the errors of hosts, and returns their exit status; nil if no host failed.
func (a *app) exit(ctx context.Context, hosts []report.Host) error {
	if err := view.Errors(a.stderr, hosts); err != nil {
		return err
	}
	view.Hints(a.stderr, hosts)
	return a.exitStatus(ctx, report.Outcomes(hosts))
}

func (a *app) exitStatus(ctx context.Context, outcomes []outcome.Outcome) error {
	if slices.Contains(outcomes, outcome.Failed) && a.unlisted != nil {
		fmt.Fprintln(a.stderr, "hint: in the inventory", view.Clean(a.unlisted.Error()))
	}
	if code := outcome.ExitCode(ctx.Err() != nil, outcomes...); code != 0 {
		return exitStatus(code)
	}
	return nil
}
