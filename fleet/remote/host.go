package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/push"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// Host is a host that is connected. Its methods may be called concurrently.
type Host struct {
	conn *transport.Conn
	push push.Options
}

// New returns the host at the other end of a connection, which the caller closes.
func New(conn *transport.Conn) *Host { return &Host{conn: conn} }

// RTT measures how long the host's sshd takes to answer.
func (h *Host) RTT(ctx context.Context) (time.Duration, error) { return h.conn.RTT(ctx) }

// Error is a host's error for a request that it could not carry out.
type Error struct {
	Host    string
	Message string
}

func (e *Error) Error() string { return e.Host + ": " + e.Message }

// ErrorKind is the [outcome.Kind] of the error.
func (e *Error) ErrorKind() string {
	return string(cmp.Or(outcome.KindOfText(e.Message), outcome.KindHost))
}

// message returns a request as a message.
func message[R, A any](method api.Method[R, A], req R) (m wire.Message, err error) {
	m.Method = string(method)
	if _, none := any(req).(api.None); !none {
		m.Params, err = json.Marshal(req)
	}
	return m, err
}

// answer decodes and validates the response to a request.
func answer[R, A any](ctx context.Context, h *Host, method api.Method[R, A], m wire.Message) (answer A, err error) {
	switch {
	case m.Error != nil && ctx.Err() != nil:
		return answer, fmt.Errorf("%s: %w", h.conn.Name(), context.Cause(ctx))
	case m.Error != nil:
		return answer, &Error{Host: h.conn.Name(), Message: transport.Printable(m.Error.Message)}
	}
	if answer, err = decode[A](m.Result); err != nil {
		return answer, fmt.Errorf("%s: its answer to %s cannot be: %w", h.conn.Name(), method, err)
	}
	return answer, nil
}

// endError returns why a session ended before it answered.
func (h *Host) endError(v *push.Vsnode) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace) //nolint:forbidigo // no caller's context: the session has ended
	defer cancel()
	exit, err := v.Session.Wait(ctx)
	if err == nil {
		err = fmt.Errorf("%s: vsnode ended with exit status %d", h.conn.Name(), exit)
	}
	if stderr := v.Stderr.String(); stderr != "" {
		err = fmt.Errorf("%w: %s", err, stderr)
	}
	return err
}
