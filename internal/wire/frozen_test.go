package wire

import (
	"bytes"
	"encoding/json"
	"testing"
)

// TestBytesOfMessages freezes what is on the wire: a vsnode of another version
// must at least be able to say so.
func TestBytesOfMessages(t *testing.T) {
	for _, row := range []struct {
		name string
		in   Message
		want string
	}{
		{"a request", Message{ID: 1, Method: "host.state", Params: json.RawMessage(`{"a":"<b>"}`)},
			`{"jsonrpc":"2.0","id":1,"method":"host.state","params":{"a":"\u003cb\u003e"}}` + "\n"},
		{"a request without parameters", Message{ID: 2, Method: "host.state"}, `{"jsonrpc":"2.0","id":2,"method":"host.state"}` + "\n"},
		{"a notification", Message{Method: MethodCancel, Params: json.RawMessage(`{"id":2}`)},
			`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":2}}` + "\n"},
		{"a result", Message{ID: 1, Result: json.RawMessage(`[1,2]`)}, `{"jsonrpc":"2.0","id":1,"result":[1,2]}` + "\n"},
		{"an error", Message{ID: 1, Error: &Error{Code: CodeFailed, Message: "disk is full"}},
			`{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"disk is full"}}` + "\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var sent bytes.Buffer
			if err := NewConn(&sent, closer{&sent}).Send(row.in); err != nil {
				t.Fatal(err)
			}
			if sent.String() != row.want {
				t.Errorf("%q, want %q", sent.String(), row.want)
			}
		})
	}
}

func TestBytesOfFrames(t *testing.T) {
	for _, row := range []struct {
		name string
		send func(s *Stream) error
		want string
	}{
		{"a message", func(s *Stream) error { return s.Send(Message{ID: 1, Method: "x"}) }, "m\x00\x00\x25" + `{"jsonrpc":"2.0","id":1,"method":"x"}`},
		{"data", func(s *Stream) error { _, err := s.Writer(KindData).Write(make([]byte, 300)); return err }, "d\x00\x01\x2c" + string(make([]byte, 300))},
		{"errors", func(s *Stream) error { _, err := s.Writer(KindErrors).Write([]byte("no")); return err }, "e\x00\x00\x02no"},
		{"an end", (*Stream).End, "z\x00\x00\x00"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var sent bytes.Buffer
			if err := row.send(NewStream(nil, &sent)); err != nil {
				t.Fatal(err)
			}
			if sent.String() != row.want {
				t.Errorf("%q, want %q", sent.String(), row.want)
			}
		})
	}
}
