package outcome

import (
	"context"
	"errors"
	"slices"
)

// Outcome is what came of a host or a step. The zero value means that it has
// not ended.
type Outcome string

// Outcomes, from best to worst. The words are those of records and tables.
const (
	OK          Outcome = "ok"          // nothing had to change
	Changed     Outcome = "changed"     // it was changed, and is as wanted
	NotStarted  Outcome = "skipped"     // its turn did not come
	Stopped     Outcome = "stopped"     // its turn did not come because of the run's stop rule
	Reverted    Outcome = "reverted"    // it was changed, and then taken back
	Unreachable Outcome = "unreachable" // the connection failed
	Failed      Outcome = "failed"
)

var fromBest = []Outcome{"", OK, Changed, NotStarted, Stopped, Reverted, Unreachable, Failed}

// All returns all outcomes, from best to worst.
func All() []Outcome { return slices.Clone(fromBest[1:]) }

// Worst returns the worst of several outcomes; of none, OK.
func Worst(outcomes ...Outcome) Outcome {
	worst := OK
	for _, o := range outcomes {
		if slices.Index(fromBest, o) > slices.Index(fromBest, worst) {
			worst = o
		}
	}
	return worst
}

// Of returns the outcome of what ended with err: OK, Unreachable, Stopped or Failed. An
// error on the way to a host has a method Unreachable that returns true.
func Of(err error) Outcome {
	var way interface{ Unreachable() bool }
	switch {
	case err == nil:
		return OK
	case errors.As(err, &way) && way.Unreachable():
		return Unreachable
	case kindOf(err) == KindStopped:
		return Stopped
	}
	return Failed
}

// KindOf returns the kind of an error; of nil, "". An error that is not
// KindHost has a method ErrorKind that returns its kind.
func KindOf(err error) Kind {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.Canceled):
		return KindInterrupted
	}
	return kindOf(err)
}

func kindOf(err error) Kind {
	// A string, so that an error's package need not import this one.
	var kind interface{ ErrorKind() string }
	if errors.As(err, &kind) {
		return Kind(kind.ErrorKind())
	}
	return KindHost
}

// ErrInterrupted is the cause of a context that ended by Ctrl-C.
var ErrInterrupted error = interrupted{}

type interrupted struct{}

func (interrupted) Error() string     { return "interrupted" }
func (interrupted) ErrorKind() string { return string(KindInterrupted) }

// Exit statuses of vsfleet that depend on what came of hosts. ExitFailed and
// ExitUnreachable add up.
const (
	ExitFailed      = 2 // some host failed, was reverted, or was not begun
	ExitUnreachable = 4
	ExitStopped     = 8 // by the run's stop rule, whatever else happened
	ExitInterrupted = 130
)

// ExitCode returns the exit status of vsfleet for the outcomes of its hosts.
func ExitCode(wasInterrupted bool, outcomes ...Outcome) int {
	if wasInterrupted {
		return ExitInterrupted
	}
	code := 0
	for _, o := range outcomes {
		switch o {
		case Stopped:
			return ExitStopped
		case Failed, Reverted, NotStarted:
			code |= ExitFailed
		case Unreachable:
			code |= ExitUnreachable
		}
	}
	return code
}
