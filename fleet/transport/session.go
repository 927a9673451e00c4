package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

// Session is a command that runs on a host. Stdout and Stderr share one
// window: who reads the one must read the other.
type Session struct {
	Stdin  io.WriteCloser // Close is the end of the command's input
	Stdout io.Reader
	Stderr io.Reader

	conn  *Conn
	ssh   *ssh.Session
	said  *tail // of Stderr, where sudo may complain; nil without Become
	close func()
}

// Quote makes one word for a shell of any kind out of s.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// command as the user's login shell is given it.
func (c *Conn) command(command string) string {
	if !c.settings.Become {
		return command
	}
	return "exec sudo -n -- sh -c " + Quote(command)
}

// open a session. sshd may not answer; x/crypto knows no context.
func (c *Conn) open(ctx context.Context) (*ssh.Session, error) {
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
			return nil, c.explain(fmt.Errorf("sshd refuses a session: %s (MaxSessions bounds those of one connection)", Printable(refused.Message)))
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

// Pipe starts a command and gives the ends of its streams. ctx bounds the
// start; the session lives until it ends or is closed.
func (c *Conn) Pipe(ctx context.Context, command string) (*Session, error) {
	raw, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	s := &Session{conn: c, ssh: raw, close: sync.OnceFunc(func() { raw.Close() })}
	if err := s.start(ctx, command); err != nil {
		s.Close()
		return nil, c.explain(err)
	}
	return s, nil
}

func (s *Session) start(ctx context.Context, command string) (err error) {
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
	if s.conn.settings.Become {
		s.said = new(tail)
		s.Stderr = io.TeeReader(s.Stderr, s.said)
	}
	stop := s.endWith(ctx)
	err = s.ssh.Start(s.conn.command(command))
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}

// Close ends the session. The command sees its input end and its output
// closed; sshd sends it no signal.
func (s *Session) Close() { s.close() }

// Wait waits for the command to end, after Stdout and Stderr have. A status
// other than 0 is no error; a signal is a [SignalError] beside 128 and its
// number, as in a shell.
func (s *Session) Wait() (exit int, err error) {
	return s.conn.status(s.ssh.Wait(), s.said)
}

// status of a session that ended with err.
func (c *Conn) status(err error, said *tail) (exit int, _ error) {
	var status *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case errors.As(err, &status) && status.Signal() != "":
		signal := &SignalError{Signal: Printable(status.Signal())}
		return 128 + signal.number(), fmt.Errorf("%s: %w", c.settings, signal)
	case errors.As(err, &status):
		exit = status.ExitStatus()
		if said != nil {
			err = becomeError(exit, said.String())
		} else {
			err = nil
		}
		if err != nil {
			return exit, fmt.Errorf("%s: %w", c.settings, err)
		}
		return exit, nil
	case errors.As(err, &missing):
		// The connection may be ending: its reason is the better one.
		select {
		case <-c.done:
		case <-time.After(100 * time.Millisecond):
		}
		return -1, c.explain(errors.New("the session ended without saying how"))
	case err != nil:
		return -1, c.explain(err)
	}
	return 0, nil
}

// Exec runs a command to its end. A nil stdin is empty, a nil stdout or stderr
// thrown away. When ctx ends, or one of the streams of this side fails, the
// command is sent SIGTERM and given up; with sudo the signal does not arrive,
// and the command sees its streams closed. exit is as of [Session.Wait].
func (c *Conn) Exec(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error) {
	s, err := c.Pipe(ctx, command)
	if err != nil {
		return -1, err
	}
	defer s.Close()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	stop := s.endWith(ctx)
	defer stop()

	// The reader may outlast the command (a terminal): it is not waited for.
	go func() {
		in := &failing{r: stdin}
		if stdin != nil {
			_, _ = io.Copy(s.Stdin, in) // a command need not read all
		}
		if in.err != nil {
			// The end of its input would tell the command that it has all.
			giveUp(fmt.Errorf("read standard input: %w", in.err))
			return
		}
		s.Stdin.Close()
	}()
	var out errgroup.Group
	take := func(w io.Writer, r io.Reader) {
		out.Go(func() error {
			if w == nil {
				w = io.Discard
			}
			_, err := io.Copy(w, r)
			if err != nil {
				giveUp(err)
			}
			return err
		})
	}
	take(stdout, s.Stdout)
	take(stderr, s.Stderr)
	_ = out.Wait() // its error is the cause of ctx
	exit, err = s.Wait()
	if ctx.Err() != nil {
		return exit, c.explain(context.Cause(ctx))
	}
	return exit, err
}

// endWith gives the session up when ctx ends. What it returns takes that back,
// and says whether it was in time.
func (s *Session) endWith(ctx context.Context) (stop func() bool) {
	ended := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		go func() {
			// Whether or not sshd passes it on, the session is closed next.
			_ = s.ssh.Signal(ssh.SIGTERM)
			s.Close()
		}()
		select {
		case <-ended:
		case <-time.After(endGrace):
			s.conn.lose(fmt.Errorf("connection lost: a session was not ended within %s", endGrace))
			s.conn.client.Close()
		}
	})
	return func() bool {
		inTime := undo()
		close(ended)
		return inTime
	}
}

// failing remembers the error of a reader, to tell it from the writer's.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// tail keeps the last of what was written to it.
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
