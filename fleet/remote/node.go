package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vsfleet/vsfleet/fleet/push"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// undoGrace is how long a host may take to undo a cancelled request: to end a
// debootstrap, for example, and remove what it wrote.
const undoGrace = time.Minute

// closeGrace is how long vsnode may take to end when its input has ended.
const closeGrace = 10 * time.Second

// Node is a vsnode that serves on a host. Its methods may be called concurrently.
type Node struct {
	*Host
	*push.Vsnode

	wire  *wire.Conn
	ended chan struct{} // closed when no more answers will come; err is the reason
	err   error

	givenUp atomic.Bool // a request was given up without its answer

	mu      sync.Mutex
	last    int64
	answers map[int64]chan wire.Message
	applies map[string]apply // by Apply.Run
}

// apply is a plan under way, whose events are passed on.
type apply struct {
	steps int
	emit  func(api.Event)
}

// Serve starts vsnode on the host, and puts it there first if it is missing. ctx
// bounds the start.
func (h *Host) Serve(ctx context.Context) (*Node, error) {
	v, err := h.push.Start(ctx, h.conn, push.Serve)
	if err != nil {
		return nil, err
	}
	n := &Node{
		Host:    h,
		Vsnode:  v,
		wire:    wire.NewConn(v.Stdout, v.Session.Stdin),
		ended:   make(chan struct{}),
		answers: make(map[int64]chan wire.Message),
		applies: make(map[string]apply),
	}
	go func() {
		n.err = n.read()
		close(n.ended)
	}()
	go n.keepAlive()
	return n, nil
}

// keepAlive notifies the host at intervals that the controller is there: only so can
// the host distinguish a lost controller from an idle one.
func (n *Node) keepAlive() {
	tick := time.NewTicker(api.AliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.ended:
			return
		case <-tick.C:
			n.send(wire.Message{Method: api.NotifyAlive})
		}
	}
}

// State asks for all that a plan needs to know.
func (n *Node) State(ctx context.Context) (api.State, error) {
	return call(ctx, n, api.MethodState, api.None{})
}

// Check asks which abilities the host has.
func (n *Node) Check(ctx context.Context) (api.Check, error) {
	return call(ctx, n, api.MethodCheck, api.None{})
}

// Stat asks what the host and its guests use.
func (n *Node) Stat(ctx context.Context) (api.Stat, error) {
	return call(ctx, n, api.MethodStat, api.None{})
}

// Lease asks for the right to change the host, for as long as the session lasts.
func (n *Node) Lease(ctx context.Context, req api.Lease) (api.LeaseAnswer, error) {
	a, err := call(ctx, n, api.MethodLease, req)
	a.By.Owner, a.By.Reason = short(a.By.Owner), short(a.By.Reason)
	clean(a.Reverted)
	return a, err
}

// Locks asks who may change the host.
func (n *Node) Locks(ctx context.Context) (api.Locks, error) {
	a, err := call(ctx, n, api.MethodLocks, api.None{})
	cleanLocks(a.Lease, a.Lock)
	return a, err
}

// Lock keeps runs off the host.
func (n *Node) Lock(ctx context.Context, req api.Lock) error {
	_, err := call(ctx, n, api.MethodLock, req)
	return err
}

// Unlock ends whatever keeps runs off the host.
func (n *Node) Unlock(ctx context.Context, req api.Unlock) (api.Unlocked, error) {
	a, err := call(ctx, n, api.MethodUnlock, req)
	cleanLocks(a.Lease, a.Lock)
	return a, err
}

// cleanLocks shortens and cleans texts of a host.
func cleanLocks(lease *api.Holder, lock *api.HostLock) {
	if lease != nil {
		lease.Run, lease.Owner, lease.Reason = short(lease.Run), short(lease.Owner), short(lease.Reason)
	}
	if lock != nil {
		lock.Run, lock.Owner, lock.Reason = short(lock.Run), short(lock.Owner), short(lock.Reason)
	}
}

// Confirm confirms a run's steps; see [api.Guard].
func (n *Node) Confirm(ctx context.Context, req api.Confirm) (api.Confirmed, error) {
	a, err := call(ctx, n, api.MethodConfirm, req)
	clean(a.Reverted)
	return a, err
}

// clean shortens and cleans texts of a host.
func clean(back *api.Reverted) {
	if back != nil {
		back.Owner, back.Reason, back.Error = short(back.Owner), short(back.Reason), transport.Printable(back.Error)
	}
}

func short(text string) string {
	const longest = 128 // of a user and a machine
	return transport.Printable(text[:min(longest, len(text))])
}

// Release gives the lease back before the session ends.
func (n *Node) Release(ctx context.Context) error {
	_, err := call(ctx, n, api.MethodRelease, api.None{})
	return err
}

// Files asks which files of guests are not as they should be.
func (n *Node) Files(ctx context.Context, req api.FilesRequest) (api.FilesAnswer, error) {
	return call(ctx, n, api.MethodFiles, req)
}

// Stale asks what guests use that newer versions have replaced.
func (n *Node) Stale(ctx context.Context, req api.StaleRequest) (api.StaleAnswer, error) {
	return call(ctx, n, api.MethodStale, req)
}

// Usage asks what running guests use of their limits.
func (n *Node) Usage(ctx context.Context) (api.Usage, error) {
	return call(ctx, n, api.MethodUsage, api.None{})
}

// Generations asks what the host keeps of guests for a revert.
func (n *Node) Generations(ctx context.Context) (api.Generations, error) {
	return call(ctx, n, api.MethodGenerations, api.None{})
}

// Apply carries out a plan. Events are emitted one at a time, in the order in which
// the host sent them and before the result; a slow emit holds up the host. When ctx
// ends the host is notified, and has a minute to undo the steps under way and to
// report the result of each step.
func (n *Node) Apply(ctx context.Context, req api.Apply, emit func(api.Event)) (api.ApplyResult, error) {
	n.mu.Lock()
	if _, busy := n.applies[req.Run]; busy {
		n.mu.Unlock()
		return api.ApplyResult{}, fmt.Errorf("%s: run %q is under way already", n.conn.Name(), req.Run)
	}
	n.applies[req.Run] = apply{steps: len(req.Steps), emit: emit}
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.applies, req.Run)
		n.mu.Unlock()
	}()
	r, err := call(ctx, n, api.MethodApply, req)
	if err == nil && len(r.Results) != len(req.Steps) {
		// Callers look results up by the index of the step.
		return api.ApplyResult{}, fmt.Errorf("%s: %d results of %d steps", n.conn.Name(), len(r.Results), len(req.Steps))
	}
	return r, err
}

// Install puts vsnode where administrators of the host find it.
func (n *Node) Install(ctx context.Context) (api.Installed, error) {
	return call(ctx, n, api.MethodInstall, api.None{})
}

// RemoveImage removes an image that no guest uses.
func (n *Node) RemoveImage(ctx context.Context, req api.RemoveImage) (api.RemovedImage, error) {
	return call(ctx, n, api.MethodRemoveImage, req)
}

// Hashify has guests share files with others.
func (n *Node) Hashify(ctx context.Context, req api.Hashify) (api.Hashified, error) {
	return call(ctx, n, api.MethodHashify, req)
}

// Volumes asks for the volumes of the host.
func (n *Node) Volumes(ctx context.Context) (api.Volumes, error) {
	return call(ctx, n, api.MethodVolumes, api.None{})
}

// DeleteVolume deletes a volume that no guest has.
func (n *Node) DeleteVolume(ctx context.Context, req api.DeleteVolume) (api.Deleted, error) {
	return call(ctx, n, api.MethodDelVolume, req)
}

// CollectImages removes images that nothing uses.
func (n *Node) CollectImages(ctx context.Context, req api.Collect) (api.Collected, error) {
	return call(ctx, n, api.MethodCollect, req)
}

// Arrived returns what the host has of an image that did not come to its end.
func (n *Node) Arrived(ctx context.Context, req api.ExportImage) (api.Arrived, error) {
	return call(ctx, n, api.MethodArrived, req)
}

// CheckStore has the host read all that its images consist of.
func (n *Node) CheckStore(ctx context.Context) (api.StoreCheck, error) {
	return call(ctx, n, api.MethodCheckStore, api.None{})
}

// call sends a request and waits for its answer.
func call[R, A any](ctx context.Context, n *Node, method api.Method[R, A], req R) (none A, err error) {
	m, err := message(method, req)
	if err != nil {
		return none, err
	}
	if m, err = n.ask(ctx, m, m.Method == string(api.MethodApply)); err != nil {
		return none, err
	}
	return answer(ctx, n.Host, method, m)
}

// ask sends a request and returns the response. When ctx ends, the host is asked to
// cancel the request; if undo is set, ask still waits for the response.
func (n *Node) ask(ctx context.Context, m wire.Message, undo bool) (wire.Message, error) {
	answer := make(chan wire.Message, 1)
	n.mu.Lock()
	n.last++
	m.ID = n.last
	n.answers[m.ID] = answer
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.answers, m.ID)
		n.mu.Unlock()
	}()
	// A host that does not read blocks only the writer.
	go n.send(m)
	select {
	case m := <-answer:
		return m, nil
	case <-n.ended:
		return n.lastAnswer(answer)
	case <-ctx.Done():
	}
	cancel, err := json.Marshal(wire.Cancel{ID: m.ID})
	if err != nil {
		return wire.Message{}, err
	}
	go n.send(wire.Message{Method: wire.MethodCancel, Params: cancel})
	if !undo {
		n.givenUp.Store(true)
		return wire.Message{}, fmt.Errorf("%s: %w", n.conn.Name(), context.Cause(ctx))
	}
	select {
	case m := <-answer:
		return m, nil
	case <-n.ended:
		return n.lastAnswer(answer)
	case <-time.After(undoGrace):
		return wire.Message{}, fmt.Errorf("%s: %w, and it was not undone within %s", n.conn.Name(), context.Cause(ctx), undoGrace)
	}
}

// lastAnswer returns the response if it came just before the end.
func (n *Node) lastAnswer(answer chan wire.Message) (wire.Message, error) {
	select {
	case m := <-answer:
		return m, nil
	default:
		return wire.Message{}, n.err
	}
}

// send writes a message. If that fails the session has ended, or is closed here,
// which ends the wait for every answer.
func (n *Node) send(m wire.Message) {
	if err := n.wire.Send(m); err != nil {
		n.Session.Close()
	}
}

// read dispatches answers and events until the session ends, and returns the reason.
func (n *Node) read() error {
	for {
		m, err := n.wire.Receive()
		if err == nil && m.Method == api.NotifyEvent {
			err = n.event(m.Params)
		} else if err == nil {
			n.mu.Lock()
			answer := n.answers[m.ID]
			delete(n.answers, m.ID) // a second answer is dropped
			n.mu.Unlock()
			if answer != nil {
				answer <- m
			}
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			n.Session.Close()
			return fmt.Errorf("%s: vsnode: %w", n.conn.Name(), err)
		}
		return n.endError(n.Vsnode)
	}
}

// maxMessage is how many bytes of an event's message are kept.
const maxMessage = 4 << 10

// event passes an event to the Apply that it belongs to.
func (n *Node) event(params json.RawMessage) error {
	var e api.Event
	if err := json.Unmarshal(params, &e); err != nil {
		return fmt.Errorf("event: %w", err)
	}
	n.mu.Lock()
	a, ok := n.applies[e.Run]
	n.mu.Unlock()
	if !ok {
		return nil // of a run that was given up
	}
	if e.Step < 0 || e.Step >= a.steps {
		return fmt.Errorf("event of step %d, of %d", e.Step, a.steps)
	}
	if err := cleanEvent(&e); err != nil {
		return err
	}
	if a.emit != nil {
		a.emit(e)
	}
	return nil
}

// cleanEvent refuses an event that cannot be, and makes its message fit for a terminal.
func cleanEvent(e *api.Event) error {
	switch e.Kind {
	case api.Started, api.Progress, api.Warning:
	default:
		return fmt.Errorf("event of an unknown kind %q", e.Kind)
	}
	e.Message = transport.Printable(e.Message[:min(len(e.Message), maxMessage)])
	return nil
}

// Close ends vsnode on the host, which undoes what is under way; requests
// without an answer fail. The connection stays.
func (n *Node) Close() error {
	if n.givenUp.Load() {
		// Do not wait again for a vsnode that did not answer in time: on a stalled
		// link even closing its input blocks.
		go n.Session.Close()
		return nil
	}
	defer n.Session.Close()
	// vsnode ends with its input. If it has ended before, that is not an error.
	if err := n.wire.Close(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: end vsnode: %w", n.conn.Name(), err)
	}
	select {
	case <-n.ended:
		return nil
	case <-time.After(closeGrace):
		return fmt.Errorf("%s: vsnode did not end within %s", n.conn.Name(), closeGrace)
	}
}
