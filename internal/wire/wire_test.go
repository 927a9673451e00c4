package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type closer struct{ io.Writer }

func (closer) Close() error { return nil }

func TestMessagesGoThrough(t *testing.T) {
	var stream bytes.Buffer
	c := NewConn(&stream, closer{&stream})
	sent := []Message{
		{ID: 1, Method: "host.state"},
		{Method: "event", Params: json.RawMessage(`{"message":"one\nline"}`)},
		{ID: 1, Result: json.RawMessage(`[]`)},
		{ID: 2, Error: &Error{Code: CodeFailed, Message: "disk is full"}},
	}
	for _, m := range sent {
		if err := c.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range sent {
		want.Version = "2.0"
		got, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := c.Receive(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		in   io.Reader
		want error
	}{
		{"a message that is cut", strings.NewReader(`{"jsonrpc":"2.0"`), io.ErrUnexpectedEOF},
		{"a line without end", endless{}, ErrMessageTooLong},
		{"what is no JSON", strings.NewReader("hello\n"), nil},
		{"another protocol", strings.NewReader(`{"jsonrpc":"1.0","id":1}` + "\n"), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := NewConn(row.in, closer{io.Discard}).Receive()
			if err == nil || row.want != nil && !errors.Is(err, row.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"host.state"}` + "\n"))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no"}}` + "\n"))
	f.Add([]byte("\n\n{}\n[]\nnull\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewConn(bytes.NewReader(b), closer{io.Discard})
		for {
			if _, err := c.Receive(); err != nil {
				return
			}
		}
	})
}
