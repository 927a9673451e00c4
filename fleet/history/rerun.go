package history

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

// Which selects the hosts of a rerun.
type Which struct {
	Failed    bool // those that failed or were reverted, or whose outcome is not known
	Unreached bool // those that could not be reached, or whose turn did not come
	All       bool
}

func (w Which) has(o outcome.Outcome) bool {
	switch o {
	case outcome.Failed, outcome.Reverted, "":
		return w.Failed || w.All
	case outcome.Unreachable, outcome.NotStarted, outcome.Stopped:
		return w.Unreached || w.All
	}
	return w.All
}

// Again is a command that is to be run again.
type Again struct {
	Args  []string
	Dir   string   // where it was run
	Hosts []string // names of the inventory
	Of    string   // the ID of the run
}

// RerunError means that a run cannot be repeated.
type RerunError struct{ Err error }

func (e *RerunError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *RerunError) Unwrap() error { return e.Err }

// Rerun returns the command that repeats a run on some of its hosts.
func Rerun(k report.KeptRecord, which Which) (Again, error) {
	refuse := func(format string, args ...any) (Again, error) {
		return Again{}, &RerunError{fmt.Errorf("run %s cannot be run again: "+format, append([]any{k.ID}, args...)...)}
	}
	switch {
	case k.Status == report.KeptRunning:
		return refuse("it is under way")
	case k.Redacted:
		return refuse("its command line held a secret, which was not kept: run the command itself")
	case len(k.Args) == 0:
		return refuse("its command line is not known")
	}
	var hosts []string
	for _, h := range k.Report.Hosts {
		// A command in several guests of a host is repeated in all of them.
		name, _, _ := strings.Cut(h.Name, "/")
		if which.has(h.Status) && !slices.Contains(hosts, name) {
			hosts = append(hosts, name)
		}
	}
	if hosts == nil {
		return Again{}, &RerunError{errors.New("run " + k.ID + " has no such hosts")}
	}
	return Again{Args: k.Args, Dir: k.Dir, Hosts: hosts, Of: k.ID}, nil
}
