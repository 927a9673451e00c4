package fanout

import (
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
	Value   V // may be in part there beside Err
	Err     error
	Outcome outcome.Outcome
	Took    time.Duration
}

// Limits bound what Each does at once and for how long.
type Limits struct {
	Forks   int           // hosts at once
	Timeout time.Duration // of each host; 0: none
}

// TimeoutError is that a host took longer than it may.
type TimeoutError struct{ After time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("no end after %s (--timeout)", e.After)
}

// ErrorKind is the [outcome.Kind] of the error.
func (e *TimeoutError) ErrorKind() string { return string(outcome.KindTimeout) }

// Watch hears of hosts as they begin and end, one call at a time. Either may
// be nil.
type Watch[H, V any] struct {
	Begin func(H)
	End   func(i int, r Result[H, V]) // also of hosts that are never begun
}

// Each calls fn for every host, at most limits.Forks at once, and returns one
// result a host in the order of hosts. When ctx ends, no host is begun any
// more; fn sees the same ctx, with the host's own limit, and is waited for.
func Each[H, V any](ctx context.Context, hosts []H, limits Limits, fn func(context.Context, H) (V, error), watch Watch[H, V]) []Result[H, V] {
	results := make([]Result[H, V], len(hosts))
	var told sync.Mutex
	var g errgroup.Group
	g.SetLimit(max(limits.Forks, 1))
	for i, host := range hosts {
		r := &results[i]
		r.Host, r.Outcome = host, outcome.NotStarted
		// Go waits for a free place; ctx may end meanwhile.
		g.Go(func() error {
			if r.Err = context.Cause(ctx); r.Err == nil {
				if watch.Begin != nil {
					told.Lock()
					watch.Begin(host)
					told.Unlock()
				}
				start := time.Now()
				r.Value, r.Err = limited(ctx, host, limits.Timeout, fn)
				r.Took = time.Since(start)
				r.Outcome = outcome.Of(r.Err)
			}
			if watch.End != nil {
				told.Lock()
				defer told.Unlock()
				watch.End(i, *r)
			}
			return nil
		})
	}
	_ = g.Wait() // each host's error is in its result
	return results
}

// limited calls fn, which has only so much time for the host.
func limited[H, V any](ctx context.Context, host H, timeout time.Duration, fn func(context.Context, H) (V, error)) (V, error) {
	within, cancel := Within(ctx, timeout)
	defer cancel()
	v, err := fn(within, host)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // not the connection that was lost because it was cut
	}
	return v, Late(within, err)
}

// Within gives what is done with one host only so much time; 0 is no limit.
func Within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout, &TimeoutError{timeout})
}

// Late makes err the reason that it has, if that is a context of Within's that
// is over: a lost connection, say, which was closed for it.
func Late(ctx context.Context, err error) error {
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
