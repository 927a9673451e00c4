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
//
// started is to be called when the program has its streams; finish when it has
// ended: it waits for what the program wrote.
func (p *Program) relay() (started func(), finish func(context.Context), err error) {
	var theirs []*os.File
	var carried []*carrier
	var shown *os.File // what goes to the terminal
	started = func() {
		for _, f := range theirs {
			f.Close()
		}
		theirs = nil
	}
	finish = func(ctx context.Context) {
		for _, c := range carried {
			c.drain(ctx)
		}
	}
	// What nobody reads any more is an error of a write, and not our end.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	for i, stream := range []**os.File{&p.Stdin, &p.Stdout, &p.Stderr} {
		from := *stream
		var st unix.Stat_t
		terminal := term.IsTerminal(int(from.Fd()))
		if err := unix.Fstat(int(from.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK && !terminal {
			continue
		}
		if terminal && i == 2 && shown != nil {
			*stream = shown // one pipe for both keeps the order of lines
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			started()
			return nil, nil, err
		}
		if i == 0 {
			*stream, theirs = r, append(theirs, r)
			// In the background a read would stop this process: nothing is typed then.
			signal.Ignore(unix.SIGTTIN)
			go func() { // it ends with the process: a read cannot be taken back
				io.Copy(w, from)
				w.Close()
			}()
			continue
		}
		*stream, theirs = w, append(theirs, w)
		if terminal {
			shown = w
		}
		carried = append(carried, carry(r, from))
	}
	return started, finish, nil
}

// carrier copies what a program writes to whoever is to see it.
type carrier struct {
	from *os.File
	busy sync.Mutex    // held while something has been read that is not written yet
	over chan struct{} // closed at the end of from, or when nobody wants it
}

func carry(from, to *os.File) *carrier {
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
