package program

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script writes a program of the shell.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hosts.sh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	for _, row := range []struct{ name, text, want, err string }{
		{"prints", `echo "$1 $2"`, "--host web1\n", ""},
		{"reads the end of its input", "cat; echo end", "end\n", ""},
		{"fails with a message", "echo Traceback >&2; echo 'KeyError: web' >&2; exit 3", "", "it ended with exit status 3: KeyError: web"},
		{"fails silently", "exit 1", "", "it ended with exit status 1"},
		{"moves the cursor in its message", "printf '\\033[2J' >&2; exit 1", "", `it ended with exit status 1: \x1b[2J`},
		{"prints without end", "exec yes", "", "it printed more than 64 MiB"},
		{"is killed", "kill -9 $$", "", "it ended with signal: killed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := Runner(t.Context(), time.Minute)(script(t, row.text), "--host", "web1")
			if err == nil && row.err != "" || err != nil && err.Error() != row.err || string(got) != row.want {
				t.Errorf("%.100q, %v; want %q, %s", got, err, row.want, row.err)
			}
		})
	}
}

func TestAProgramThatHangsIsKilledWithItsChildren(t *testing.T) {
	dir := t.TempDir()
	path := script(t, "sleep 1000 & echo $! > "+dir+"/pid; wait")
	_, err := Runner(t.Context(), 300*time.Millisecond)(path, "--list")
	if err == nil || err.Error() != "it has not ended within 300ms" {
		t.Errorf("%v", err)
	}
	data, err := os.ReadFile(dir + "/pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		state, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if errors.Is(unix.Kill(pid, 0), unix.ESRCH) || err != nil || strings.Contains(string(state), ") Z") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func TestAProgramIsKilledWhenTheContextEnds(t *testing.T) {
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
	if _, err := Runner(ctx, time.Minute)(script(t, "exec sleep 1000"), "--list"); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

func TestWhatAProgramLeavesBehindDoesNotHoldItsAnswer(t *testing.T) {
	got, err := Runner(t.Context(), time.Minute)(script(t, "sleep 5 & echo '{}'"), "--list")
	if err != nil || string(got) != "{}\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAProgramWithoutItsInterpreter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.py")
	if err := os.WriteFile(path, []byte("#!/no/such/python\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Runner(t.Context(), time.Minute)(path, "--list")
	if err == nil || !strings.HasSuffix(err.Error(), path+": no such file or directory (or not its interpreter, which its first line names)") {
		t.Errorf("error %v", err)
	}
}
