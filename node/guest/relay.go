package guest

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// relay replaces sockets among a program's streams by pipes: sshd gives vsnode sockets.
// A socket belongs to the network namespace it was made in, and can receive
// descriptors: a program of a guest could query the host's network with an ioctl on it,
// or be handed more descriptors by the process at the other end. It also replaces a
// terminal, which is the administrator's: a program that holds it can type there.
type relay struct {
	theirs  []*os.File // the program's ends
	feed    *os.File   // our end of its input; kept, as the garbage collector closes an unreferenced file
	carried []*carrier
}

// standard relays this process's streams, except files and pipes.
func (r *relay) standard(p *Program) error {
	var shown *os.File // the output for the terminal
	for i, stream := range []**os.File{&p.Stdin, &p.Stdout, &p.Stderr} {
		from := *stream
		var st unix.Stat_t
		terminal := term.IsTerminal(int(from.Fd()))
		if err := unix.Fstat(int(from.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK && !terminal {
			continue
		}
		// A write to a stream without a reader must fail, not kill us.
		signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
		var err error
		switch {
		case i == 0:
			// In the background a read would stop this process, and nothing is typed.
			signal.Ignore(unix.SIGTTIN)
			var ours *os.File
			if *stream, ours, err = r.input(); err == nil {
				go func() { // it ends with the process: a read cannot be interrupted
					io.Copy(ours, from)
					ours.Close()
				}()
			}
		case terminal && i == 2 && shown != nil:
			*stream = shown // one pipe for both keeps the order of lines
		default:
			*stream, err = r.output(from)
			if terminal {
				shown = *stream
			}
		}
		if err != nil {
			r.started()
			return err
		}
	}
	return nil
}

// streams relays all the given streams.
func (r *relay) streams(p *Program, s Streams) (err error) {
	var ours *os.File
	if p.Stdin, ours, err = r.input(); err != nil {
		return err
	}
	if p.Stdout, err = r.output(s.Out); err == nil {
		p.Stderr, err = r.output(s.Errs)
	}
	if err != nil {
		r.started()
		return err
	}
	go func() {
		// Input that breaks off must not end in EOF, which would tell the program that
		// it is complete. The program is hung up instead.
		if _, err := io.Copy(ours, s.In); err == nil {
			ours.Close()
		}
	}()
	return nil
}

// input returns a pipe that the program reads from.
func (r *relay) input() (theirs, ours *os.File, err error) {
	theirs, ours, err = os.Pipe()
	if err == nil {
		r.theirs, r.feed = append(r.theirs, theirs), ours
	}
	return theirs, ours, err
}

// output returns a pipe whose content is copied to to.
func (r *relay) output(to io.Writer) (*os.File, error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.theirs = append(r.theirs, theirs)
	r.carried = append(r.carried, carry(ours, to))
	return theirs, nil
}

// started must be called when the program has its streams.
func (r *relay) started() {
	for _, f := range r.theirs {
		f.Close()
	}
	r.theirs = nil
}

// finish must be called when the program has ended: it waits until its output is
// written.
func (r *relay) finish(ctx context.Context) {
	for _, c := range r.carried {
		c.drain(ctx)
	}
	if r.feed != nil {
		r.feed.Close() // the program has ended
	}
}

// carrier copies a program's output to its reader.
type carrier struct {
	from *os.File
	busy sync.Mutex    // held while data has been read and not written yet
	over chan struct{} // closed at the end of from, or when the reader is gone
}

func carry(from *os.File, to io.Writer) *carrier {
	c := &carrier{from: from, over: make(chan struct{})}
	go func() {
		defer close(c.over)
		buf := make([]byte, 32<<10)
		for {
			if _, err := c.waits(-1); err != nil {
				return
			}
			c.busy.Lock()
			n, err := from.Read(buf) // a terminal gives EIO once the last holder of the other end is gone
			if n > 0 {
				_, err = to.Write(buf[:n])
			}
			c.busy.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

// waits reports whether there is something to read, waiting at most ms milliseconds.
func (c *carrier) waits(ms int) (bool, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.from.Fd()), Events: unix.POLLIN}}, ms)
		if err != unix.EINTR {
			return n > 0, err
		}
	}
}

// drain waits until the program's output has been written. A process the program left
// behind may hold its end for ever: once nothing has come for a moment, drain returns.
func (c *carrier) drain(ctx context.Context) {
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		for {
			came, err := c.waits(20)
			if err != nil {
				return
			}
			c.busy.Lock() // until what was read is written
			more, err := c.waits(0)
			c.busy.Unlock()
			if err != nil || !came && !more {
				return
			}
			select {
			case <-c.over: // what can be read is only the end of it
				return
			default:
			}
		}
	}()
	select {
	case <-c.over:
	case <-quiet:
	case <-ctx.Done():
	}
}
