package transport

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

func TestRun(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{Login: `echo chatter; exec sh -c "$SSH_ORIGINAL_COMMAND"`})
	c := dial(t, settings(server))
	for _, row := range []struct {
		name string
		argv []string
		in   string
		exit int
		out  string
	}{
		{"a line for the shell", []string{"echo a b | tr a-z A-Z; exit 3"}, "", 3, "A B\n"},
		{"a program with arguments", []string{"printf", "%s|", "a  b", "$HOME"}, "", 0, "a  b|$HOME|"},
		{"a builtin", []string{"exit", "7"}, "", 7, ""},
		{"standard input", []string{"cat"}, "to and fro", 0, "to and fro"},
		{"what looks like the mark is output", []string{`printf "\000vsfleet-run-1 5\n"`}, "", 0, "\x00vsfleet-run-1 5\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out bytes.Buffer
			exit, err := c.Run(t.Context(), row.argv, strings.NewReader(row.in), &out, nil)
			if exit != row.exit || err != nil || out.String() != row.out {
				t.Errorf("exit %d, error %v, stdout %q", exit, err, &out)
			}
		})
	}
}

func TestALineAsRootIsForSh(t *testing.T) {
	bin := t.TempDir()
	write(t, filepath.Join(bin, "sudo"), "#!/bin/sh\nSHELL=/bin/false; export SHELL; shift 2; exec \"$@\"\n")
	if err := os.Chmod(filepath.Join(bin, "sudo"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := settings(sshtest.Start(t, sshtest.Options{Login: "PATH=" + bin + `:$PATH; exec sh -c "$SSH_ORIGINAL_COMMAND"`}))
	s.Become = true
	var out bytes.Buffer
	exit, err := dial(t, s).Run(t.Context(), []string{"echo hello; exit 3"}, nil, &out, nil)
	if exit != 3 || err != nil || out.String() != "hello\n" {
		t.Errorf("exit %d, error %v, stdout %q", exit, err, &out)
	}
}

// sshd passes no signal to a command of root's, so without Run's own it would go on.
func TestACommandEndsWithItsContext(t *testing.T) {
	sudo := t.TempDir()
	write(t, filepath.Join(sudo, "sudo"), "#!/bin/sh\nshift 2; exec \"$@\"\n")
	if err := os.Chmod(filepath.Join(sudo, "sudo"), 0o700); err != nil {
		t.Fatal(err)
	}
	server := sshtest.Start(t, sshtest.Options{Login: "PATH=" + sudo + `:$PATH; exec sh -c "$SSH_ORIGINAL_COMMAND"`})
	for _, row := range []struct {
		name    string
		become  bool
		command string
	}{
		{"one", false, "echo begun; exec sleep 600"},
		{"a pipeline", false, "echo begun; sleep 600 | sleep 600"},
		{"by sudo", true, "echo begun; sleep 600; true"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := settings(server)
			s.Become = row.become
			c := dial(t, s)
			ctx, cancel := context.WithCancel(t.Context())
			out := writerFunc(func(p []byte) (int, error) {
				cancel()
				return len(p), nil
			})
			_, err := c.Run(ctx, []string{row.command}, nil, out, nil)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			waitFor(t, "the command to end", func() bool {
				var left bytes.Buffer
				if _, err := c.Exec(t.Context(), "cat /proc/[0-9]*/cmdline | tr '\\0' ' '", nil, &left, nil); err != nil {
					t.Fatal(err)
				}
				return !strings.Contains(left.String(), "sleep 600")
			})
		})
	}
}

func TestACommandThatDoesNotBeginIsAnError(t *testing.T) {
	c := dial(t, settings(sshtest.Start(t, sshtest.Options{Login: "echo this account is restricted; exit 0"})))
	exit, err := c.Run(t.Context(), []string{"true"}, nil, nil, nil)
	if err == nil || !strings.Contains(err.Error(), `the command did not begin (exit status 0), the host said: "this account is restricted"`) {
		t.Errorf("exit %d, error %v", exit, err)
	}
}

func FuzzMarked(f *testing.F) {
	f.Add([]byte("motd\x00vsfleet-run-1 12\nout"), 3)
	f.Add([]byte("\x00vsfleet-run-\x00vsfleet-run-1 1\n"), 1)
	f.Add([]byte("\x00vsfleet-run-1 x\n\x00vsfleet-run-1 12\nout\x00vsfleet-run-1 13\n"), 5)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		var whole, pieces bytes.Buffer
		if _, err := (&markFilter{w: &whole}).Write(b); err != nil {
			return
		}
		m := &markFilter{w: &pieces}
		for rest := b; len(rest) > 0; {
			n := min(len(rest), max(piece, 1))
			if _, err := m.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		if !bytes.Equal(whole.Bytes(), pieces.Bytes()) || !bytes.HasSuffix(b, whole.Bytes()) {
			t.Fatalf("%q at once, %q in pieces", &whole, &pieces)
		}
	})
}

func TestAProgramThatIsNotThere(t *testing.T) {
	var stderr bytes.Buffer
	exit, err := dial(t, settings(sshtest.Start(t, sshtest.Options{}))).Run(t.Context(), []string{"no such program", "it's"}, nil, nil, &stderr)
	if exit != 127 || err != nil || !strings.HasPrefix(stderr.String(), "sh: ") || !strings.HasSuffix(stderr.String(), ": no such program: not found\n") {
		t.Errorf("exit %d, error %v, stderr %q", exit, err, &stderr)
	}
}
