package transport

import (
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// A person touches a security key for one host at a time, however many there are, and
// takes longer for all of them than a connection may.
func TestOneTouchAtATime(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	server := sshtest.Start(t, sshtest.Options{})
	key := newAuthenticator(t)
	write(t, filepath.Join(server.Dir, "authorized_keys"), string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	var at, most atomic.Int32
	key.touch = func() {
		most.Store(max(most.Load(), at.Add(1)))
		<-time.After(150 * time.Millisecond)
		at.Add(-1)
	}
	var mu sync.Mutex
	var said []string
	d := &Dialer{Agent: key.serve(t), Say: func(text string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, text)
	}}
	const n = 8
	errs := make(chan error, n)
	for range n {
		go func() {
			s := settings(server)
			s.Identity, s.ConnectTimeout = "", 500*time.Millisecond
			c, err := d.Dial(t.Context(), s)
			if err == nil {
				c.Close()
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if most.Load() != 1 || len(said) != n || !strings.HasPrefix(said[0], "web1: touch the security key: agent's sk-ssh-ed25519@openssh.com (SHA256:") {
		t.Errorf("%d touches at once, said %q", most.Load(), said)
	}
	t.Run("nobody touches it", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		waits := make(chan struct{})
		key.touch = func() { cancel(errors.New("interrupted")); <-waits }
		defer close(waits)
		s := settings(server)
		s.Identity = ""
		if _, err := d.Dial(ctx, s); err == nil || !strings.Contains(err.Error(), "interrupted") {
			t.Errorf("error %v", err)
		}
	})
}

func TestPassphrase(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	server := sshtest.Start(t, sshtest.Options{})
	b, err := os.ReadFile(server.Identity)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(dir, "locked")
	write(t, locked, string(pem.EncodeToMemory(block)))
	for _, row := range []struct {
		name     string
		keys     Keys
		identity string
		answers  []string
		want     string // of an error
		asked    int
	}{
		{name: "asked once for all hosts", identity: locked, answers: []string{"open sesame"}, asked: 1},
		{name: "a wrong one is asked for again", identity: locked, answers: []string{"wrong", "open sesame"}, asked: 2},
		{name: "three wrong ones", identity: locked, answers: []string{"a", "b", "c"}, want: "locked is protected by a passphrase, and 3 were wrong", asked: 3},
		{name: "none is given", identity: locked, answers: []string{""}, want: "and none was given", asked: 1},
		{name: "of ssh_config", keys: Keys{Identities: []string{locked}, Only: true}, answers: []string{"open sesame"}, asked: 1},
		{name: "not if the agent holds the key", identity: locked, keys: Keys{Agent: serveAgent(t, server.Identity)}},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := 0
			d := &Dialer{Agent: "none", Ask: func(_ context.Context, prompt string, echo bool) (string, error) {
				if want := "Passphrase for " + locked + ": "; prompt != want || echo {
					t.Errorf("asked %q, echo %t", prompt, echo)
				}
				asked++
				return row.answers[asked-1], nil
			}}
			s := settings(server)
			s.Identity, s.Keys = row.identity, row.keys
			for range 2 {
				if err := d.Check(t.Context(), s); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
					t.Errorf("error %v, want %q", err, row.want)
				}
			}
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					c, err := d.Dial(t.Context(), s)
					if err == nil {
						c.Close()
					}
					if (err == nil) != (row.want == "") {
						t.Errorf("error %v", err)
					}
				})
			}
			all.Wait()
			if asked != row.asked {
				t.Errorf("asked %d times, want %d", asked, row.asked)
			}
		})
	}
}

func TestPassword(t *testing.T) {
	const right = "correct horse"
	t.Setenv("HOME", t.TempDir())
	for _, row := range []struct {
		name     string
		config   []string
		settings Settings
		password string
		want     string
	}{
		{name: "a password", config: []string{"PasswordAuthentication yes"}, password: right},
		{name: "by keyboard-interactive", config: []string{"KbdInteractiveAuthentication yes", "UsePAM yes"}, password: right},
		{name: "beside a key", config: []string{"PasswordAuthentication yes", "AuthenticationMethods publickey,password"}, password: right},
		{name: "a wrong one", config: []string{"PasswordAuthentication yes"}, password: "wrong", want: "permission denied: the password of vsfadmin is wrong"},
		{name: "a wrong one is tried once", config: []string{"PasswordAuthentication yes", "KbdInteractiveAuthentication yes", "UsePAM yes"}, password: "wrong", want: "permission denied: the password of vsfadmin is wrong"},
		{name: "none", config: []string{"PasswordAuthentication yes", "PubkeyAuthentication no"}, want: "give the password with --ask-pass (-k)"},
		{name: "one that ssh_config does not want to be sent", config: []string{"PasswordAuthentication yes", "PubkeyAuthentication no"}, settings: Settings{NoPassword: true}, password: right, want: "lets vsfadmin in by password only"},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := sshtest.Start(t, sshtest.Options{Setup: admin, Config: row.config})
			s := row.settings
			s.Name, s.Address, s.Port, s.KnownHosts, s.User = "web1", "127.0.0.1", server.Port, server.KnownHosts, "vsfadmin"
			if strings.Contains(row.name, "key") && !strings.Contains(row.name, "keyboard") || row.password == "" {
				s.Identity = server.Identity
			}
			c, err := (&Dialer{Agent: "none", Password: row.password}).Dial(t.Context(), s)
			if err == nil {
				c.Close()
			}
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q\n%s", err, row.want, server.Log())
			}
			if n := strings.Count(server.Log(), "Failed password"); n > 1 {
				t.Errorf("the password was tried %d times", n)
			}
		})
	}
}

// A second factor is asked for by the host's name.
func TestQuestionsOfSSHD(t *testing.T) {
	f := newFake(t, goodServer)
	f.config.PublicKeyCallback = nil
	f.config.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
		answers, err := ask("", "", []string{"Password: ", "Verification\x1b[2J code:"}, []bool{false, true})
		if err != nil || len(answers) != 2 || answers[0] != "secret" || answers[1] != "123456" {
			return nil, errors.New("wrong")
		}
		return nil, nil
	}
	d := &Dialer{Agent: "none", Password: "secret", Ask: func(_ context.Context, prompt string, echo bool) (string, error) {
		if prompt != "web1: Verification[2J code: " || !echo {
			t.Errorf("asked %q, echo %t", prompt, echo)
		}
		return "123456", nil
	}}
	c, err := d.Dial(t.Context(), f.settings)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	d.Ask = nil
	if _, err := d.Dial(t.Context(), f.settings); err == nil || !strings.Contains(err.Error(), "there is nobody to answer") {
		t.Errorf("error %v", err)
	}
}
