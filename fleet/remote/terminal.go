package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/fleet/push"
	"github.com/vsfleet/vsfleet/node/api"
)

// Terminal runs a program inside a guest, or its shell, on the controller's own
// terminal: every key and every change of the window size is passed on. The terminal is
// restored when Terminal returns. If standard input is not a terminal, the program gets
// none, as with ssh, unless its Tty asks for one. Otherwise it is as [Host.Exec].
func (h *Host) Terminal(ctx context.Context, guest string, p Program) (exit int, err error) {
	return h.terminal(ctx, guest, p, os.Stdin, os.Stdout, os.Stderr)
}

func (h *Host) terminal(ctx context.Context, guest string, p Program, in, out, errs *os.File) (exit int, err error) {
	typed := term.IsTerminal(int(in.Fd()))
	if p.Tty == NoTerminal || !typed && p.Tty == AutoTerminal {
		return h.Exec(ctx, guest, p, Streams{in, out, errs})
	}
	req, err := execRequest(guest, p)
	if err != nil {
		return -1, err
	}
	if !typed {
		req.Terminal = &api.Terminal{Type: cmp.Or(os.Getenv("TERM"), "dumb"), Size: api.Size{Rows: 24, Columns: 80}}
		e, err := stream(ctx, h, api.MethodExec, req, Streams{in, out, out})
		return exitStatus(e, errs), err
	}
	// The terminal is not raw yet, so that Ctrl-C can end a long start.
	v, err := h.push.Start(ctx, h.conn, push.Stream)
	if err != nil {
		return -1, err
	}
	e, err := h.onTerminal(ctx, v, req, in, out)
	if err != nil {
		v.Session.Close()
		return -1, err
	}
	return exitStatus(e, errs), nil
}

func (h *Host) onTerminal(ctx context.Context, v *push.Vsnode, req api.Exec, in, out *os.File) (e api.Exit, err error) {
	fd := int(in.Fd())
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	defer signal.Stop(changes)
	size, err := windowSize(fd)
	if err != nil {
		return e, err
	}
	req.Terminal = &api.Terminal{Type: cmp.Or(os.Getenv("TERM"), "xterm"), Size: size}
	m, err := message(api.MethodExec, req)
	if err != nil {
		return e, err
	}
	keys, err := readKeys(in)
	if err != nil {
		return e, err
	}
	defer keys.Close()
	state, err := term.MakeRaw(fd)
	if err != nil {
		return e, fmt.Errorf("make the terminal raw: %w", err)
	}
	defer func() {
		if e := term.Restore(fd, state); e != nil {
			err = errors.Join(err, fmt.Errorf("restore the terminal (type reset): %w", e))
		}
	}()
	ended := make(chan struct{})
	defer close(ended)
	// On a terminal, standard output and error are one stream.
	m, err = h.exchange(ctx, v, m, Streams{keys, out, out}, windowSizes(fd, changes, ended))
	if err != nil {
		return e, err
	}
	return answer(ctx, h, api.MethodExec, m)
}

func windowSize(fd int) (api.Size, error) {
	width, height, err := term.GetSize(fd)
	if err != nil {
		return api.Size{}, fmt.Errorf("size of the terminal: %w", err)
	}
	return api.Size{Rows: uint16(height), Columns: uint16(width)}, nil
}

// windowSizes returns a channel of the window's size after each change.
func windowSizes(fd int, changes <-chan os.Signal, ended <-chan struct{}) <-chan api.Size {
	sizes := make(chan api.Size)
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-changes:
			}
			size, err := windowSize(fd)
			if err != nil {
				continue
			}
			select {
			case <-ended:
				return
			case sizes <- size:
			}
		}
	}()
	return sizes
}

// keys reads a terminal until it is closed. A plain read cannot be interrupted, and
// would take the first key that is typed for the next program.
type keys struct {
	in                     *os.File
	wakeWriter, wakeReader *os.File
}

func readKeys(in *os.File) (*keys, error) {
	wakeReader, wakeWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &keys{in: in, wakeWriter: wakeWriter, wakeReader: wakeReader}, nil
}

func (k *keys) Read(p []byte) (int, error) {
	for {
		fds := []unix.PollFd{
			{Fd: int32(k.in.Fd()), Events: unix.POLLIN},
			{Fd: int32(k.wakeReader.Fd()), Events: unix.POLLIN},
		}
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case fds[1].Revents != 0:
			k.wakeReader.Close()
			return 0, io.EOF
		default:
			return k.in.Read(p)
		}
	}
}

// Close ends Read.
func (k *keys) Close() error { return k.wakeWriter.Close() }
