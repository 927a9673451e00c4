// Package wire carries messages between vsfleet and vsnode: JSON-RPC 2.0
// messages, one per line ([Conn]); or one request with bytes beside it, in
// frames ([Stream]). Package node/api defines what they mean; fleet/remote asks,
// node/serve answers.
//
// It is jrpc2's framing without its server and client: the server would link
// net/http (by expvar) into vsnode, and the client hands out notifications in
// any order. A line has a limit and costs memory as it arrives, so that a host
// which somebody else took over cannot make the controller allocate what a
// length in a header claims.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/creachadair/jrpc2/channel"
)

// MethodCancel is the notification that ends the context of a request.
const MethodCancel = "rpc.cancel"

// Cancel holds the parameters of MethodCancel.
type Cancel struct {
	ID int64 `json:"id"`
}

// MaxMessage is the longest message in bytes. The state of a host with 10,000
// guests takes 4 MiB.
const MaxMessage = 16 << 20

// Message is a request (ID and Method), a notification (Method alone) or a
// response (ID and one of Result and Error).
type Message struct {
	Version string          `json:"jsonrpc"`
	ID      int64           `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}

// Error describes why a request failed.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Codes of errors: JSON-RPC's own, and one for what a host could not do.
const (
	CodeInvalidRequest = -32600
	CodeNoSuchMethod   = -32601
	CodeInvalidParams  = -32602
	CodeInternal       = -32603 // a panic
	CodeFailed         = -32000
)

// ErrMessageTooLong is wrapped where a message exceeds MaxMessage, or
// MaxStreamMessage in a stream.
var ErrMessageTooLong = errors.New("message is too long")

// Conn carries messages both ways. Any number of goroutines may send; one may
// receive.
type Conn struct {
	ch   channel.Channel
	send sync.Mutex
}

// NewConn carries messages over a pair of streams. Close closes w.
func NewConn(r io.Reader, w io.WriteCloser) *Conn {
	return &Conn{ch: channel.Line(&bounded{r: r, left: MaxMessage}, w)}
}

// Send writes one message.
func (c *Conn) Send(m Message) error {
	m.Version = "2.0"
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	c.send.Lock()
	defer c.send.Unlock()
	return c.ch.Send(b)
}

// Receive reads the next message. It returns io.EOF at the end of the stream,
// and io.ErrUnexpectedEOF where that is within a message.
func (c *Conn) Receive() (Message, error) {
	b, err := c.ch.Recv()
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return Message{}, err
	}
	return parse(b)
}

// parse reads a message.
func parse(b []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(b, &m); err != nil {
		return Message{}, fmt.Errorf("read message: %w", err)
	}
	if m.Version != "2.0" {
		return Message{}, fmt.Errorf("read message: its jsonrpc is %q, want 2.0", m.Version)
	}
	return m, nil
}

// Close closes the writing side; the other side sees the end of its stream.
func (c *Conn) Close() error { return c.ch.Close() }

// bounded is a reader that fails when a line is longer than MaxMessage.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	for _, c := range p[:n] {
		if c == '\n' {
			b.left = MaxMessage
		} else if b.left--; b.left < 0 {
			return 0, ErrMessageTooLong
		}
	}
	return n, err
}
