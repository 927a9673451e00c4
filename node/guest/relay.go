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

// relay puts pipes in the place of sockets among a program's streams, which is
// what sshd gives vsnode. A socket belongs to the network namespace that it was
// made in, and takes descriptors: a program of a guest asked the host's network
// by ioctl on it, or could be handed more by whoever is at the other end. And in
// the place of a terminal, which is the administrator's: a program that holds it
// can type there.
type relay struct {
	theirs  []*os.File // the program's ends
	feed    *os.File   // our end of its input; kept, as one that is forgotten is closed
	carried []*carrier
}

// standard relays this process's streams, those that are no files or pipes.
func (r *relay) standard(p *Program) error {
	var shown *os.File // what goes to the terminal
	// What nobody reads any more is an error of a write, and not our end.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	for i, stream := range []**os.File{&p.Stdin, &p.Stdout, &p.Stderr} {
		from := *stream
		var st unix.Stat_t
		terminal := term.IsTerminal(int(from.Fd()))
		if err := unix.Fstat(int(from.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK && !terminal {
			continue
		}
		var err error
		switch {
		case i == 0:
			// In the background a read would stop this process: nothing is typed then.
			signal.Ignore(unix.SIGTTIN)
			var ours *os.File
			if *stream, ours, err = r.input(); err == nil {
				go func() { // it ends with the process: a read cannot be taken back
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

// streams relays all that somebody else gives.
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
		// Input that breaks off has no end: that would tell the program that it has
		// all. It is hung up instead.
		if _, err := io.Copy(ours, s.In); err == nil {
			ours.Close()
		}
	}()
	return nil
}

// input is a pipe that the program reads from.
func (r *relay) input() (theirs, ours *os.File, err error) {
	theirs, ours, err = os.Pipe()
	if err == nil {
		r.theirs, r.feed = append(r.theirs, theirs), ours
	}
	return theirs, ours, err
}

// output is a pipe by which the program writes to to.
func (r *relay) output(to io.Writer) (*os.File, error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.theirs = append(r.theirs, theirs)
	r.carried = append(r.carried, carry(ours, to))
	return theirs, nil
}

// started is to be called when the program has its streams.
func (r *relay) started() {
	for _, f := range r.theirs {
		f.Close()
	}
	r.theirs = nil
}

// finish is to be called when the program has ended: it waits for what the
// program wrote.
func (r *relay) finish(ctx context.Context) {
	for _, c := range r.carried {
		c.drain(ctx)
	}
	if r.feed != nil {
		r.feed.Close() // of a program that has ended
	}
}

// carrier copies what a program writes to whoever is to see it.
type carrier struct {
	from *os.File
	busy sync.Mutex    // held while something has been read that is not written yet
	over chan struct{} // closed at the end of from, or when nobody wants it
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
			n, err := from.Read(buf) // a terminal: EIO when the last holder of the other end is gone
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

// waits reports whether there is something to read, after at most ms milliseconds.
func (c *carrier) waits(ms int) (bool, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.from.Fd()), Events: unix.POLLIN}}, ms)
		if err != unix.EINTR {
			return n > 0, err
		}
	}
}

// drain waits until what the program wrote is written on. A process that the
// program left behind may hold its end for ever: when nothing has come for a
// moment, there is nothing to wait for.
func (c *carrier) drain(ctx context.Context) {
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		for {
			came, err := c.waits(20)
			if err != nil {
				return
			}
			c.busy.Lock() // until what was taken out is written
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
