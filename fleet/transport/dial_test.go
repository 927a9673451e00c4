package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDialRefusals(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	shown := ssh.FingerprintSHA256(server.HostKey.PublicKey())
	dir := t.TempDir()
	other, otherFile := sshtest.NewKey(t, dir, "other")
	otherPrint := ssh.FingerprintSHA256(other.PublicKey())
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecdsaKey, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	known := func(lines string) func(*Settings) {
		return func(s *Settings) {
			s.KnownHosts = filepath.Join(t.TempDir(), "known_hosts")
			write(t, s.KnownHosts, lines)
		}
	}
	for _, row := range []struct {
		name   string
		change func(*Settings)
		want   []string
	}{
		{"an unknown host key is shown", known("# empty\n"), []string{"its host key ssh-ed25519 " + shown + " is not known"}},
		{"a changed host key is refused, both are shown, and where the old one is", known("# first\n" + server.KnownHostsLine(other.PublicKey())),
			[]string{"CHANGED", shown, otherPrint, "known_hosts:2", "ssh-keygen -f", "-R '[127.0.0.1]:"}},
		{"a revoked host key is refused", known("@revoked * " + string(ssh.MarshalAuthorizedKey(server.HostKey.PublicKey()))),
			[]string{"revoked", shown, "known_hosts:1"}},
		{"a host without a key of the known type is refused", known(server.KnownHostsLine(ecdsaKey)),
			[]string{"no host key of a type that known_hosts holds"}},
		{"a broken line of known_hosts is named where the host is not known", known("\nweb1 ssh-ed25519 nonsense\n"),
			[]string{"is not known (not to be read in known_hosts, and left out: ", "known_hosts:2)"}},
		{"a changed host key behind an odd line is told with its place", known("web1 1024 35 1234567\n" + server.KnownHostsLine(other.PublicKey())),
			[]string{"CHANGED", "/known_hosts:2 has", "ssh-keygen -f"}},
		{"a wrong key is told with its fingerprint", func(s *Settings) { s.Identity = otherFile },
			[]string{"permission denied", "root", otherFile, otherPrint, "authorized_keys"}},
		{"a user whom nobody knows is told", func(s *Settings) { s.User = "no-such-user" },
			[]string{"permission denied", "no-such-user"}},
		{"a port where nothing listens", func(s *Settings) { s.Port = 1 }, []string{"connection refused", "is its sshd running"}},
		{"a name that is not there", func(s *Settings) { s.Address = "web1.invalid" }, []string{"web1.invalid"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := settings(server)
			row.change(&s)
			wantUnreachable(t, s, row.want...)
		})
	}
}

// Many known_hosts files hold keys of SSH 1, or of types of the future.
func TestOddLinesOfKnownHostsHinderNobody(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	s := settings(server)
	s.KnownHosts = filepath.Join(t.TempDir(), "known_hosts")
	write(t, s.KnownHosts, "old 1024 35 1234567\nnew ssh-mldsa44 AAAA\n@later * ssh-ed25519 AAAA\n"+server.KnownHostsLine(server.HostKey.PublicKey()))
	c, err := dialer(t).Dial(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// wantUnreachable fails the test unless the host is unreachable and the error has
// these texts.
func wantUnreachable(t *testing.T, s Settings, want ...string) error {
	t.Helper()
	c, err := dialer(t).Dial(t.Context(), s)
	if err == nil {
		c.Close()
		t.Fatal("it was reached")
	}
	for _, w := range append(want, "connect to web1 ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q\ndoes not say %q", err, w)
		}
	}
	if !Unreachable(err) {
		t.Errorf("%v: Unreachable says no", err)
	}
	return err
}

func TestServersThatDoNotAnswer(t *testing.T) {
	for _, row := range []struct {
		name  string
		serve func(*fake, int, net.Conn)
		want  []string
		tries int
	}{
		{"one that says nothing", muteServer, []string{"no SSH server spoke: no answer within 200ms"}, 1},
		{"one that does not end the authentication", func(f *fake, _ int, c net.Conn) {
			f.config.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { select {} }
			f.greet(c)
		}, []string{"authenticate as root: no answer within 200ms"}, 1},
		{"one that hangs up after the host key", func(f *fake, _ int, c net.Conn) {
			f.config.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
				c.Close()
				return nil, errors.New("closed")
			}
			f.greet(c)
		}, []string{"closed the connection while root authenticated"}, 1},
		{"one that is busy for a moment", droppingServer(1, "Exceeded MaxStartups\r\n"), nil, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFake(t, row.serve)
			f.settings.ConnectTimeout = 200 * time.Millisecond
			if row.want == nil { // the second try gets through
				f.settings.ConnectTimeout = 0
				dial(t, f.settings)
			} else {
				wantUnreachable(t, f.settings, row.want...)
			}
			if n := int(f.accepted.Load()); n != row.tries {
				t.Errorf("%d connections, want %d", n, row.tries)
			}
		})
	}
}

func TestDroppedConnectionsAreTriedAgain(t *testing.T) {
	f := newFake(t, droppingServer(3, "Exceeded MaxStartups\r\n"))
	c := dial(t, f.settings)
	var out bytes.Buffer
	if exit, err := c.Exec(t.Context(), "hello", nil, &out, nil); exit != 0 || err != nil || out.String() != "hello" {
		t.Errorf("exit %d, error %v, stdout %q", exit, err, &out)
	}
	t.Run("but not for ever", func(t *testing.T) {
		f := newFake(t, droppingServer(100, ""))
		f.settings.ConnectTimeout = 100 * time.Millisecond
		wantUnreachable(t, f.settings, "closed the connection at once, 4 times within ", "MaxStartups")
	})
}

func TestDialThatIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := newFake(t, func(*fake, int, net.Conn) { cancel() })
	_, err := dialer(t).Dial(ctx, f.settings)
	if !errors.Is(err, context.Canceled) || Unreachable(err) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
}

func TestHostThatFallsSilentIsLost(t *testing.T) {
	f := newFake(t, silentServer)
	f.settings.KeepAlive = 20 * time.Millisecond
	c := dial(t, f.settings)
	exit, err := c.Exec(t.Context(), "anything", nil, nil, nil)
	if exit != -1 || !Unreachable(err) || !strings.Contains(err.Error(), "no answer for 60ms") {
		t.Errorf("exit %d, error %v", exit, err)
	}
}

// The server answers keepalives and nothing else, as sshd does on a machine without
// free memory.
func TestHostThatStartsNothingIsGivenUp(t *testing.T) {
	defer func(was time.Duration) { sessionTimeout = was }(sessionTimeout)
	sessionTimeout = 100 * time.Millisecond
	for name, serve := range map[string]func(ssh.NewChannel){
		"open a session": func(ssh.NewChannel) {},
		"start a command": func(open ssh.NewChannel) {
			if _, reqs, err := open.Accept(); err == nil {
				go func() {
					for range reqs { // no reply
					}
				}()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(f *fake, _ int, c net.Conn) {
				chans, reqs := f.greet(c)
				go ssh.DiscardRequests(reqs)
				for open := range chans {
					serve(open)
				}
			})
			_, err := dial(t, f.settings).Exec(t.Context(), "true", nil, nil, nil)
			if err == nil || !strings.Contains(err.Error(), name+": sshd has not answered within 100ms") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The session and the connection end at the same time: whichever is noticed first, the
// error is a lost connection.
func TestHostThatHangsUpAtASessionIsLost(t *testing.T) {
	f := newFake(t, hangUpServer)
	d := dialer(t)
	for range 50 {
		c, err := d.Dial(t.Context(), f.settings)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), "true", nil, nil, nil); !Unreachable(err) {
			t.Fatalf("error %v, which is not that of a lost host", err)
		}
		c.Close()
	}
}

func TestIdleHostThatAnswersIsKept(t *testing.T) {
	asked := make(chan string, 10)
	f := newFake(t, func(f *fake, _ int, c net.Conn) {
		_, reqs := f.greet(c)
		for r := range reqs {
			asked <- r.Type
			_ = r.Reply(false, nil) // as sshd answers what it does not know
		}
	})
	f.settings.KeepAlive = 5 * time.Millisecond
	c := dial(t, f.settings)
	for range 2 * maxMisses {
		if r := <-asked; r != "keepalive@openssh.com" {
			t.Fatalf("asked for %q", r)
		}
	}
	if _, err := c.RTT(t.Context()); err != nil {
		t.Error(err)
	}
}

// serveAgent serves an agent with these keys, and returns its socket.
func serveAgent(t *testing.T, keys ...string) string {
	t.Helper()
	ring := agent.NewKeyring()
	for _, file := range keys {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.ParseRawPrivateKey(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			go func() {
				_ = agent.ServeAgent(ring, c) // until the client hangs up
				c.Close()
			}()
		}
	}()
	return socket
}

// A forwarded agent whose other end is gone accepts connections and sends nothing.
func TestAgentThatDoesNotAnswer(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	t.Setenv("HOME", t.TempDir())
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := Dialer{Agent: socket}
	s := settings(server)
	c, err := d.Dial(t.Context(), s)
	if err != nil {
		t.Fatalf("with a key file that needs no agent: %v", err)
	}
	c.Close()
	s.Identity = ""
	if _, err := d.Dial(t.Context(), s); err == nil || !strings.Contains(err.Error(), socket+" does not answer") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("interrupted")) })
	if _, err := d.Dial(ctx, s); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("interrupted: error %v", err)
	}
}

func TestAgent(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	dir := t.TempDir()
	t.Setenv("HOME", dir) // whose ~/.ssh holds nothing
	var many []string
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		_, file := sshtest.NewKey(t, dir, name)
		many = append(many, file)
	}
	for _, row := range []struct {
		name     string
		keys     []string
		identity string
		want     []string // of an error
	}{
		{name: "the agent's key lets in", keys: []string{server.Identity}},
		{name: "an identity that is a public key chooses the agent's", keys: append(many, server.Identity), identity: server.Identity + ".pub"},
		{name: "an identity is offered alone", keys: []string{server.Identity}, identity: many[0], want: []string{"permission denied", many[0]}},
		{name: "no more than five keys are offered, and the rest is told", keys: append(many, server.Identity),
			want: []string{"permission denied", "not offered: agent's ssh-ed25519", "five were offered before it", "identity"}},
		{name: "an agent that holds nothing is no key", want: []string{"no key to offer", "ssh-keygen"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := Dialer{Agent: serveAgent(t, row.keys...)}
			s := settings(server)
			s.Identity = row.identity
			c, err := d.Dial(t.Context(), s)
			if err == nil {
				defer c.Close()
			}
			if (err == nil) != (row.want == nil) {
				t.Fatalf("error %v", err)
			}
			for _, w := range row.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q\ndoes not say %q", err, w)
				}
			}
		})
	}
	t.Run("the key of ~/.ssh is found", func(t *testing.T) {
		if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{server.Identity: "id_ed25519", server.KnownHosts: "known_hosts"} {
			if err := os.Link(from, filepath.Join(dir, ".ssh", to)); err != nil {
				t.Fatal(err)
			}
		}
		s := settings(server)
		s.Identity, s.KnownHosts = "", ""
		dial(t, s)
	})
}
