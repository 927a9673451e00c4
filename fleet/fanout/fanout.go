package fanout

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/fleet/transport"
)

// Status is the class of a host's result.
type Status string

// What came of a host.
const (
	OK          Status = "ok"
	Failed      Status = "failed"
	Unreachable Status = "unreachable"
	NotStarted  Status = "not started"
)

// Result is what came of one host.
type Result[H, V any] struct {
	Host   H
	Value  V // may be in part there beside Err
	Err    error
	Status Status
	Took   time.Duration
}

// Each calls fn for every host, at most forks at once, and returns one result
// a host in the order of hosts. When ctx ends, no host is begun any more; fn
// sees the same ctx and is waited for.
func Each[H, V any](ctx context.Context, hosts []H, forks int, fn func(context.Context, H) (V, error)) []Result[H, V] {
	results := make([]Result[H, V], len(hosts))
	var g errgroup.Group
	g.SetLimit(max(forks, 1))
	for i, host := range hosts {
		r := &results[i]
		r.Host, r.Status = host, NotStarted
		// Go waits for a free place; ctx may end meanwhile.
		g.Go(func() error {
			if r.Err = ctx.Err(); r.Err != nil {
				return nil
			}
			start := time.Now()
			r.Value, r.Err = fn(ctx, host)
			r.Took = time.Since(start)
			r.Status = status(r.Err)
			return nil
		})
	}
	_ = g.Wait() // each host's error is in its result
	return results
}

func status(err error) Status {
	switch {
	case err == nil:
		return OK
	case transport.Unreachable(err):
		return Unreachable
	}
	return Failed
}

// ExitCode is the exit code of vsfleet for the results of its hosts: 0 all
// well, 2 some failed, 4 some were unreachable, 6 both, 130 interrupted.
func ExitCode(interrupted bool, statuses ...Status) int {
	if interrupted {
		return 130
	}
	code := 0
	for _, s := range statuses {
		switch s {
		case Failed, NotStarted:
			code |= 2
		case Unreachable:
			code |= 4
		}
	}
	return code
}

// Statuses of results, as ExitCode takes them.
func Statuses[H, V any](results []Result[H, V]) []Status {
	out := make([]Status, len(results))
	for i, r := range results {
		out[i] = r.Status
	}
	return out
}
