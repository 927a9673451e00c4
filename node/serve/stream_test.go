package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// streamHost is a StreamHost with the functions that a test sets.
type streamHost struct {
	exec func(ctx context.Context, req api.Exec, in io.Reader, out, errs io.Writer, sizes <-chan api.Size) (api.Exit, error)
}

func (streamHost) ExportImage(_ context.Context, req api.ExportImage, out io.Writer) error {
	_, err := io.WriteString(out, req.ID)
	return err
}

func (streamHost) ImportImage(_ context.Context, req api.ImportImage, in io.Reader) error {
	b, err := io.ReadAll(in)
	if err == nil && string(b) != req.ID {
		err = errors.New("it is another")
	}
	return err
}

func (streamHost) MakeImage(context.Context, api.MakeImage, io.Reader, io.Writer) (api.StepResult, error) {
	return api.StepResult{}, nil
}

func (streamHost) Log(context.Context, api.Log, io.Writer, io.Writer) (api.Exit, error) {
	panic("as asked")
}

func (streamHost) Connect(_ context.Context, req api.Connect, in io.Reader, out io.Writer) error {
	_, err := io.Copy(out, in)
	return err
}

func (streamHost) PutFiles(context.Context, api.PutFiles, io.Reader) error { return nil }

func (streamHost) GetFiles(context.Context, api.GetFiles, io.Writer, io.Writer) error { return nil }

func (streamHost) SendGuest(context.Context, api.SendGuest, io.Reader, io.Writer, io.Writer) (api.SentGuest, error) {
	return api.SentGuest{}, nil
}

func (streamHost) ReceiveGuest(context.Context, api.ReceiveGuest, io.Reader) error { return nil }

func (h streamHost) Exec(ctx context.Context, req api.Exec, in io.Reader, out, errs io.Writer, sizes <-chan api.Size) (api.Exit, error) {
	return h.exec(ctx, req, in, out, errs, sizes)
}

// far is the controller's side of Stream.
type far struct {
	*wire.Stream
	t     *testing.T
	in    io.Closer
	ended chan error
}

func stream(t *testing.T, h StreamHost) *far {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	t.Cleanup(func() { inW.Close(); outR.Close() })
	c := &far{t: t, in: inW, ended: make(chan error, 1)}
	go func() {
		c.ended <- Stream(t.Context(), inR, outW, h)
		outW.Close()
	}()
	out := bufio.NewReader(outR)
	if preamble, err := out.ReadString('\n'); err != nil || preamble != api.Preamble {
		t.Fatalf("it begins with %q, error %v", preamble, err)
	}
	c.Stream = wire.NewStream(out, inW)
	return c
}

func (c *far) ask(method, params string) {
	c.t.Helper()
	if err := c.Send(wire.Message{ID: 1, Method: method, Params: json.RawMessage(params)}); err != nil {
		c.t.Fatal(err)
	}
}

// response reads to the end and returns the response.
func (c *far) response() (m wire.Message, data, errs string) {
	c.t.Helper()
	for {
		f, err := c.Receive()
		if err != nil {
			c.t.Fatal(err)
		}
		switch f.Kind {
		case wire.KindData:
			data += string(f.Bytes)
		case wire.KindErrors:
			errs += string(f.Bytes)
		default:
			return f.Message, data, errs
		}
	}
}

func TestStreams(t *testing.T) {
	for _, row := range []struct {
		name, method, params, in string
		data, result, failed     string
	}{
		{name: "what the host sends comes before the response", method: "image.export", params: `{"id":"a"}`, data: "a", result: "{}"},
		{name: "what the controller sends has an end", method: "image.import", params: `{"id":"a"}`, in: "a", result: "{}"},
		{name: "a connection goes both ways", method: "guest.connect", params: `{"guest":"www","to":"127.0.0.1:80"}`, in: "a", data: "a", result: "{}"},
		{name: "what fails is told", method: "image.import", params: `{"id":"a"}`, in: "b", failed: "it is another"},
		{name: "a panic is an error", method: "guest.log", params: "{}", failed: "panic"},
		{name: "a method that is none", method: "host.fly", params: "{}", failed: "host.fly"},
		{name: "a request that is none", method: "image.export", params: "[]", failed: "image.export"},
		{name: "a field that this vsnode does not know", method: "image.export", params: `{"colour":"red"}`, failed: "colour"},
		{name: "no method", params: "{}", failed: "not a request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := stream(t, streamHost{})
			c.ask(row.method, row.params)
			go func() { // blocks if the request is answered without reading it
				io.WriteString(c.Writer(wire.KindData), row.in)
				c.End()
			}()
			m, data, _ := c.response()
			if m.ID != 1 || data != row.data || row.failed == "" && (m.Error != nil || string(m.Result) != row.result) {
				t.Errorf("%+v, error %v, data %q", m, m.Error, data)
			}
			if row.failed != "" && (m.Error == nil || !strings.Contains(m.Error.Message, row.failed)) {
				t.Errorf("error %v", m.Error)
			}
			if err := <-c.ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAStreamEndsWithItsController(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(c *far)
		want error
	}{
		{"that cancels", func(c *far) {
			if err := c.Send(wire.Message{Method: wire.MethodCancel, Params: json.RawMessage(`{"id":1}`)}); err != nil {
				t.Error(err)
			}
		}, errCanceled},
		{"that is gone", func(c *far) { c.in.Close() }, io.ErrUnexpectedEOF},
	} {
		t.Run(row.name, func(t *testing.T) {
			input := make(chan error, 1)
			c := stream(t, streamHost{exec: func(ctx context.Context, _ api.Exec, in io.Reader, out, _ io.Writer, _ <-chan api.Size) (api.Exit, error) {
				io.WriteString(out, "begun")
				_, err := io.ReadAll(in)
				input <- err
				<-ctx.Done()
				return api.Exit{}, context.Cause(ctx)
			}})
			c.ask("guest.exec", "{}")
			if f, err := c.Receive(); err != nil || string(f.Bytes) != "begun" {
				t.Fatalf("%+v, error %v", f, err)
			}
			row.end(c)
			if err := <-input; !errors.Is(err, row.want) {
				t.Errorf("its input ends with %v", err)
			}
			if m, _, _ := c.response(); m.Error == nil || m.Error.Message != row.want.Error() {
				t.Errorf("%+v", m)
			}
		})
	}
}

func TestSizesOfTheWindow(t *testing.T) {
	seen := make(chan api.Size)
	c := stream(t, streamHost{exec: func(_ context.Context, _ api.Exec, in io.Reader, _, _ io.Writer, sizes <-chan api.Size) (api.Exit, error) {
		io.ReadAll(in) // all sizes have arrived by then
		seen <- <-sizes
		return api.Exit{Status: 3}, nil
	}})
	c.ask("guest.exec", "{}")
	for _, size := range []string{`{"rows":1,"columns":1}`, `{"rows":30,"columns":100}`} {
		if err := c.Send(wire.Message{Method: api.NotifySize, Params: json.RawMessage(size)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.End(); err != nil {
		t.Fatal(err)
	}
	if size := <-seen; size != (api.Size{Rows: 30, Columns: 100}) {
		t.Errorf("%+v", size)
	}
	if m, _, _ := c.response(); string(m.Result) != `{"status":3}` {
		t.Errorf("%+v", m)
	}
}

// FuzzStream checks that Stream returns, whatever a controller sends.
func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	s := wire.NewStream(nil, &b)
	s.Send(wire.Message{ID: 1, Method: "image.import", Params: json.RawMessage(`{"id":"a"}`)})
	io.WriteString(s.Writer(wire.KindData), "a")
	s.End()
	f.Add(b.Bytes())
	f.Add([]byte("d\x00\x00\x01x"))
	b.Reset()
	s.Send(wire.Message{ID: 1, Method: "guest.exec", Params: json.RawMessage(`{"guest":"www","argv":["AA=="]}`)})
	s.Send(wire.Message{Method: api.NotifySize, Params: json.RawMessage(`{"rows":1}`)})
	f.Add(b.Bytes())
	h := streamHost{exec: func(ctx context.Context, _ api.Exec, in io.Reader, out, _ io.Writer, _ <-chan api.Size) (api.Exit, error) {
		_, err := io.Copy(out, in)
		return api.Exit{}, err
	}}
	f.Fuzz(func(t *testing.T, b []byte) {
		Stream(t.Context(), bytes.NewReader(b), io.Discard, h)
	})
}
