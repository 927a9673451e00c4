package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// sessions are two vsnodes on one host: to flock(2) two open files are as good
// as two processes.
func sessions(t *testing.T) (a, b *Host) {
	paths := guest.Paths{RunDir: filepath.Join(t.TempDir(), "run")}
	open := func() *Host { return &Host{Guests: &guest.Host{Paths: paths}} }
	return open(), open()
}

func holder(run string) api.Holder {
	return api.Holder{Run: run, Owner: "root@ctl", PID: 4711, Reason: "apply"}
}

func TestALeaseIsHeldByOneSession(t *testing.T) {
	ctx := t.Context()
	a, b := sessions(t)
	if got, err := a.Lease(ctx, api.Lease{Holder: holder("1")}); err != nil || !got.Held {
		t.Fatalf("a: %+v, %v", got, err)
	}
	got, err := b.Lease(ctx, api.Lease{Holder: holder("2")})
	if err != nil || got.Held {
		t.Fatalf("b has what a has: %+v, %v", got, err)
	}
	if by := got.By; by.Owner != "root@ctl" || by.Reason != "apply" || by.PID != 4711 || by.Node != os.Getpid() || time.Since(by.Since) > time.Minute {
		t.Errorf("b is not told who holds it: %+v", by)
	}
	if _, err := b.Apply(ctx, api.Apply{}, nil); err == nil || !strings.Contains(err.Error(), "lease") {
		t.Errorf("a session without the lease may change the host: %v", err)
	}
	if got, err := a.Lease(ctx, api.Lease{Holder: holder("1")}); err != nil || !got.Held {
		t.Errorf("a asks again: %+v, %v", got, err)
	}
}

func TestAWaitForALease(t *testing.T) {
	for _, row := range []struct {
		name string
		wait time.Duration
		then func(t *testing.T, a *Host, over chan struct{}) // while b waits
		held bool
	}{
		{"ends with the holder's session", time.Hour, func(t *testing.T, a *Host, _ chan struct{}) { release(t, a) }, true},
		{"ends when another one takes it", time.Hour, func(t *testing.T, a *Host, over chan struct{}) {
			for n := 2; ; n++ { // as waiters that are quicker, one after the other
				if err := writeHolder(a.lease.held.File, holder(fmt.Sprint(n))); err != nil {
					t.Error(err)
				}
				select {
				case <-over:
					return
				case <-time.After(leasePoll / 10):
				}
			}
		}, false},
		{"ends after its time", 2 * leasePoll, func(*testing.T, *Host, chan struct{}) {}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := sessions(t)
			if _, err := a.Lease(t.Context(), api.Lease{Holder: holder("1")}); err != nil {
				t.Fatal(err)
			}
			over := make(chan struct{})
			var then sync.WaitGroup
			then.Go(func() { row.then(t, a, over) })
			got, err := b.Lease(t.Context(), api.Lease{Holder: holder("me"), Wait: row.wait})
			close(over)
			then.Wait()
			if err != nil || got.Held != row.held || !row.held && got.By.Run == "" {
				t.Errorf("%+v, %v", got, err)
			}
			release(t, a)
			release(t, b)
		})
	}
	t.Run("ends with its request", func(t *testing.T) {
		a, b := sessions(t)
		if _, err := a.Lease(t.Context(), api.Lease{Holder: holder("1")}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := b.Lease(ctx, api.Lease{Holder: holder("2"), Wait: time.Hour}); err == nil {
			t.Errorf("%+v", got)
		}
		release(t, a)
	})
}

func release(t *testing.T, h *Host) {
	t.Helper()
	if err := h.Release(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestTheHostsLogNamesTheRunThatChangesIt(t *testing.T) {
	h, _ := sessions(t)
	h.log.File = filepath.Join(t.TempDir(), "log")
	lines := func() []string {
		b, err := os.ReadFile(h.log.File)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	if _, err := h.Lease(t.Context(), api.Lease{Holder: holder("1")}); err != nil {
		t.Fatal(err)
	}
	if got := lines(); got[0] != "" {
		t.Errorf("nothing was changed yet: %q", got)
	}
	step := api.Step{Kind: "unheard of", Name: "www"}
	if _, err := h.Apply(t.Context(), api.Apply{Run: "1", Steps: []api.Step{step}}, func(api.Event) {}); err != nil {
		t.Fatal(err)
	}
	h.Close()
	h.Close()
	got := lines()
	if len(got) != 2 || !strings.HasSuffix(got[0], " run 1 of root@ctl (apply) begins") ||
		!strings.Contains(got[1], " run 1 of root@ctl (apply) ended after ") || !strings.HasSuffix(got[1], "steps: 1 failed") {
		t.Errorf("%q", got)
	}
}
