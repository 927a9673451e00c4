package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/push"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// Streams are this side's ends of a program's input and output.
type Streams struct {
	In        io.Reader // nil: empty
	Out, Errs io.Writer // nil: discarded
}

// ExportImage writes an image of the host, or a part of one, to w.
func (h *Host) ExportImage(ctx context.Context, req api.ExportImage, w io.Writer) error {
	_, err := stream(ctx, h, api.MethodExportImage, req, Streams{Out: w})
	return err
}

// ImportImage has the host take an image from r.
func (h *Host) ImportImage(ctx context.Context, id string, r io.Reader) error {
	_, err := stream(ctx, h, api.MethodImportImage, api.ImportImage{ID: id}, Streams{In: r})
	return err
}

// MakeImage has the host build an image from an OCI layout, a tar archive that is read from
// r. Events are emitted one at a time.
func (h *Host) MakeImage(ctx context.Context, req api.MakeImage, r io.Reader, emit func(api.Event)) (api.StepResult, error) {
	return stream(ctx, h, api.MethodMakeImage, req, Streams{In: r, Errs: &eventWriter{emit: emit}})
}

// eventWriter emits the events that are written to it, one per line.
type eventWriter struct {
	emit func(api.Event)
	rest []byte // of a line
}

func (w *eventWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			break
		}
		var e api.Event
		err := json.Unmarshal(line, &e)
		if err == nil {
			err = cleanEvent(&e)
		}
		if err != nil {
			return 0, fmt.Errorf("event: %w", err)
		}
		w.emit(e)
		w.rest = rest
	}
	if len(w.rest) > maxText {
		return 0, fmt.Errorf("an event of more than %d KiB", maxText>>10)
	}
	return len(b), nil
}

// Log writes the end of a guest's log, and returns the exit status of that.
func (h *Host) Log(ctx context.Context, req api.Log, out, errs io.Writer) (exit int, err error) {
	e, err := stream(ctx, h, api.MethodLog, req, Streams{Out: out, Errs: errs})
	return e.Status, err
}

// Program is what to run inside a guest.
type Program struct {
	Argv    []string // empty: its shell, as a login
	As, Dir string   // the user, by name or ID, and the directory; empty: root, /
	Env     []string // NAME=VALUE
	Tty     Tty
}

// Tty is whether a program gets a terminal from Terminal.
type Tty int

// A program gets a terminal if standard input is one, or always, or never.
const (
	AutoTerminal Tty = iota
	AlwaysTerminal
	NoTerminal
)

// Exec runs a program inside a guest, without a terminal, to its end and returns its exit status,
// which is a shell's if the program could not be run. If ctx ends, or one of the
// streams of this side fails, the program is sent SIGHUP, SIGTERM and SIGKILL.
func (h *Host) Exec(ctx context.Context, guest string, p Program, s Streams) (exit int, err error) {
	req, err := execRequest(guest, p)
	if err != nil {
		return -1, err
	}
	e, err := stream(ctx, h, api.MethodExec, req, s)
	return exitStatus(e, s.Errs), err
}

// Connect connects to a service of a guest and copies bytes in both directions, until the
// service closes its side or ctx ends.
func (h *Host) Connect(ctx context.Context, req api.Connect, in io.Reader, out io.Writer) error {
	_, err := stream(ctx, h, api.MethodConnect, req, Streams{In: in, Out: out})
	return err
}

// PutFiles has the host put a tree of files, a tar stream, into a guest.
func (h *Host) PutFiles(ctx context.Context, req api.PutFiles, r io.Reader) error {
	_, err := stream(ctx, h, api.MethodPutFiles, req, Streams{In: r})
	return err
}

// GetFiles writes what is at a path of a guest to w, as a tar stream, and to errs what
// was left out.
func (h *Host) GetFiles(ctx context.Context, req api.GetFiles, w, errs io.Writer) error {
	_, err := stream(ctx, h, api.MethodGetFiles, req, Streams{Out: w, Errs: errs})
	return err
}

// SendGuest writes a guest's own files to s.Out; see [api.SendHow].
func (h *Host) SendGuest(ctx context.Context, req api.SendGuest, s Streams) (api.SentGuest, error) {
	return stream(ctx, h, api.MethodSendGuest, req, s)
}

// ReceiveGuest has the host make a guest of files that another one has sent.
func (h *Host) ReceiveGuest(ctx context.Context, req api.ReceiveGuest, r io.Reader) error {
	_, err := stream(ctx, h, api.MethodReceiveGuest, req, Streams{In: r})
	return err
}

func execRequest(guest string, p Program) (api.Exec, error) {
	req := api.Exec{Guest: guest, As: p.As, Dir: []byte(p.Dir)}
	size := 0
	for _, part := range []struct {
		words []string
		to    *[][]byte
	}{{p.Argv, &req.Argv}, {p.Env, &req.Env}} {
		for _, word := range part.words {
			if strings.ContainsRune(word, 0) {
				return req, fmt.Errorf("argument %q: there is a NUL in it, which no command can be given", word)
			}
			size += len(word) + 1
			*part.to = append(*part.to, []byte(word))
		}
	}
	if size > api.MaxArgv {
		return req, fmt.Errorf("the command and its arguments are %d KiB, and %d are possible: give it the rest on standard input", size>>10, api.MaxArgv>>10)
	}
	return req, nil
}

// exitStatus returns the exit status, and prints the reason if the program was not run.
func exitStatus(e api.Exit, errs io.Writer) int {
	if e.NotRun != "" && errs != nil {
		fmt.Fprintln(errs, transport.Printable(e.NotRun))
	}
	return e.Status
}

// stream sends a request to a vsnode in a session of its own, and copies the bytes
// that belong to it.
func stream[R, A any](ctx context.Context, h *Host, method api.Method[R, A], req R, s Streams) (none A, err error) {
	m, err := message(method, req)
	if err != nil {
		return none, err
	}
	v, err := h.push.Start(ctx, h.conn, push.Stream)
	if err != nil {
		return none, err
	}
	if m, err = h.exchange(ctx, v, m, s, nil); err != nil {
		return none, err
	}
	return answer(ctx, h, method, m)
}

// cancelGrace is how long to wait for the last output of a request that was given up.
const cancelGrace = time.Second

// exchange sends a request, copies bytes in both directions, and returns the response.
// If ctx ends, or a stream of this side fails, the request is cancelled and the session
// closed.
func (h *Host) exchange(ctx context.Context, v *push.Vsnode, m wire.Message, s Streams, sizes <-chan api.Size) (wire.Message, error) {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	conn := wire.NewStream(v.Stdout, v.Session.Stdin)
	m.ID = 1
	// The reader may outlast the request (a terminal), so nothing waits for it.
	go func() {
		if err := send(conn, m, s.In); err != nil {
			giveUp(err)
		}
	}()
	go sendSizes(ctx, conn, sizes)
	out := &outlet{out: s.Out, errs: s.Errs, failed: giveUp}
	type end struct {
		m   wire.Message
		err error
	}
	ended := make(chan end, 1)
	go func() {
		m, err := receive(conn, out)
		ended <- end{m, err}
	}()
	select {
	case e := <-ended:
		if ctx.Err() != nil {
			break
		}
		defer v.Session.Close()
		if e.err == io.EOF || errors.Is(e.err, io.ErrUnexpectedEOF) {
			e.err = h.endError(v)
		} else if e.err != nil {
			e.err = fmt.Errorf("%s: vsnode: %w", h.conn.Name(), e.err)
		}
		return e.m, e.err
	case <-ctx.Done():
	}
	go func() { // this blocks on a stalled link
		if params, err := json.Marshal(wire.Cancel{ID: m.ID}); err == nil {
			_ = conn.Send(wire.Message{Method: wire.MethodCancel, Params: params}) // or it has ended
		}
	}()
	select {
	case <-ended: // with the last of its output
	case <-time.After(cancelGrace):
	}
	out.close()
	go v.Session.Close()
	return wire.Message{}, fmt.Errorf("%s: %w", h.conn.Name(), context.Cause(ctx))
}

// send sends a request and the bytes that belong to it. It returns errors of this
// side only: that the host does not accept the bytes is not one.
func send(conn *wire.Stream, m wire.Message, in io.Reader) error {
	if err := conn.Send(m); errors.Is(err, wire.ErrMessageTooLong) {
		return err
	}
	if in == nil {
		_ = conn.End()
		return nil
	}
	data := conn.Writer(wire.KindData)
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if _, err := data.Write(buf[:n]); err != nil {
			return nil
		}
		switch {
		case err == io.EOF:
			_ = conn.End()
			return nil
		case err != nil:
			// The program would take an end of its input for the end of the data.
			return fmt.Errorf("read standard input: %w", err)
		}
	}
}

// sendSizes sends the host each new size of the window.
func sendSizes(ctx context.Context, conn *wire.Stream, sizes <-chan api.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case size := <-sizes:
			params, err := json.Marshal(size)
			if err != nil || conn.Send(wire.Message{Method: api.NotifySize, Params: params}) != nil {
				return // it has ended
			}
		}
	}
}

// receive writes the bytes that arrive before the response, and returns that.
func receive(conn *wire.Stream, out *outlet) (wire.Message, error) {
	for {
		f, err := conn.Receive()
		switch {
		case err != nil:
			return wire.Message{}, err
		case f.Kind == wire.KindData:
			err = out.write(out.out, f.Bytes)
		case f.Kind == wire.KindErrors:
			err = out.write(out.errs, f.Bytes)
		case f.Kind == wire.KindMessage && f.Message.ID == 1 && f.Message.Method == "":
			return f.Message, nil
		default:
			err = fmt.Errorf("a frame of kind %q that is no response", f.Kind)
		}
		if err != nil {
			return wire.Message{}, err
		}
	}
}

// outlet writes until it is closed: what a host sends after its request was given up
// is discarded.
type outlet struct {
	out, errs io.Writer // nil: discarded
	failed    func(error)

	mu     sync.Mutex
	closed bool
}

func (o *outlet) write(w io.Writer, b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w == nil || o.closed {
		return nil
	}
	_, err := w.Write(b)
	if err != nil {
		o.failed(err)
	}
	return err
}

func (o *outlet) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}
