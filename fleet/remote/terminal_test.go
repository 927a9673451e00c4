package remote

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/fleet/push/pushtest"
)

// screen is the other side of a terminal, at which a person sits.
type screen struct {
	t    *testing.T
	ptmx *os.File
	tty  *os.File
	was  unix.Termios

	mu   sync.Mutex
	text strings.Builder
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, ptmx: ptmx, tty: tty}
	t.Cleanup(func() { ptmx.Close(); tty.Close() })
	s.resize(24, 80)
	s.was = s.modes()
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := ptmx.Read(b)
			s.mu.Lock()
			s.text.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return // the test has ended
			}
		}
	}()
	return s
}

func (s *screen) resize(rows, columns uint16) {
	if err := pty.Setsize(s.ptmx, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) modes() unix.Termios {
	tio, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return *tio
}

func (s *screen) typed(keys string) {
	if _, err := io.WriteString(s.ptmx, keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) shows(text string) {
	s.t.Helper()
	pushtest.WaitFor(s.t, "the screen to show "+text, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.text.String(), text)
	})
}

func TestTerminal(t *testing.T) {
	h := newHost(t, "").connect()
	type end struct {
		exit int
		err  error
	}
	run := func(ctx context.Context, s *screen, command string) <-chan end {
		ended := make(chan end, 1)
		go func() {
			exit, err := h.terminal(ctx, "www", Program{Argv: []string{"bash", "-c", command}}, s.tty, s.tty, s.tty)
			ended <- end{exit, err}
		}()
		return ended
	}
	// The commands wait in sleep, not in bash's read: a signal that comes just before that
	// blocks has its trap run after the next line, and the alarm of read -t ends a trap.
	t.Run("keys, sizes and the exit status pass, and the terminal is put back", func(t *testing.T) {
		s := newScreen(t)
		ended := run(t.Context(), s, `test -t 0 && stty size; trap changed=1 WINCH; echo ready; read x; echo "got $x"; until [ $changed ]; do sleep 0.05; done; echo now $(stty size); read y; exit 5`)
		s.shows("24 80")
		s.shows("ready")
		s.typed("hello\r")
		s.shows("got hello")
		s.resize(30, 100)
		if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil { // the kernel's is for the foreground
			t.Fatal(err)
		}
		s.shows("now 30 100")
		s.typed("bye\r")
		if e := <-ended; e.exit != 5 || e.err != nil {
			t.Errorf("exit %d, error %v", e.exit, e.err)
		}
		if s.modes() != s.was {
			t.Error("the terminal is not as it was")
		}
		// The next reader gets the next key.
		s.typed("next\r")
		b := make([]byte, 16)
		if n, err := s.tty.Read(b); err != nil || string(b[:n]) != "next\n" {
			t.Errorf("the key after the end: %q, error %v", b[:n], err)
		}
	})
	t.Run("Ctrl-C is the command's", func(t *testing.T) {
		s := newScreen(t)
		ended := run(t.Context(), s, "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.05; done")
		s.shows("ready")
		s.typed("\x03")
		s.shows("interrupted")
		if e := <-ended; e.exit != 6 || e.err != nil {
			t.Errorf("exit %d, error %v", e.exit, e.err)
		}
	})
	t.Run("a cancelled command leaves the terminal as it was", func(t *testing.T) {
		s := newScreen(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := run(ctx, s, "echo ready; sleep 1000")
		s.shows("ready")
		cancel()
		select {
		case e := <-ended:
			if !errors.Is(e.err, context.Canceled) {
				t.Errorf("error %v", e.err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it goes on")
		}
		if s.modes() != s.was {
			t.Error("the terminal is not as it was")
		}
	})
	t.Run("standard input that is no terminal is a stream", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		out, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		go func() {
			_, _ = io.WriteString(w, "input")
			w.Close()
		}()
		exit, err := h.terminal(t.Context(), "www", Program{Argv: []string{"sh", "-c", "test -t 0 || cat"}}, r, out, out)
		b, _ := os.ReadFile(out.Name())
		if exit != 0 || err != nil || string(b) != "input" {
			t.Errorf("exit %d, error %v, output %q", exit, err, b)
		}
	})
}
