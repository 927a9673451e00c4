package prompt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

func TestFile(t *testing.T) {
	for _, row := range []struct {
		name, text string
		mode       os.FileMode
		want, err  string
	}{
		{"one line", "secret\n", 0o600, "secret", ""},
		{"no end of line", " two words ", 0o400, " two words ", ""},
		{"of Windows", "secret\r\nmore\r\n", 0o600, "secret", ""},
		{"nothing", "\n", 0o600, "", "is empty"},
		{"another kind of file", strings.Repeat("x", 5000), 0o600, "", "no password in its first line"},
		{"others can read it", "secret\n", 0o644, "", "chmod 600"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "password")
			if err := os.WriteFile(path, []byte(row.text), row.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, row.mode); err != nil {
				t.Fatal(err)
			}
			got, err := File(path)
			if got != row.want || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if _, err := File("/no/such/file"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestAskOnATerminal(t *testing.T) {
	for _, echo := range []bool{false, true} {
		ours, theirs, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		defer theirs.Close()
		shown := make(chan string, 1)
		go func() {
			b := make([]byte, 100)
			n, _ := ours.Read(b) // nothing is an error below
			shown <- string(b[:n])
			for !echo && isEchoing(ours) {
				time.Sleep(time.Millisecond) // a terminal reports no change of its settings
			}
			_, _ = ours.WriteString("secret\n")
		}()
		got, err := onTerminal(t.Context(), theirs, "Password: ", echo)
		if question := <-shown; got != "secret" || err != nil || question != "Password: " {
			t.Errorf("echo %t: %q, %v, shown %q", echo, got, err, question)
		}
		if !isEchoing(ours) {
			t.Error("the terminal is left without echo")
		}
	}
	t.Run("interrupted", func(t *testing.T) {
		ours, theirs, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		defer theirs.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			for isEchoing(ours) {
				time.Sleep(time.Millisecond) // a terminal reports no change of its settings
			}
			cancel(errors.New("interrupted"))
		}()
		if _, err := onTerminal(ctx, theirs, "Password: ", false); err == nil || err.Error() != "interrupted" {
			t.Error(err)
		}
		if !isEchoing(ours) {
			t.Error("the terminal is left without echo")
		}
	})
}

func isEchoing(f *os.File) bool {
	attributes, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && attributes.Lflag&unix.ECHO != 0
}

func TestAskByAProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "askpass")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n[ \"$1\" = 'Password: ' ] && echo secret\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_ASKPASS", program)
	t.Setenv("SSH_ASKPASS_REQUIRE", "force")
	if got, err := Ask(t.Context(), "Password: ", false); got != "secret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Ask(t.Context(), "What? ", false); err == nil || !strings.Contains(err.Error(), "SSH_ASKPASS") {
		t.Error(err)
	}
}
