package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// StreamHost carries out requests that have bytes of their own beside them. in ends
// with the controller's input, or with an error if the controller is gone; a write to
// out or errs waits for the controller to read. sizes delivers changes of the
// controller's window size; of several at once, only the last.
type StreamHost interface {
	ExportImage(ctx context.Context, req api.ExportImage, out io.Writer) error
	ImportImage(ctx context.Context, req api.ImportImage, in io.Reader) error
	MakeImage(ctx context.Context, req api.MakeImage, in io.Reader, errs io.Writer) (api.StepResult, error)
	Log(ctx context.Context, req api.Log, out, errs io.Writer) (api.Exit, error)
	Exec(ctx context.Context, req api.Exec, in io.Reader, out, errs io.Writer, sizes <-chan api.Size) (api.Exit, error)
	Connect(ctx context.Context, req api.Connect, in io.Reader, out io.Writer) error
	PutFiles(ctx context.Context, req api.PutFiles, in io.Reader) error
	GetFiles(ctx context.Context, req api.GetFiles, out, errs io.Writer) error
	SendGuest(ctx context.Context, req api.SendGuest, in io.Reader, out, errs io.Writer) (api.SentGuest, error)
	ReceiveGuest(ctx context.Context, req api.ReceiveGuest, in io.Reader) error
}

func streamMethods(h StreamHost, in io.Reader, out, errs io.Writer, sizes <-chan api.Size) methods {
	m := methods{}
	with(m, api.MethodExportImage, func(ctx context.Context, req api.ExportImage) (api.None, error) {
		return api.None{}, h.ExportImage(ctx, req, out)
	})
	with(m, api.MethodImportImage, func(ctx context.Context, req api.ImportImage) (api.None, error) {
		return api.None{}, h.ImportImage(ctx, req, in)
	})
	with(m, api.MethodMakeImage, func(ctx context.Context, req api.MakeImage) (api.StepResult, error) {
		return h.MakeImage(ctx, req, in, errs)
	})
	with(m, api.MethodLog, func(ctx context.Context, req api.Log) (api.Exit, error) { return h.Log(ctx, req, out, errs) })
	with(m, api.MethodExec, func(ctx context.Context, req api.Exec) (api.Exit, error) {
		return h.Exec(ctx, req, in, out, errs, sizes)
	})
	with(m, api.MethodConnect, func(ctx context.Context, req api.Connect) (api.None, error) {
		return api.None{}, h.Connect(ctx, req, in, out)
	})
	with(m, api.MethodPutFiles, func(ctx context.Context, req api.PutFiles) (api.None, error) {
		return api.None{}, h.PutFiles(ctx, req, in)
	})
	with(m, api.MethodGetFiles, func(ctx context.Context, req api.GetFiles) (api.None, error) {
		return api.None{}, h.GetFiles(ctx, req, out, errs)
	})
	with(m, api.MethodSendGuest, func(ctx context.Context, req api.SendGuest) (api.SentGuest, error) {
		return h.SendGuest(ctx, req, in, out, errs)
	})
	with(m, api.MethodReceiveGuest, func(ctx context.Context, req api.ReceiveGuest) (api.None, error) {
		return api.None{}, h.ReceiveGuest(ctx, req, in)
	})
	return m
}

// Stream answers one request, read from in, on out, with a stream of bytes beside it.
// If in ends before the answer, or the controller cancels the request, the request's
// context ends; Stream returns once the work is undone or hung up.
func Stream(ctx context.Context, in io.Reader, out io.Writer, h StreamHost) error {
	defer catchSIGPIPE()()
	if _, err := io.WriteString(out, api.Preamble); err != nil {
		return fmt.Errorf("greet the controller: %w", err)
	}
	conn := wire.NewStream(in, out)
	f, err := conn.Receive()
	if err == io.EOF {
		return nil // the controller changed its mind
	}
	if err == nil && f.Kind != wire.KindMessage {
		err = fmt.Errorf("a stream begins with a request, not with a frame of kind %q", f.Kind)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	input, feed := io.Pipe()
	sizes := make(chan api.Size, 1)
	// We do not wait for the reader: it may be in a read that nothing interrupts.
	go func() {
		err := receive(conn, feed, sizes)
		feed.CloseWithError(err)
		cancel(err)
	}()
	methods := streamMethods(h, input, conn.Writer(wire.KindData), conn.Writer(wire.KindErrors), sizes)
	response := methods.answer(ctx, f.Message)
	input.Close() // nobody reads what still arrives
	if err := conn.Send(response); err != nil {
		return fmt.Errorf("answer the controller: %w", err)
	}
	return nil
}

// errCanceled is the cause of a context that the controller cancelled.
var errCanceled = errors.New("the controller has given it up")

// receive passes on what the controller sends until that ends, and returns the reason.
func receive(conn *wire.Stream, feed *io.PipeWriter, sizes chan api.Size) error {
	for {
		f, err := conn.Receive()
		switch {
		case err == io.EOF:
			return io.ErrUnexpectedEOF // the controller is gone
		case err != nil:
			return err
		case f.Kind == wire.KindEnd:
			feed.Close()
		case f.Kind == wire.KindData:
			_, _ = feed.Write(f.Bytes) // fails if the request has read enough
		case f.Kind != wire.KindMessage:
			return fmt.Errorf("a frame of kind %q", f.Kind)
		case f.Message.Method == wire.MethodCancel:
			return errCanceled
		case f.Message.Method == api.NotifySize:
			var size api.Size
			if err := json.Unmarshal(f.Message.Params, &size); err != nil {
				return fmt.Errorf("%s: %w", api.NotifySize, err)
			}
			select {
			case <-sizes: // drop the last one: it was not taken
			default:
			}
			sizes <- size
		}
	}
}
