package remote

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/push"
	"github.com/vsfleet/vsfleet/fleet/push/pushtest"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/node/api"
)

// host is a host on which vsnode is started.
type host struct {
	*pushtest.Host
	t *testing.T
}

func newHost(t *testing.T, login string, config ...string) *host {
	t.Helper()
	return &host{pushtest.NewHost(t, login, config...), t}
}

// over returns the host at the other end of a connection.
func (h *host) over(conn *transport.Conn) *Host {
	h.t.Helper()
	r := New(conn)
	r.push = push.Options{Dir: h.Pushed, Binaries: pushtest.Vsnode(h.t, "one")}
	return r
}

func (h *host) connect() *Host {
	h.t.Helper()
	return h.over(h.Dial())
}

func (h *host) startOn(conn *transport.Conn) *Node {
	h.t.Helper()
	n, err := h.over(conn).Serve(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *host) start() *Node {
	h.t.Helper()
	return h.startOn(h.Dial())
}

func TestAClosedNodeDoesNotAnswer(t *testing.T) {
	n := newHost(t, "").start()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := n.State(t.Context()); err == nil {
		t.Error("it answers")
	}
}

// plan returns a plan of steps with these names.
func plan(run string, names ...string) api.Apply {
	req := api.Apply{Run: run}
	for _, n := range names {
		req.Steps = append(req.Steps, api.Step{Kind: api.StepStart, Name: n})
	}
	return req
}

func TestWhatAHostSaysOfItsLeaseIsFitToBeShown(t *testing.T) {
	n := newHost(t, "").start()
	a, err := n.Lease(t.Context(), api.Lease{Holder: api.Holder{Reason: "apply"}})
	if err != nil || a.Held || a.By.Owner != "root@[2Jctl" || !strings.HasPrefix(a.By.Reason, "apply!") || len(a.By.Reason) > 128 {
		t.Errorf("%+v, %v", a, err)
	}
	if err := n.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestApply(t *testing.T) {
	n := newHost(t, "").start()
	t.Run("events come in order and before the result", func(t *testing.T) {
		var events []api.Event
		r, err := n.Apply(t.Context(), plan("1", "count", "nothing"), func(e api.Event) { events = append(events, e) })
		if err != nil || len(r.Results) != 2 || len(events) != 500 {
			t.Fatalf("%d events, results %v, error %v", len(events), r, err)
		}
		for i, e := range events {
			if e.Done != int64(i) {
				t.Fatalf("event %d is number %d", i, e.Done)
			}
		}
	})
	t.Run("a cancelled plan is undone, and told", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		req := plan("2", "wait")
		req.Steps[0].Why = filepath.Join(t.TempDir(), "undone")
		r, err := n.Apply(ctx, req, func(api.Event) { cancel() })
		if err != nil || len(r.Results) != 1 || r.Results[0].Outcome != api.Skipped {
			t.Errorf("results %v, error %v", r, err)
		}
		if _, err := os.Stat(req.Steps[0].Why); err != nil {
			t.Error(err)
		}
	})
	t.Run("requests run side by side, and each is cancelled alone", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := n.Stat(ctx)
			ended <- err
		}()
		if _, err := n.State(t.Context()); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an error is the host's, fit for a terminal", func(t *testing.T) {
		_, err := n.Check(t.Context())
		var remote *Error
		if !errors.As(err, &remote) || err.Error() != "web1: check[2J fails here" {
			t.Errorf("error %q", err)
		}
	})
	t.Run("a panic is an error, and the next request is answered", func(t *testing.T) {
		if _, err := n.Apply(t.Context(), plan("3", "panic"), nil); err == nil || !strings.Contains(err.Error(), "as asked") {
			t.Errorf("error %v", err)
		}
		if _, err := n.State(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("results that are missing are no results", func(t *testing.T) {
		if _, err := n.Apply(t.Context(), plan("4", "forget", "nothing"), nil); err == nil {
			t.Error("no error")
		}
	})
	t.Run("an event of a step that is none ends the session", func(t *testing.T) {
		if _, err := n.Apply(t.Context(), plan("5", "lie"), nil); err == nil || !strings.Contains(err.Error(), "step") {
			t.Errorf("error %v", err)
		}
	})
}

func TestVsnodeThatDiesIsTold(t *testing.T) {
	n := newHost(t, "").start()
	_, err := n.Apply(t.Context(), plan("1", "die"), nil)
	if err == nil || !strings.Contains(err.Error(), "web1") || !strings.Contains(err.Error(), "exit status 3") || transport.Unreachable(err) {
		t.Errorf("error %v", err)
	}
}

func TestControllerThatIsKilledIsUndone(t *testing.T) {
	h := newHost(t, "")
	conn := h.Dial()
	n := h.startOn(conn)
	req := plan("1", "wait")
	req.Steps[0].Why = filepath.Join(t.TempDir(), "undone")
	_, err := n.Apply(t.Context(), req, func(api.Event) { go conn.Close() })
	if !transport.Unreachable(err) {
		t.Errorf("error %v", err)
	}
	pushtest.WaitFor(t, "the host to undo", func() bool {
		_, err := os.Stat(req.Steps[0].Why)
		return err == nil
	})
}
