package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// host is a Host with the functions that a test sets.
type host struct {
	state func(ctx context.Context) (api.State, error)
	apply func(ctx context.Context, req api.Apply, emit func(api.Event)) (api.ApplyResult, error)
}

func (h host) State(ctx context.Context) (api.State, error) { return h.state(ctx) }
func (h host) Check(context.Context) (api.Check, error)     { return api.Check{}, nil }
func (h host) Stat(context.Context) (api.Stat, error)       { return api.Stat{}, nil }
func (h host) Files(context.Context, api.FilesRequest) (api.FilesAnswer, error) {
	return api.FilesAnswer{}, nil
}
func (h host) CollectImages(context.Context, api.Collect) (api.Collected, error) {
	return api.Collected{}, nil
}
func (h host) Arrived(context.Context, api.ExportImage) (api.Arrived, error) {
	return api.Arrived{}, nil
}
func (h host) CheckStore(context.Context) (api.StoreCheck, error) { return api.StoreCheck{}, nil }
func (h host) Stale(context.Context, api.StaleRequest) (api.StaleAnswer, error) {
	return api.StaleAnswer{}, nil
}
func (h host) Usage(context.Context) (api.Usage, error) { return api.Usage{}, nil }
func (h host) Hashify(context.Context, api.Hashify) (api.Hashified, error) {
	return api.Hashified{}, nil
}
func (h host) Volumes(context.Context) (api.Volumes, error) { return api.Volumes{}, nil }
func (h host) DeleteVolume(context.Context, api.DeleteVolume) (api.Deleted, error) {
	return api.Deleted{}, nil
}
func (h host) Generations(context.Context) (api.Generations, error) { return api.Generations{}, nil }
func (h host) Confirm(context.Context, api.Confirm) (api.Confirmed, error) {
	return api.Confirmed{}, nil
}
func (h host) Locks(context.Context) (api.Locks, error)                 { return api.Locks{}, nil }
func (h host) Lock(context.Context, api.Lock) error                     { return nil }
func (h host) Unlock(context.Context, api.Unlock) (api.Unlocked, error) { return api.Unlocked{}, nil }
func (h host) Heard()                                                   {}
func (h host) Release(context.Context) error                            { return nil }
func (h host) Install(context.Context) (api.Installed, error) {
	return api.Installed{}, nil
}
func (h host) RemoveImage(context.Context, api.RemoveImage) (api.RemovedImage, error) {
	return api.RemovedImage{}, nil
}
func (h host) Lease(context.Context, api.Lease) (api.LeaseAnswer, error) {
	return api.LeaseAnswer{Held: true}, nil
}
func (h host) Apply(ctx context.Context, req api.Apply, emit func(api.Event)) (api.ApplyResult, error) {
	return h.apply(ctx, req, emit)
}

// controller is the other side of Serve.
type controller struct {
	*wire.Conn
	t     *testing.T
	ended chan error
}

func serve(t *testing.T, ctx context.Context, h Host) *controller {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	t.Cleanup(func() { inW.Close(); outR.Close() })
	c := &controller{t: t, ended: make(chan error, 1)}
	go func() {
		err := Serve(ctx, inR, outW, h)
		outW.Close()
		c.ended <- err
	}()
	out := bufio.NewReader(outR)
	preamble, err := out.ReadString('\n')
	if err != nil || preamble != api.Preamble {
		t.Fatalf("it begins with %q, error %v", preamble, err)
	}
	c.Conn = wire.NewConn(out, inW)
	return c
}

func (c *controller) send(id int64, method string, params string) {
	c.t.Helper()
	m := wire.Message{ID: id, Method: method}
	if params != "" {
		m.Params = json.RawMessage(params)
	}
	if err := c.Send(m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *controller) receive() wire.Message {
	c.t.Helper()
	m, err := c.Receive()
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func TestRefusedRequests(t *testing.T) {
	c := serve(t, t.Context(), host{
		state: func(context.Context) (api.State, error) { return api.State{}, errors.New("disk is full") },
	})
	for _, row := range []struct {
		name, method, params string
		code                 int
		message              string
	}{
		{"a method that is none", "host.fly", "", wire.CodeNoSuchMethod, "host.fly"},
		{"what the host cannot do", string(api.MethodState), "", wire.CodeFailed, "disk is full"},
		{"a plan that is none", string(api.MethodApply), `[]`, wire.CodeInvalidParams, "host.apply"},
		{"a plan with a field that this vsnode does not know", string(api.MethodApply), `{"colour": "red"}`, wire.CodeInvalidParams, "colour"},
		{"a panic", string(api.MethodApply), `{}`, wire.CodeInternal, "nil pointer"},
		{"no method", "", "", wire.CodeInvalidRequest, "not a request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c.t = t
			c.send(7, row.method, row.params)
			m := c.receive()
			if m.ID != 7 || m.Error == nil || m.Error.Code != row.code || !strings.Contains(m.Error.Message, row.message) {
				t.Errorf("%+v, error %v", m, m.Error)
			}
		})
	}
}

// waits blocks until its context ends, and then undoes something when the test lets it.
func waits(begun, undo chan struct{}) host {
	return host{apply: func(ctx context.Context, req api.Apply, emit func(api.Event)) (api.ApplyResult, error) {
		close(begun)
		<-ctx.Done()
		<-undo
		return api.ApplyResult{}, ctx.Err()
	}}
}

func TestEndOfInputIsWaitedFor(t *testing.T) {
	begun, undo := make(chan struct{}), make(chan struct{})
	c := serve(t, t.Context(), waits(begun, undo))
	c.send(1, string(api.MethodApply), "{}")
	<-begun
	c.Close()
	select {
	case err := <-c.ended:
		t.Fatalf("Serve returned before all was undone: %v", err)
	case undo <- struct{}{}:
	}
	if m := c.receive(); m.ID != 1 || m.Error == nil {
		t.Errorf("%+v", m)
	}
	if err := <-c.ended; err != nil {
		t.Errorf("the end of input: %v", err)
	}
}

func TestEndOfContextIsWaitedFor(t *testing.T) {
	begun, undo := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, ctx, waits(begun, undo))
	c.send(1, string(api.MethodApply), "{}")
	<-begun
	cancel()
	undo <- struct{}{}
	c.receive()
	if err := <-c.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestCancelEndsOneRequest(t *testing.T) {
	begun, undo := make(chan struct{}), make(chan struct{})
	h := waits(begun, undo)
	h.state = func(ctx context.Context) (api.State, error) { return api.State{}, ctx.Err() }
	c := serve(t, t.Context(), h)
	c.send(1, string(api.MethodApply), "{}")
	<-begun
	c.send(0, wire.MethodCancel, `{"id": 1}`)
	c.send(0, wire.MethodCancel, `{"id": 99}`) // a request that has ended
	undo <- struct{}{}
	if m := c.receive(); m.ID != 1 || m.Error == nil {
		t.Errorf("%+v", m)
	}
	c.send(1, string(api.MethodState), "") // its ID is free again
	if m := c.receive(); m.ID != 1 || m.Error != nil {
		t.Errorf("the next request: %+v", m)
	}
}

func TestIdsInUseAreRefused(t *testing.T) {
	begun, undo := make(chan struct{}), make(chan struct{})
	c := serve(t, t.Context(), waits(begun, undo))
	c.send(1, string(api.MethodApply), "{}")
	<-begun
	c.send(1, string(api.MethodCheck), "")
	if m := c.receive(); m.Error == nil || m.Error.Code != wire.CodeInvalidRequest {
		t.Errorf("%+v", m)
	}
	c.Close()
	undo <- struct{}{}
	c.receive()
	<-c.ended
}

func TestControllerThatDoesNotReadAnyMoreIsGone(t *testing.T) {
	begun, undo := make(chan struct{}), make(chan struct{})
	h := waits(begun, undo)
	h.state = func(context.Context) (api.State, error) { return api.State{}, nil }
	inR, inW := io.Pipe()
	defer inW.Close()
	outR, outW := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Serve(t.Context(), inR, outW, h) }()
	if _, err := bufio.NewReaderSize(outR, 16).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c := wire.NewConn(nil, inW)
	if err := c.Send(wire.Message{ID: 1, Method: string(api.MethodApply), Params: json.RawMessage("{}")}); err != nil {
		t.Fatal(err)
	}
	<-begun
	outR.Close()
	if err := c.Send(wire.Message{ID: 2, Method: string(api.MethodState)}); err != nil {
		t.Fatal(err)
	}
	undo <- struct{}{} // the apply was cancelled because an answer could not be written
	if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

// A vsfleet was stopped (Ctrl-Z), or the link swallows everything: running work goes
// on, and is undone when the session ends.
func TestControllerThatDoesNotReadHoldsUpNothing(t *testing.T) {
	inR, inW := io.Pipe()
	outR, outW, err := os.Pipe() // 64 KiB that nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	defer outW.Close()
	done, undone := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(t.Context(), inR, outW, host{apply: func(ctx context.Context, req api.Apply, emit func(api.Event)) (api.ApplyResult, error) {
			for range 5000 {
				emit(api.Event{Message: strings.Repeat("x", 100)})
			}
			close(done)
			<-ctx.Done()
			close(undone)
			return api.ApplyResult{}, nil
		}})
	}()
	c := wire.NewConn(strings.NewReader(""), inW)
	if err := c.Send(wire.Message{ID: 1, Method: string(api.MethodApply), Params: json.RawMessage(`{"run":"r"}`)}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain for the work to be done")
	}
	inW.Close()
	select {
	case <-undone:
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain for it to be undone")
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Serve does not return")
	}
}

// The input does not end, but the machine disappears without a word: sshd notices only
// after hours.
func TestASilentControllerIsGone(t *testing.T) {
	defer func(d time.Duration) { silence = d }(silence)
	silence = 200 * time.Millisecond
	begun, undo := make(chan struct{}), make(chan struct{})
	close(undo)
	c := serve(t, t.Context(), waits(begun, undo))
	c.send(1, string(api.MethodApply), `{"steps":[{"kind":"guest.start","name":"www"}]}`)
	<-begun
	for range 10 { // for twice as long
		c.send(0, api.NotifyAlive, "")
		select {
		case err := <-c.ended:
			t.Fatalf("ended while the controller was there: %v", err)
		case <-time.After(silence / 5):
		}
	}
	if m := c.receive(); m.ID != 1 {
		t.Errorf("%+v", m)
	}
	if err := <-c.ended; err == nil || !strings.Contains(err.Error(), "silent") {
		t.Errorf("ended by %v", err)
	}
}
