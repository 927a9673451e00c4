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

func TestFramesGoThrough(t *testing.T) {
	var both bytes.Buffer
	s := NewStream(&both, &both)
	long := strings.Repeat("x", 3*maxSent+1)
	request := Message{ID: 1, Method: "guest.exec", Params: json.RawMessage(`{"guest":"www"}`)}
	if err := s.Send(request); err != nil {
		t.Fatal(err)
	}
	if n, err := io.WriteString(s.Writer(KindData), long); n != len(long) || err != nil {
		t.Fatal(n, err)
	}
	if _, err := io.WriteString(s.Writer(KindErrors), "no"); err != nil {
		t.Fatal(err)
	}
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	f, err := s.Receive()
	request.Version = "2.0"
	if diff := cmp.Diff(request, f.Message); f.Kind != KindMessage || err != nil || diff != "" {
		t.Errorf("kind %c, error %v%s", f.Kind, err, diff)
	}
	got := ""
	for range 4 {
		f, err := s.Receive()
		if err != nil || f.Kind != KindData {
			t.Fatalf("kind %c, error %v", f.Kind, err)
		}
		got += string(f.Bytes)
	}
	if got != long {
		t.Errorf("%d bytes of %d", len(got), len(long))
	}
	if f, err := s.Receive(); err != nil || f.Kind != KindErrors || string(f.Bytes) != "no" {
		t.Errorf("%+v, error %v", f, err)
	}
	if f, err := s.Receive(); err != nil || f.Kind != KindEnd {
		t.Errorf("%+v, error %v", f, err)
	}
	if _, err := s.Receive(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestFramesThatCannotBe(t *testing.T) {
	for _, row := range []struct {
		name string
		in   io.Reader
		want error
	}{
		{"a frame that is cut", strings.NewReader("d\x00\x00\x05abc"), io.ErrUnexpectedEOF},
		{"a header that is cut", strings.NewReader("d\x00"), io.ErrUnexpectedEOF},
		{"a message that is cut", strings.NewReader("m\x00\x00\x05{}"), io.ErrUnexpectedEOF},
		{"more data than one frame takes", strings.NewReader("d\x01\x00\x01"), nil},
		{"a message without end", io.MultiReader(strings.NewReader("m\xff\xff\xff"), endless{}), ErrMessageTooLong},
		{"what is no message", strings.NewReader("m\x00\x00\x02hi"), nil},
		{"another protocol", strings.NewReader("m\x00\x00\x11" + `{"jsonrpc":"1.0"}`), nil},
		{"an end with something in it", strings.NewReader("z\x00\x00\x01x"), nil},
		{"a kind that is none", strings.NewReader("?\x00\x00\x00"), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := NewStream(row.in, io.Discard).Receive()
			if err == nil || err == io.EOF || row.want != nil && !errors.Is(err, row.want) {
				t.Errorf("error %v", err)
			}
		})
	}
	if err := NewStream(nil, io.Discard).Send(Message{Params: json.RawMessage(`"` + strings.Repeat("x", MaxStreamMessage) + `"`)}); !errors.Is(err, ErrMessageTooLong) {
		t.Errorf("a message that is too long: %v", err)
	}
}

func FuzzReceiveFrame(f *testing.F) {
	f.Add([]byte("m\x00\x00\x20" + `{"jsonrpc":"2.0","id":1,"method":""}` + "d\x00\x00\x01x"))
	f.Add([]byte("d\x00\x00\x01xe\x00\x00\x01yz\x00\x00\x00"))
	f.Add([]byte("m\xff\xff\xff{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewStream(bytes.NewReader(b), io.Discard)
		for all := 0; ; {
			f, err := s.Receive()
			if err != nil {
				return
			}
			if all += len(f.Bytes) + frameHeader; all > len(b) || len(f.Bytes) > MaxData {
				t.Fatalf("%d bytes of a stream of %d", all, len(b))
			}
		}
	})
}
