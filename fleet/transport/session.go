package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

// Session is a command that runs on a host. Stdout and Stderr share one flow
// control window: whoever reads one of them must read the other.
type Session struct {
	Stdin  io.WriteCloser // Close is the end of the command's input
	Stdout io.Reader
	Stderr io.Reader

	conn  *Conn
	ssh   *ssh.Session
	close func()
}

// sessionError reports that sshd refused a session.
type sessionError struct{ reason string }

func (e *sessionError) Error() string {
	return fmt.Sprintf("sshd refuses a session: %s (MaxSessions bounds those of one connection)", e.reason)
}

// maxSessions is how many sessions a connection may have at once: fewer than the ten
// that sshd allows by default (MaxSessions). Further ones take another connection.
const maxSessions = 8

// sessionPause is how long sshd may still count a session that has just ended.
const sessionPause = 50 * time.Millisecond

// open opens a session on this connection or, if it has enough of them or sshd refuses
// more, on another one to the same host. The session belongs to the connection that is
// returned, whose leave is to be called at its end.
func (c *Conn) open(ctx context.Context) (*ssh.Session, *Conn, error) {
	s, err := c.enter(ctx)
	for try := 1; try <= 2 && isSessionError(err) && c.sessions.Load() < maxSessions; try++ {
		if err := sleep(ctx, sessionPause); err != nil {
			return nil, nil, c.explain(err)
		}
		s, err = c.enter(ctx)
	}
	if !isSessionError(err) {
		return s, c, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.extra {
		if s, err := other.enter(ctx); err == nil {
			return s, other, nil
		}
	}
	if c.closed {
		return nil, nil, err
	}
	other, dialing := c.dialer.Dial(ctx, c.settings)
	if dialing != nil {
		return nil, nil, fmt.Errorf("%w, and no other connection could be made: %w", err, dialing)
	}
	if s, err = other.enter(ctx); err != nil {
		other.close()
		return nil, nil, err
	}
	c.extra = append(c.extra, other)
	return s, other, nil
}

// enter opens a session of this connection, unless it has enough of them.
func (c *Conn) enter(ctx context.Context) (s *ssh.Session, err error) {
	if c.sessions.Add(1) <= maxSessions {
		s, err = c.session(ctx)
	} else {
		err = c.explain(&sessionError{fmt.Sprintf("%d are open", maxSessions)})
	}
	if err != nil {
		c.leave()
	}
	return s, err
}

// leave notes that a session has ended.
func (c *Conn) leave() { c.sessions.Add(-1) }

func isSessionError(err error) bool {
	var refused *sessionError
	return errors.As(err, &refused)
}

// sessionTimeout is how long sshd may take to open a session, and to start its
// command: it does both before the command does anything.
var sessionTimeout = 30 * time.Second

func withSessionTimeout(ctx context.Context, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, sessionTimeout, ofKind(kindTimeout, "%s: sshd has not answered within %s", what, sessionTimeout))
}

// session opens a session of this connection. sshd may not answer, and x/crypto
// takes no context.
func (c *Conn) session(ctx context.Context) (*ssh.Session, error) {
	ctx, cancel := withSessionTimeout(ctx, "open a session")
	defer cancel()
	type result struct {
		s   *ssh.Session
		err error
	}
	opened := make(chan result, 1)
	go func() {
		s, err := c.client.NewSession()
		opened <- result{s, err}
	}()
	select {
	case r := <-opened:
		var refused *ssh.OpenChannelError
		if errors.As(r.err, &refused) {
			return nil, c.explain(&sessionError{Printable(refused.Message)})
		}
		if r.err != nil {
			c.awaitLoss() // x/crypto says "unexpected packet: <nil>" of a connection that ended
		}
		return r.s, c.explain(r.err)
	case <-ctx.Done():
		go func() {
			if r := <-opened; r.err == nil {
				r.s.Close()
			}
		}()
		return nil, c.explain(context.Cause(ctx))
	}
}

// Pipe starts a command and returns its session, to read and write its streams. ctx bounds the
// start; the session lives until it ends or is closed.
func (c *Conn) Pipe(ctx context.Context, command string) (*Session, error) {
	if !c.settings.Become {
		return c.pipe(ctx, command, nil)
	}
	b := newBecoming(c.settings, c.dialer.BecomePassword, c.terminal.Load())
	s, err := c.pipe(ctx, b.command(command), &b)
	if refused := new(becomeError); errors.As(err, &refused) && refused.wantsTerminal() && !b.terminal {
		c.terminal.Store(true)
		b.terminal = true
		return c.pipe(ctx, b.command(command), &b)
	}
	return s, err
}

// Subsystem is Pipe for a subsystem of sshd, as the user that logs in.
func (c *Conn) Subsystem(ctx context.Context, name string) (*Session, error) {
	return c.begin(ctx, nil, func(s *ssh.Session) error { return s.RequestSubsystem(name) })
}

// pipe starts a command that is to become root, unless b is nil.
func (c *Conn) pipe(ctx context.Context, command string, b *becoming) (*Session, error) {
	return c.begin(ctx, b, func(s *ssh.Session) error { return s.Start(command) })
}

func (c *Conn) begin(ctx context.Context, b *becoming, start func(*ssh.Session) error) (*Session, error) {
	raw, c, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	s := &Session{conn: c, ssh: raw, close: sync.OnceFunc(func() {
		raw.Close()
		c.leave()
	})}
	if err := s.start(ctx, b, start); err != nil {
		go s.Close() // blocks on a stalled link
		return nil, c.explain(err)
	}
	return s, nil
}

func (s *Session) start(ctx context.Context, b *becoming, start func(*ssh.Session) error) (err error) {
	// The pipes of a session that has not started cannot fail.
	if s.Stdin, err = s.ssh.StdinPipe(); err != nil {
		return err
	}
	if s.Stdout, err = s.ssh.StdoutPipe(); err != nil {
		return err
	}
	if s.Stderr, err = s.ssh.StderrPipe(); err != nil {
		return err
	}
	ctx, cancel := withSessionTimeout(ctx, "start a command")
	defer cancel()
	err = runWithContext(ctx, func() error { return start(s.ssh) })
	if err != nil || b == nil {
		return err
	}
	if err = s.becomeRoot(ctx, *b); errors.As(err, new(*becomeError)) {
		s.conn.awaitLoss() // the session may have ended with the connection
	}
	return err
}

// runWithContext calls do, which takes no context, and waits until it returns or ctx
// ends.
func runWithContext(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close closes the session: the command sees the end of its input, and its output is
// no longer read. sshd does not end the command, and ends Stdout and Stderr only
// when the command has ended by itself.
func (s *Session) Close() { s.close() }

// Wait waits for the command to end; read Stdout and Stderr to their ends
// first. A status other than 0 is no error; a signal is a [SignalError] beside
// 128 and its number, as in a shell.
func (s *Session) Wait(ctx context.Context) (exit int, err error) {
	if err = runWithContext(ctx, s.ssh.Wait); err != nil && ctx.Err() != nil {
		return -1, s.conn.explain(err)
	}
	return s.conn.status(err)
}

// status returns the exit status of a session that ended with err.
func (c *Conn) status(err error) (exit int, _ error) {
	var status *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case errors.As(err, &status) && status.Signal() != "":
		signal := &SignalError{Signal: Printable(status.Signal())}
		return 128 + signal.number(), fmt.Errorf("%s: %w", c.settings, signal)
	case errors.As(err, &status):
		return status.ExitStatus(), nil
	case errors.As(err, &missing):
		c.awaitLoss()
		return -1, c.explain(errors.New("the session ended without saying how"))
	case err != nil:
		return -1, c.explain(err)
	}
	return 0, nil
}

// Exec runs a command to its end. A nil stdin is empty; output for a nil
// stdout or stderr is discarded. If ctx ends, or one of the streams of this side
// fails, the command is sent SIGTERM, which sshd passes on unless the user is root,
// and the session is closed: a command that neither reads nor writes goes on. exit
// is as in [Session.Wait].
func (c *Conn) Exec(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error) {
	s, err := c.Pipe(ctx, command)
	if err != nil {
		return -1, err
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	// The reader may outlast the command (a terminal), so nothing waits for it.
	go func() {
		in := &inputReader{r: stdin}
		if stdin != nil {
			_, _ = io.Copy(s.Stdin, in) // a command need not read all
		}
		if in.err != nil {
			// The command would take an end of its input for the end of the data.
			giveUp(fmt.Errorf("read standard input: %w", in.err))
			return
		}
		s.Stdin.Close()
	}()
	out, errs := &outlet{w: stdout}, &outlet{w: stderr}
	return s.finish(ctx, func() error {
		var copies errgroup.Group
		copies.Go(func() error { return out.copyFrom(s.Stdout, giveUp) })
		copies.Go(func() error { return errs.copyFrom(s.Stderr, giveUp) })
		_ = copies.Wait() // its error is the cause of ctx
		return s.ssh.Wait()
	}, out, errs)
}

// finish waits for the end of a session. When ctx ends it gives the session up and
// closes the outlets, so that what the host sends later is discarded.
func (s *Session) finish(ctx context.Context, wait func() error, outlets ...*outlet) (int, error) {
	var exit int
	var err error
	ended := make(chan struct{})
	go func() {
		exit, err = s.conn.status(wait())
		close(ended)
	}()
	select {
	case <-ended:
		s.Close()
		if ctx.Err() == nil {
			return exit, err
		}
	case <-ctx.Done():
		go func() { // these block on a stalled link
			_ = s.ssh.Signal(ssh.SIGTERM) // or not, and then the session ends without
			s.Close()
		}()
		select {
		case <-ended: // with the last of its output
		case <-time.After(endGrace):
		}
	}
	for _, o := range outlets {
		o.close()
	}
	return -1, s.conn.explain(context.Cause(ctx))
}

// outlet is a writer that discards everything once it is closed.
type outlet struct {
	mu     sync.Mutex
	w      io.Writer // nil: discarded
	closed bool
}

// copyFrom copies from r to the end. If that fails, the session is given up for that
// reason.
func (o *outlet) copyFrom(r io.Reader, giveUp context.CancelCauseFunc) error {
	_, err := io.Copy(o, r)
	if err != nil {
		giveUp(err)
	}
	return err
}

func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.w == nil || o.closed {
		return len(p), nil
	}
	return o.w.Write(p)
}

func (o *outlet) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

// inputReader keeps the error of a reader, to distinguish it from the writer's.
type inputReader struct {
	r   io.Reader
	err error
}

func (r *inputReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// tail keeps the last tailSize bytes that were written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[max(0, len(p)-tailSize):]...)
	t.b = t.b[max(0, len(t.b)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
