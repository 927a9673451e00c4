package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// Host carries out a controller's requests.
type Host interface {
	State(ctx context.Context) (api.State, error)
	Check(ctx context.Context) (api.Check, error)
	Stat(ctx context.Context) (api.Stat, error)
	Lease(ctx context.Context, req api.Lease) (api.LeaseAnswer, error)
	Release(ctx context.Context) error
	Confirm(ctx context.Context, req api.Confirm) (api.Confirmed, error)
	Locks(ctx context.Context) (api.Locks, error)
	Lock(ctx context.Context, req api.Lock) error
	Unlock(ctx context.Context, req api.Unlock) (api.Unlocked, error)
	// Heard is called when the controller is heard that has nothing to request.
	Heard()
	Install(ctx context.Context) (api.Installed, error)
	RemoveImage(ctx context.Context, req api.RemoveImage) (api.RemovedImage, error)
	CollectImages(ctx context.Context, req api.Collect) (api.Collected, error)
	Arrived(ctx context.Context, req api.ExportImage) (api.Arrived, error)
	CheckStore(ctx context.Context) (api.StoreCheck, error)
	Files(ctx context.Context, req api.FilesRequest) (api.FilesAnswer, error)
	Usage(ctx context.Context) (api.Usage, error)
	Stale(ctx context.Context, req api.StaleRequest) (api.StaleAnswer, error)
	Generations(ctx context.Context) (api.Generations, error)
	Hashify(ctx context.Context, req api.Hashify) (api.Hashified, error)
	Volumes(ctx context.Context) (api.Volumes, error)
	DeleteVolume(ctx context.Context, req api.DeleteVolume) (api.Deleted, error)
	// Apply takes the steps. It may emit from any goroutine until it returns.
	Apply(ctx context.Context, req api.Apply, emit func(api.Event)) (api.ApplyResult, error)
}

// Serve answers requests read from in, on out, until in or ctx ends. It returns when
// all running requests have finished or undone their work; the end of in is not an
// error. A controller that has stopped reading blocks nothing: it misses progress, and
// at the end whatever it did not read.
func Serve(ctx context.Context, in io.Reader, out io.Writer, h Host) error {
	defer catchSIGPIPE()()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if _, err := io.WriteString(out, api.Preamble); err != nil {
		return fmt.Errorf("greet the controller: %w", err)
	}
	s := &server{
		conn:     wire.NewConn(in, nopCloser{out}),
		stop:     cancel,
		requests: make(map[int64]context.CancelFunc),
		queue:    make(chan wire.Message, 256),
		gone:     make(chan struct{}),
	}
	s.methods, s.heard = methodsOf(h, s.emit), h.Heard
	s.giveUp = sync.OnceFunc(func() { close(s.gone) })
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.writeQueue()
	}()
	// We do not wait for the reader: if ctx ends first the reader is in a read that
	// nothing interrupts, and takes no new request.
	go func() { cancel(s.read(ctx)) }()
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	timer := time.AfterFunc(finalGrace, s.giveUp)
	defer timer.Stop()
	s.running.Wait()
	late := time.After(finalGrace)
	select {
	case s.queue <- wire.Message{}: // the last
		select {
		case <-written:
		case <-late:
		}
	case <-late:
	}
	if err := context.Cause(ctx); err != io.EOF {
		return err
	}
	return nil
}

// catchSIGPIPE keeps a controller that was killed from killing vsnode in the middle of
// an undo: a Go program dies of a write to a standard output that nobody reads
// (os/signal, "SIGPIPE"). If the signal is caught, the write fails with EPIPE. It is
// caught and not ignored because children inherit an ignored signal.
func catchSIGPIPE() (stop func()) {
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, unix.SIGPIPE)
	return func() { signal.Stop(pipe) }
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

type server struct {
	methods methods
	heard   func()
	conn    *wire.Conn
	stop    context.CancelCauseFunc
	running sync.WaitGroup

	queue  chan wire.Message // messages to write; an empty one is the last
	gone   chan struct{}     // closed when the controller is not expected to read any more
	giveUp func()            // closes gone

	stalled atomic.Bool // the controller does not read: progress is dropped

	mu       sync.Mutex
	closed   bool
	requests map[int64]context.CancelFunc
}

// silence is how long a controller may send nothing.
var silence = api.Silence

// finalGrace is how long the controller may take to read the rest once the session has
// ended.
const finalGrace = 2 * time.Second

// read accepts requests until the stream ends, and returns the reason.
func (s *server) read(ctx context.Context) error {
	silent := time.AfterFunc(silence, func() {
		s.stop(fmt.Errorf("the controller has been silent for %s", silence))
	})
	defer silent.Stop()
	for {
		m, err := s.conn.Receive()
		silent.Reset(silence)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return io.EOF // the controller was killed in the middle of a message
		} else if err != nil {
			return err
		}
		switch {
		case m.Method == api.NotifyAlive:
			s.heard()
		case m.Method == wire.MethodCancel:
			var c wire.Cancel
			if err := json.Unmarshal(m.Params, &c); err != nil {
				return fmt.Errorf("%s: %w", wire.MethodCancel, err)
			}
			s.mu.Lock()
			if cancel := s.requests[c.ID]; cancel != nil {
				cancel()
			}
			s.mu.Unlock()
		case m.ID == 0 || m.Method == "":
			s.write(s.methods.answer(ctx, m))
		default:
			s.start(ctx, m)
		}
	}
}

// start runs one request concurrently with others.
func (s *server) start(ctx context.Context, m wire.Message) {
	ctx, cancel := context.WithCancel(ctx)
	if !s.enter(m.ID, cancel) {
		cancel()
		s.write(respond(m.ID, nil, &wire.Error{Code: wire.CodeInvalidRequest, Message: "request is late, or its id is in use"}))
		return
	}
	go func() {
		defer s.running.Done()
		response := s.methods.answer(ctx, m)
		s.mu.Lock()
		delete(s.requests, m.ID)
		s.mu.Unlock()
		cancel()
		s.write(response)
	}()
}

// enter counts a request as running, unless Serve is about to return.
func (s *server) enter(id int64, cancel context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.requests[id] != nil {
		return false
	}
	s.requests[id] = cancel
	s.running.Add(1)
	return true
}

// emit queues an event. Progress is dropped while the controller does not read: the
// work must not wait for its spectators.
func (s *server) emit(e api.Event) {
	b, err := json.Marshal(e)
	if err != nil {
		return
	}
	m := wire.Message{Method: api.NotifyEvent, Params: b}
	if e.Kind == api.Warning {
		s.write(m)
		return
	}
	select {
	case s.queue <- m:
		s.stalled.Store(false)
		return
	default:
	}
	if s.stalled.Load() {
		return
	}
	select {
	case s.queue <- m:
	case <-s.gone:
	case <-time.After(time.Second):
		s.stalled.Store(true)
	}
}

// write queues an answer; while the queue is full it waits, as long as somebody may
// still read it.
func (s *server) write(m wire.Message) {
	select {
	case s.queue <- m:
		return
	default:
	}
	select {
	case s.queue <- m:
	case <-s.gone:
	}
}

// writeQueue sends queued messages to the controller. If that fails the controller is
// gone, and its requests are undone.
func (s *server) writeQueue() {
	for m := range s.queue {
		if m.ID == 0 && m.Method == "" && m.Error == nil {
			return
		}
		if err := s.conn.Send(m); err != nil {
			s.stop(fmt.Errorf("answer the controller: %w", err))
			s.giveUp()
			for m = range s.queue { // unblock writers that wait for room
				if m.ID == 0 && m.Method == "" && m.Error == nil {
					return
				}
			}
		}
	}
}
