package guest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Run runs a program in a running guest with this process's standard streams and
// returns its exit status. From a terminal, the program gets a terminal of its own, and
// input and output are copied between the two; if only some of the streams are a
// terminal, as in a pipeline, they are replaced by pipes (see Tty). A program of a guest
// never holds the administrator's terminal (CVE-2016-10124).
//
// When ctx ends or the other end of the streams is gone, the program is hung up and, if
// it does not exit, killed: no process of ours stays behind for it.
func (h *Host) Run(ctx context.Context, name string, p Program) (int, error) {
	in, out := term.IsTerminal(int(os.Stdin.Fd())), term.IsTerminal(int(os.Stdout.Fd()))
	if p.Tty == AlwaysTerminal || p.Tty == AutoTerminal && in && out {
		return h.runOnTerminal(ctx, name, p, in)
	}
	p.Stdin, p.Stdout, p.Stderr = os.Stdin, os.Stdout, os.Stderr
	var r relay
	if err := r.standard(&p); err != nil {
		return 0, err
	}
	return h.runPiped(ctx, name, p, &r)
}

// runOnTerminal is Run on a terminal of the guest's. Typed reports whether the input is a
// terminal as well.
func (h *Host) runOnTerminal(ctx context.Context, name string, p Program, typed bool) (int, error) {
	in := int(os.Stdin.Fd())
	size, err := windowSize(in)
	if err != nil {
		size = api.Size{Rows: 24, Columns: 80} // not a terminal, and one was asked for
	}
	t, err := h.startOnTerminal(ctx, name, p, Terminal{Type: os.Getenv("TERM"), Size: size})
	if err != nil {
		return 0, err
	}
	if typed {
		old, err := term.MakeRaw(in)
		if err != nil {
			t.close()
			return 0, errors.Join(err, t.run.Signal(unix.SIGHUP))
		}
		defer term.Restore(in, old)
	}
	winch := make(chan os.Signal, 1)
	signal.Notify(winch, unix.SIGWINCH)
	defer signal.Stop(winch)
	go func() {
		for range winch {
			size, err := windowSize(in)
			if err != nil || t.resize(size) != nil {
				return // the terminal is gone; the program will notice
			}
		}
	}()
	return t.carry(ctx, os.Stdin, os.Stdout, p.Signals, func() bool { return !typed && outputAbandoned() })
}

// NotRunStatus returns the exit status for a program that was not run, as shells do, or
// LSB's status if the guest does not exist.
func NotRunStatus(err error) int {
	var step *procctx.StepError
	switch {
	case errors.Is(err, ErrNoGuest):
		return 5 // program is not installed
	case !errors.As(err, &step) || !strings.HasPrefix(step.What, "run "):
		return 1
	case errors.Is(err, unix.ENOENT):
		return 127
	}
	return 126
}

// Streams are the streams of a remote user who runs a program.
type Streams struct {
	In        io.Reader
	Out, Errs io.Writer
	Terminal  *Terminal // the program gets a terminal of its own; nil: pipes
}

// Terminal describes the user's terminal, which the guest's is made to match.
type Terminal struct {
	Type  string // TERM
	Size  api.Size
	Sizes <-chan api.Size // later changes of size
}

// RunOver is Run with the given streams.
func (h *Host) RunOver(ctx context.Context, name string, p Program, s Streams) (int, error) {
	if s.Terminal == nil {
		var r relay
		if err := r.streams(&p, s); err != nil {
			return 0, err
		}
		return h.runPiped(ctx, name, p, &r)
	}
	t, err := h.startOnTerminal(ctx, name, p, *s.Terminal)
	if err != nil {
		return 0, err
	}
	go func() {
		for size := range s.Terminal.Sizes {
			if t.resize(size) != nil {
				return // as above
			}
		}
	}()
	return t.carry(ctx, s.In, s.Out, nil, outputAbandoned)
}

// runPiped runs a program whose streams are relayed.
func (h *Host) runPiped(ctx context.Context, name string, p Program, r *relay) (int, error) {
	run, err := h.Exec(ctx, name, p)
	r.started()
	if err != nil {
		return 0, err
	}
	code, err := waitOrHangUp(ctx, run, p.Signals, outputAbandoned)
	r.finish(ctx)
	return code, err
}

// onTerminal is a program that runs on a terminal of the guest's.
type onTerminal struct {
	run  *procctx.Running
	ours *os.File
}

func (h *Host) startOnTerminal(ctx context.Context, name string, p Program, like Terminal) (*onTerminal, error) {
	ours, theirs, err := h.Terminal(ctx, name)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	t := &onTerminal{ours: ours}
	p.Stdin, p.Stdout, p.Stderr, p.Terminal, p.Term = theirs, theirs, theirs, true, like.Type
	if err = t.resize(like.Size); err == nil {
		t.run, err = h.Exec(ctx, name, p)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *onTerminal) close() { t.ours.Close() }

func (t *onTerminal) resize(size api.Size) error {
	return unix.IoctlSetWinsize(int(t.ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
}

// carry copies input to the program and its output to out until the program ends.
func (t *onTerminal) carry(ctx context.Context, in io.Reader, out io.Writer, signals <-chan os.Signal, gone func() bool) (int, error) {
	defer t.close()
	go typeIn(t.ours, in) // ends with the process: a read from a terminal cannot be interrupted
	shown := carry(t.ours, out)
	code, err := waitOrHangUp(ctx, t.run, signals, gone)
	shown.drain(ctx)
	return code, err
}

// endOfFile is what a person types to end the input (Ctrl-D), at the start of a line.
const endOfFile = 4

// typeIn copies input to a terminal. A terminal has no end: when the input has ended, it
// types what ends it there, once more if the last line is not complete.
func typeIn(terminal io.Writer, in io.Reader) {
	last := lastByte{w: terminal, b: '\n'}
	if _, err := io.Copy(&last, in); err != nil {
		return // the program is hung up
	}
	end := []byte{endOfFile}
	if last.b != '\n' && last.b != '\r' {
		end = append(end, endOfFile)
	}
	_, _ = terminal.Write(end) // the program may be gone
}

// lastByte remembers the last byte that was written.
type lastByte struct {
	w io.Writer
	b byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.b = p[len(p)-1]
	}
	return l.w.Write(p)
}

func windowSize(fd int) (api.Size, error) {
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return api.Size{}, err
	}
	return api.Size{Rows: size.Row, Columns: size.Col}, nil
}

// waitOrHangUp returns the exit status of a program. It ends the program when ctx ends
// or gone reports that nobody waits for it any more. If signals is not nil it passes
// these on, and SIGHUP takes the place of ctx, which the same signals may have ended.
func waitOrHangUp(ctx context.Context, run *procctx.Running, signals <-chan os.Signal, gone func() bool) (int, error) {
	if run.Soon() {
		return run.Wait()
	}
	ended := make(chan struct{})
	if signals != nil {
		var hangUp context.CancelFunc
		ctx, hangUp = context.WithCancel(context.WithoutCancel(ctx))
		defer hangUp()
		go passOn(signals, run, hangUp, ended)
	}
	go hangUp(ctx, run, ended, gone)
	code, err := run.Wait()
	close(ended)
	return code, err
}

// passOn passes signals on to a program until it ends. Those that a terminal sends for a
// key reach the program's whole process group, as they would on the host.
func passOn(signals <-chan os.Signal, run *procctx.Running, hangUp func(), ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case s := <-signals:
			sig, _ := s.(unix.Signal)
			var err error
			switch sig {
			case unix.SIGHUP:
				hangUp()
			case unix.SIGINT, unix.SIGQUIT:
				err = run.SignalGroup(sig)
			default:
				err = run.Signal(sig)
			}
			if err != nil {
				return // it has ended
			}
		}
	}
}

// hangUp ends a program that nobody waits for any more.
func hangUp(ctx context.Context, run *procctx.Running, ended <-chan struct{}, gone func() bool) {
	wait := func(d time.Duration) (over bool) {
		select {
		case <-ended:
			return true
		case <-time.After(d):
			return false
		}
	}
	for ctx.Err() == nil && !gone() {
		if wait(200 * time.Millisecond) {
			return
		}
	}
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGTERM, unix.SIGKILL} {
		if err := run.Signal(sig); err != nil || wait(time.Second) {
			return
		}
	}
}

// outputAbandoned reports whether both standard output and standard error have lost
// their readers. That is the case when an sshd session was closed or its controller was
// killed. If only one has, a pipeline has read enough.
func outputAbandoned() bool {
	fds := []unix.PollFd{{Fd: 1}, {Fd: 2}}
	if _, err := unix.Poll(fds, 0); err != nil {
		return false
	}
	return fds[0].Revents&unix.POLLERR != 0 && fds[1].Revents&unix.POLLERR != 0
}
