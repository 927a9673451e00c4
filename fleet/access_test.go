package fleet

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
	"github.com/vsfleet/vsfleet/inventory"
)

func TestWhatTheOperatorSaysWinsOverTheInventory(t *testing.T) {
	host := &inventory.Host{
		Name: "web01", Address: "203.0.113.11", Port: 2222,
		SSH: inventory.SSH{Port: 2222, User: "admin", Identity: "~/.ssh/web", KnownHosts: "known", HostKeyAlias: "web"},
	}
	tests := []struct {
		name   string
		access *Access
		want   transport.Settings
	}{
		{
			"the inventory alone", &Access{Config: "none"},
			transport.Settings{Name: "web01", Address: "203.0.113.11", Port: 2222, User: "admin", Identity: "~/.ssh/web", KnownHosts: "known", HostKeyAlias: "web"},
		},
		{
			"every flag", &Access{Config: "none", User: "root", Identity: "key", KnownHosts: "mine", Jump: "none", Become: true, ConnectTimeout: time.Second},
			transport.Settings{Name: "web01", Address: "203.0.113.11", Port: 2222, User: "root", Identity: "key", KnownHosts: "mine", HostKeyAlias: "web", Become: true, ConnectTimeout: time.Second},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.access.settings(t.Context(), host)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// served is a host that a real sshd on this machine stands for.
func served(t *testing.T, name string) *inventory.Host {
	s := sshtest.Start(t, sshtest.Options{})
	return &inventory.Host{Name: name, Address: "127.0.0.1", Port: s.Port, SSH: inventory.SSH{Identity: s.Identity, KnownHosts: s.KnownHosts}}
}

func TestRunOnAHost(t *testing.T) {
	host := served(t, "web01")
	tests := []struct {
		name  string
		argv  []string
		stdin string
		want  string
		exit  int
	}{
		{"one word is a line for the shell", []string{"echo a b | tr a-z A-Z"}, "", "A B\n", 0},
		{"several words are one program with its arguments", []string{"printf", "%s|", "a  b", "$HOME", "it's"}, "", "a  b|$HOME|it's|", 0},
		{"standard input is passed on", []string{"cat"}, "what was typed", "what was typed", 0},
		{"its exit status is ours to tell", []string{"exit 7"}, "", "", 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			exit, err := new(Access).Run(t.Context(), Command{Host: host, Argv: tt.argv}, strings.NewReader(tt.stdin), &stdout, &stderr)
			if err != nil || exit != tt.exit || stdout.String() != tt.want {
				t.Errorf("exit %d, %q, %q, %v; want exit %d, %q", exit, stdout.String(), stderr.String(), err, tt.exit, tt.want)
			}
		})
	}
}

func TestWordsThroughLoginShells(t *testing.T) {
	for _, sh := range []string{"dash", "bash", "zsh", "fish", "tcsh", "busybox sh"} {
		t.Run(sh, func(t *testing.T) {
			s := sshtest.Start(t, sshtest.Options{Login: "exec " + sh + ` -c "$SSH_ORIGINAL_COMMAND"`})
			file := filepath.Join(t.TempDir(), "touched")
			words := []string{"a  b", "$HOME", "it's", "!x", `\'; touch ` + file + "; #", `a\\b`, "two\nlines", "%", "\xff", ""}
			for _, become := range []bool{false, true} {
				host := &inventory.Host{
					Name: "web01", Address: "127.0.0.1", Port: s.Port, Become: become,
					SSH: inventory.SSH{Identity: s.Identity, KnownHosts: s.KnownHosts},
				}
				var stdout, stderr bytes.Buffer
				exit, err := new(Access).Run(t.Context(), Command{Host: host, Argv: append([]string{"printf", "%s|"}, words...)}, nil, &stdout, &stderr)
				if err != nil || exit != 0 || stdout.String() != strings.Join(words, "|")+"|" {
					t.Errorf("become %t: exit %d, %q, %q, %v", become, exit, stdout.String(), stderr.String(), err)
				}
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("a word ran as a command")
			}
		})
	}
}

func TestACommandEndsWithItsContext(t *testing.T) {
	host := served(t, "web01")
	ctx, cancel := context.WithCancel(t.Context())
	started := &signal{seen: cancel}
	_, err := new(Access).Run(ctx, Command{Host: host, Argv: []string{"echo started; sleep 600"}}, nil, started, started)
	if err == nil {
		t.Error("it ended well")
	}
}

// signal is a writer that tells of its first write.
type signal struct{ seen func() }

func (s *signal) Write(b []byte) (int, error) {
	s.seen()
	return len(b), nil
}

func TestACommandThatReadsNothingEndsThoughInputIsOpen(t *testing.T) {
	host := served(t, "web01")
	typed, terminal := io.Pipe() // nobody types, nobody hangs up
	defer terminal.Close()
	var stdout bytes.Buffer
	exit, err := new(Access).Run(t.Context(), Command{Host: host, Argv: []string{"echo done"}}, typed, &stdout, io.Discard)
	if exit != 0 || err != nil || stdout.String() != "done\n" {
		t.Errorf("exit %d, %q, %v", exit, stdout.String(), err)
	}
}

// A second Ctrl-C: what a host is asked to undo is not waited for.
func TestAnAbortCutsTheConnections(t *testing.T) {
	host := served(t, "web01")
	abort, cut := context.WithCancel(t.Context())
	begun := &signal{seen: cut}
	_, err := (&Access{Abort: abort}).Run(t.Context(), Command{Host: host, Argv: []string{"echo started; sleep 600"}}, nil, begun, begun)
	if err == nil || outcome.KindOf(err) != outcome.KindLost {
		t.Errorf("%v, kind %s", err, outcome.KindOf(err))
	}
}
