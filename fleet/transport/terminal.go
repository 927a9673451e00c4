package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Terminal runs a command with the controller's own terminal: every key goes
// there, every change of the window's size too, and the terminal is as it was
// when Terminal returns. Where standard input is no terminal the command gets
// none, as with ssh. exit is as of [Session.Wait].
func (c *Conn) Terminal(ctx context.Context, command string) (exit int, err error) {
	return c.terminal(ctx, command, os.Stdin, os.Stdout, os.Stderr)
}

func (c *Conn) terminal(ctx context.Context, command string, in, out, errs *os.File) (exit int, err error) {
	fd := int(in.Fd())
	if !term.IsTerminal(fd) {
		return c.Exec(ctx, command, in, out, errs)
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	defer signal.Stop(changes)
	width, height, err := term.GetSize(fd)
	if err != nil {
		return -1, fmt.Errorf("size of the terminal: %w", err)
	}
	raw, c, err := c.open(ctx)
	if err != nil {
		return -1, err
	}
	s := &Session{conn: c, ssh: raw, close: sync.OnceFunc(func() { raw.Close() })}
	defer s.Close()
	modes := ssh.TerminalModes{ssh.ECHO: 1}
	err = try(ctx, func() error {
		return raw.RequestPty(cmp.Or(os.Getenv("TERM"), "xterm"), height, width, modes)
	})
	if err != nil {
		return -1, c.explain(fmt.Errorf("ask for a terminal: %w", err))
	}
	stdin, err := raw.StdinPipe()
	if err != nil {
		return -1, c.explain(err)
	}
	shown := &gate{w: out} // a terminal has one output
	raw.Stdout, raw.Stderr = shown, shown

	was, err := term.MakeRaw(fd)
	if err != nil {
		return -1, fmt.Errorf("make the terminal raw: %w", err)
	}
	defer func() {
		if e := term.Restore(fd, was); e != nil {
			err = errors.Join(err, fmt.Errorf("restore the terminal (type reset): %w", e))
		}
	}()
	if err := try(ctx, func() error { return raw.Start(c.command(command)) }); err != nil {
		return -1, c.explain(err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go resize(raw, fd, changes, ended)
	keys, err := readKeys(in)
	if err != nil {
		return -1, err
	}
	defer keys.Close()
	go func() {
		_, _ = io.Copy(stdin, keys) // ends with the command or with keys
		stdin.Close()
		keys.woke.Close()
	}()
	return s.finish(ctx, raw.Wait, shown)
}

// resize tells the host of each change of the window's size.
func resize(s *ssh.Session, fd int, changes <-chan os.Signal, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-changes:
			if width, height, err := term.GetSize(fd); err == nil {
				_ = s.WindowChange(height, width) // of a session that ends: too late
			}
		}
	}
}

// keys reads a terminal until it is closed. A plain read could not be ended,
// and would take the first key that is meant for whoever comes next.
type keys struct {
	in         *os.File
	wake, woke *os.File
}

func readKeys(in *os.File) (*keys, error) {
	woke, wake, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &keys{in: in, wake: wake, woke: woke}, nil
}

func (k *keys) Read(p []byte) (int, error) {
	for {
		fds := []unix.PollFd{
			{Fd: int32(k.in.Fd()), Events: unix.POLLIN},
			{Fd: int32(k.woke.Fd()), Events: unix.POLLIN},
		}
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case fds[1].Revents != 0:
			return 0, io.EOF
		default:
			return k.in.Read(p)
		}
	}
}

// Close ends Read.
func (k *keys) Close() error { return k.wake.Close() }
