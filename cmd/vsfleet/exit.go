package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

// Exit statuses. Those of hosts (2 some failed, 4 some were unreachable, 6
// both) are fanout.ExitCode's.
const (
	exitInternal    = 1
	exitDiffers     = 3 // plan --detailed-exitcode: there is something to change
	exitUsage       = 5 // bad inventory, pattern or flag
	exitInterrupted = 130
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
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, fleet.ErrInterrupted)):
		return exitInterrupted
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
func (a *app) ended(ctx context.Context, statuses ...fanout.Status) error {
	if slices.Contains(statuses, fanout.Failed) && a.unlisted != nil {
		fmt.Fprintln(a.stderr, "hint:", view.Clean(a.unlisted.Error()))
	}
	if code := fanout.ExitCode(ctx.Err() != nil, statuses...); code != 0 {
		return exitStatus(code)
	}
	return nil
}

// statuses are the classes of a report as fanout knows them.
func statuses(r *rollout.Report) []fanout.Status {
	list := make([]fanout.Status, len(r.Hosts))
	for i, h := range r.Hosts {
		switch h.Class {
		case rollout.Failed:
			list[i] = fanout.Failed
		case rollout.Unreachable:
			list[i] = fanout.Unreachable
		case rollout.NotStarted:
			list[i] = fanout.NotStarted
		default:
			list[i] = fanout.OK
		}
	}
	return list
}

// outcomes are the hosts of a report as a recap shows them.
func outcomes(r *rollout.Report) []view.Result {
	list := make([]view.Result, len(r.Hosts))
	for i, h := range r.Hosts {
		list[i] = view.Result{Host: h.Host, Address: h.Address, Class: class(h.Class), Err: errors.Join(h.Problems()...)}
	}
	return list
}

func class(c rollout.Class) view.Class {
	switch c {
	case rollout.OK, "": // the latter has answered, and goes on
		return view.OK
	case rollout.Changed:
		return view.Changed
	case rollout.Unreachable:
		return view.Unreachable
	case rollout.NotStarted:
		return view.Skipped
	}
	return view.Failed
}

// classes are those of hosts that gave no answer.
var classes = map[fanout.Status]view.Class{
	fanout.Failed: view.Failed, fanout.Unreachable: view.Unreachable, fanout.NotStarted: view.Skipped,
}

// outcomeOf is a host's result as records have it.
func outcomeOf(status fanout.Status, err error) view.Outcome {
	o := view.Outcome{Status: view.OK, Class: fleet.Class(err)}
	if status != fanout.OK {
		o.Status = classes[status]
	}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

// failures are the hosts that gave no answer, as a recap shows them.
func failures[V any](results []fanout.Result[*inventory.Host, V]) []view.Result {
	var list []view.Result
	for _, r := range results {
		if r.Status != fanout.OK {
			list = append(list, view.Result{Host: r.Host.Name, Address: r.Host.Address, Class: classes[r.Status], Err: r.Err})
		}
	}
	return list
}

// statusOf is how one host ended.
func statusOf(err error) fanout.Status {
	switch {
	case err == nil:
		return fanout.OK
	case transport.Unreachable(err):
		return fanout.Unreachable
	}
	return fanout.Failed
}
