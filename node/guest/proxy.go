package guest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/node/procctx"
)

// Run runs a program in a running guest with this process's standard streams
// and returns its exit status. From a terminal the program gets one of its own,
// and what is typed and shown is carried between the two; where only some of the
// streams are a terminal, as in a pipeline, pipes take its place. A program of a
// guest never holds the administrator's terminal (CVE-2016-10124).
//
// When ctx ends, or whoever had the streams is gone, the program is hung up and,
// if it does not take that for its end, killed: nothing of ours stays for it.
func (h *Host) Run(ctx context.Context, name string, p Program) (int, error) {
	if term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) {
		return h.runOnTerminal(ctx, name, p)
	}
	p.Stdin, p.Stdout, p.Stderr = os.Stdin, os.Stdout, os.Stderr
	started, finish, err := p.relay()
	if err != nil {
		return 0, err
	}
	run, err := h.Exec(ctx, name, p)
	started()
	if err != nil {
		return 0, err
	}
	code, err := waitOrHangUp(ctx, run, outputAbandoned)
	finish(ctx)
	return code, err
}

// runOnTerminal is Run from a terminal.
func (h *Host) runOnTerminal(ctx context.Context, name string, p Program) (int, error) {
	in := int(os.Stdin.Fd())
	ours, theirs, err := h.Terminal(ctx, name)
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	resize := func() error {
		size, err := unix.IoctlGetWinsize(in, unix.TIOCGWINSZ)
		if err != nil {
			return err
		}
		return unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, size)
	}
	if err := resize(); err != nil {
		theirs.Close()
		return 0, err
	}
	p.Stdin, p.Stdout, p.Stderr, p.Terminal = theirs, theirs, theirs, true
	p.Term = os.Getenv("TERM")
	run, err := h.Exec(ctx, name, p)
	theirs.Close()
	if err != nil {
		return 0, err
	}
	old, err := term.MakeRaw(in)
	if err != nil {
		return 0, errors.Join(err, run.Signal(unix.SIGHUP))
	}
	defer term.Restore(in, old)
	winch := make(chan os.Signal, 1)
	signal.Notify(winch, unix.SIGWINCH)
	defer signal.Stop(winch)
	go func() {
		for range winch {
			if resize() != nil {
				return // the terminal is gone, the program will notice
			}
		}
	}()
	go io.Copy(ours, os.Stdin) // ends with the process: a read from a terminal cannot be taken back
	shown := carry(ours, os.Stdout)
	code, err := waitOrHangUp(ctx, run, func() bool { return false })
	shown.drain(ctx)
	return code, err
}

// waitOrHangUp returns the exit status of a program. It ends the program when ctx
// ends or gone reports that nobody is there for it any more.
func waitOrHangUp(ctx context.Context, run *procctx.Running, gone func() bool) (int, error) {
	ended := make(chan struct{})
	go hangUp(ctx, run, ended, gone)
	code, err := run.Wait()
	close(ended)
	return code, err
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

// outputAbandoned reports whether nobody reads standard output and standard error any
// more: that is how a session of sshd looks that was closed, or whose controller
// was killed. One of them alone is a pipeline that has seen enough.
func outputAbandoned() bool {
	fds := []unix.PollFd{{Fd: 1}, {Fd: 2}}
	if _, err := unix.Poll(fds, 0); err != nil {
		return false
	}
	return fds[0].Revents&unix.POLLERR != 0 && fds[1].Revents&unix.POLLERR != 0
}
