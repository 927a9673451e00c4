package fanout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

func TestEach(t *testing.T) {
	t.Run("results are in the order of the hosts, and of their class", func(t *testing.T) {
		unreachable := func() error {
			dir := t.TempDir()
			_, key := sshtest.NewKey(t, dir, "key")
			known := filepath.Join(dir, "known_hosts")
			if err := os.WriteFile(known, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := new(transport.Dialer).Dial(t.Context(), transport.Settings{Address: "127.0.0.1", Port: 1, Identity: key, KnownHosts: known})
			return fmt.Errorf("ping: %w", err)
		}()
		errs := []error{nil, errors.New("disk is full"), unreachable, nil}
		results := Each(t.Context(), []int{0, 1, 2, 3}, Limits{Forks: 2}, func(_ context.Context, i int) (string, error) {
			return fmt.Sprint("host", i), errs[i]
		}, Watch[int, string]{})
		want := []outcome.Outcome{outcome.OK, outcome.Failed, outcome.Unreachable, outcome.OK}
		for i, r := range results {
			if r.Host != i || r.Value != fmt.Sprint("host", i) || r.Err != errs[i] || r.Outcome != want[i] {
				t.Errorf("%+v, want %s", r, want[i])
			}
		}
	})
	t.Run("no more run at once than forks, and no fewer", func(t *testing.T) {
		const forks = 3
		var running, most atomic.Int32
		full := make(chan struct{})
		Each(t.Context(), make([]int, 12), Limits{Forks: forks}, func(context.Context, int) (int, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if n == forks && most.Load() == forks {
				select {
				case <-full:
				default:
					close(full)
				}
			}
			<-full
			return 0, nil
		}, Watch[int, int]{})
		if most.Load() != forks {
			t.Errorf("%d ran at once", most.Load())
		}
	})
	t.Run("after an interrupt what runs is waited for, and nothing is begun", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		results := Each(ctx, []int{0, 1, 2}, Limits{Forks: 1}, func(ctx context.Context, i int) (string, error) {
			if i == 1 {
				cancel()
				return "half", ctx.Err()
			}
			return "whole", nil
		}, Watch[int, string]{})
		for i, want := range []outcome.Outcome{outcome.OK, outcome.Failed, outcome.NotStarted} {
			if results[i].Outcome != want {
				t.Errorf("host %d: %+v, want %s", i, results[i], want)
			}
		}
		if results[1].Value != "half" || !errors.Is(results[2].Err, context.Canceled) {
			t.Errorf("%+v", results)
		}
	})
	t.Run("a host that is slow hides no other, and has its time", func(t *testing.T) {
		ended := make(chan string, 3) // as they come
		results := Each(t.Context(), []int{0, 1, 2}, Limits{Forks: 3, Timeout: 50 * time.Millisecond}, func(ctx context.Context, i int) (string, error) {
			if i != 1 {
				return "whole", nil
			}
			for range 2 { // the other two end before this one
				ended <- <-ended
			}
			<-ctx.Done()
			return "half", errors.New("connection closed")
		}, Watch[int, string]{End: func(i int, r Result[int, string]) { ended <- r.Value }})
		var late *TimeoutError
		if r := results[1]; !errors.As(r.Err, &late) || r.Outcome != outcome.Failed || r.Value != "half" {
			t.Errorf("%+v", r)
		}
		close(ended)
		for want := range slices.Values([]string{"whole", "whole", "half"}) {
			if got := <-ended; got != want {
				t.Errorf("End was called with %q, want %q", got, want)
			}
		}
	})
	t.Run("End is called for hosts that are not started, too", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("Ctrl-C")
		cancel(why)
		var ended []outcome.Outcome
		r := Each(ctx, []int{0, 1}, Limits{Forks: 1}, func(context.Context, int) (int, error) { return 0, nil },
			Watch[int, int]{Begin: func(int) { t.Error("begun") }, End: func(_ int, r Result[int, int]) { ended = append(ended, r.Outcome) }})
		if !slices.Equal(ended, []outcome.Outcome{outcome.NotStarted, outcome.NotStarted}) || r[0].Err != why {
			t.Errorf("%v, %v", ended, r)
		}
	})
	t.Run("no hosts are no results", func(t *testing.T) {
		if r := Each(t.Context(), nil, Limits{}, func(context.Context, int) (int, error) { return 0, nil }, Watch[int, int]{}); len(r) != 0 {
			t.Errorf("%v", r)
		}
	})
}
