package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// Result is what came of one host.
type Result[H, V any] struct {
	Host    H
	Value   V // may be there in part beside Err
	Err     error
	Outcome outcome.Outcome
	Took    time.Duration
}

// Limits bound what Each does.
type Limits struct {
	Forks   int           // hosts at a time
	Timeout time.Duration // per host; 0: none
}

// TimeoutError means that a host took longer than its timeout.
type TimeoutError struct {
	After time.Duration
	Flag  string // that sets it; empty: --timeout
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("no end after %s (%s)", e.After, cmp.Or(e.Flag, "--timeout"))
}

// ErrorKind is the [outcome.Kind] of the error.
func (e *TimeoutError) ErrorKind() string { return string(outcome.KindTimeout) }

// Watch is called when hosts begin and end, one call at a time. Either function may
// be nil.
type Watch[H, V any] struct {
	Begin func(H)
	End   func(i int, r Result[H, V]) // also for hosts that are never started
}

// Each calls fn for every host, at most limits.Forks at a time, and returns one
// result per host, in the order of hosts. fn gets ctx with the timeout of the host.
// When ctx ends, Each starts no further hosts, and waits for those under way.
func Each[H, V any](ctx context.Context, hosts []H, limits Limits, fn func(context.Context, H) (V, error), watch Watch[H, V]) []Result[H, V] {
	results := make([]Result[H, V], len(hosts))
	var watching sync.Mutex
	var g errgroup.Group
	g.SetLimit(max(limits.Forks, 1))
	for i, host := range hosts {
		r := &results[i]
		r.Host, r.Outcome = host, outcome.NotStarted
		// Go waits until fewer than Forks run; ctx may end meanwhile.
		g.Go(func() error {
			if r.Err = context.Cause(ctx); r.Err == nil {
				if watch.Begin != nil {
					watching.Lock()
					watch.Begin(host)
					watching.Unlock()
				}
				start := time.Now()
				r.Value, r.Err = limited(ctx, host, limits.Timeout, fn)
				r.Took = time.Since(start)
				r.Outcome = outcome.Of(r.Err)
			}
			if watch.End != nil {
				watching.Lock()
				defer watching.Unlock()
				watch.End(i, *r)
			}
			return nil
		})
	}
	_ = g.Wait() // each host's error is in its result
	return results
}

// limited calls fn with a timeout.
func limited[H, V any](ctx context.Context, host H, timeout time.Duration, fn func(context.Context, H) (V, error)) (V, error) {
	within, cancel := WithTimeout(ctx, timeout)
	defer cancel()
	v, err := fn(within, host)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // not that of the connection that was cut for it
	}
	return v, TimeoutOr(within, err)
}

// WithTimeout returns a context that ends after timeout, with a [TimeoutError] as its
// cause; 0 is no limit.
func WithTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout, &TimeoutError{After: timeout})
}

// TimeoutOr returns err, or, if ctx is one of WithTimeout and over, its
// [TimeoutError]: err is then an effect of it, such as a closed connection.
func TimeoutOr(ctx context.Context, err error) error {
	var late *TimeoutError
	if err != nil && errors.As(context.Cause(ctx), &late) {
		return late
	}
	return err
}

// Outcomes returns the outcomes of results, in their order.
func Outcomes[H, V any](results []Result[H, V]) []outcome.Outcome {
	out := make([]outcome.Outcome, len(results))
	for i, r := range results {
		out[i] = r.Outcome
	}
	return out
}
