package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vsfleet": main})
}

// TestCommandLine runs testdata/*.txtar: what to type, and what then is on
// standard output and standard error. None of it needs a host.
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("VSFLEET_LAB", filepath.Join(env.WorkDir, "no-lab"))
			env.Setenv("SSH_AUTH_SOCK", "")
			return os.MkdirAll(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// TestOverSSH runs testdata/ssh/*.txtar, with two hosts: PORT is that of the one,
// INNER of one that only the first can be asked for.
func TestOverSSH(t *testing.T) {
	outer, inner := sshtest.Start(t, sshtest.Options{}), sshtest.Start(t, sshtest.Options{})
	key, err := os.ReadFile(outer.Identity + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner.Dir, "authorized_keys"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/ssh",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("SSH_AUTH_SOCK", "")
			env.Setenv("PRINT", ssh.FingerprintSHA256(outer.HostKey.PublicKey()))
			for name, s := range map[string]*sshtest.Server{"PORT": outer, "INNER": inner} {
				env.Setenv(name, strconv.Itoa(s.Port))
			}
			env.Setenv("KEY", outer.Identity)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits STATUS COMMAND… runs a command that must end with that exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// The first one ends what runs, the second one cuts the connections: what is
// known by then is still said.
func TestTwoInterrupts(t *testing.T) {
	a := &app{}
	ctx, stop := a.interruptible()
	defer stop()
	for _, ended := range []context.Context{ctx, a.access.Abort} {
		if ended.Err() != nil {
			t.Fatal("it ended too early")
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("nothing ended")
		}
	}
	if !errors.Is(context.Cause(ctx), outcome.ErrInterrupted) {
		t.Error(context.Cause(ctx))
	}
}
