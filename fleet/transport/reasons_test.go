package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// textServer writes a text to each new connection, and closes it unless it stays.
func textServer(text string, stays bool) func(*fake, int, net.Conn) {
	return func(_ *fake, _ int, c net.Conn) {
		_, _ = io.WriteString(c, text)
		if !stays {
			_, _ = c.Read(make([]byte, 64)) // a reset would discard the text
			c.Close()
		}
	}
}

// httpServer waits for a request, and answers as web servers do.
func httpServer(_ *fake, _ int, c net.Conn) {
	_, _ = c.Read(make([]byte, 64))
	_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
	c.Close()
}

// limitedServer is a server with the algorithms that change leaves.
func limitedServer(change func(*ssh.Config)) func(*fake, int, net.Conn) {
	return func(f *fake, _ int, c net.Conn) {
		change(&f.config.Config)
		f.greet(c)
	}
}

// Each cause has an error of its own.
func TestReasonsOfServers(t *testing.T) {
	for _, row := range []struct {
		name  string
		serve func(*fake, int, net.Conn)
		want  string
	}{
		{"a web server", httpServer, `no SSH server answers there, but something that says "HTTP/1.1 400 Bad Request`},
		{"a mail server, which waits", textServer("220 mx.example.net ESMTP\r\n", true), `something that says "220 mx.example.net ESMTP"`},
		{"a TLS server", textServer("\x15\x03\x03\x00\x02\x02\x0a", false), "no SSH server answers there"},
		{"a database", textServer("J\x00\x00\x00\x0a8.0.36\x00", true), "no SSH server answers there"},
		{"one that says nothing", muteServer, "no SSH server spoke: no answer within"},
		{"no common cipher", limitedServer(func(c *ssh.Config) { c.Ciphers = []string{ssh.InsecureCipherAES128CBC} }),
			"no client to server cipher in common: it offers aes128-cbc; let Ciphers in its sshd_config have one of"},
		{"no common key exchange", limitedServer(func(c *ssh.Config) { c.KeyExchanges = []string{ssh.InsecureKeyExchangeDH1SHA1} }),
			"no key exchange in common: it offers diffie-hellman-group1-sha1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFake(t, row.serve)
			f.settings.ConnectTimeout = 300 * time.Millisecond
			wantUnreachable(t, f.settings, row.want)
			_, err := dialer(t).Dial(t.Context(), f.settings)
			if row.want != "" && (strings.Contains(err.Error(), "overloaded") || strings.Contains(err.Error(), "known_hosts")) {
				t.Errorf("blames another: %v", err)
			}
			if n := int(f.accepted.Load()); n > 2 {
				t.Errorf("tried %d times", n)
			}
		})
	}
}

func TestReasonsOfSshd(t *testing.T) {
	for _, row := range []struct {
		name   string
		config []string
		want   string
	}{
		{"more than a key is wanted", []string{"KbdInteractiveAuthentication yes", "UsePAM yes", "AuthenticationMethods publickey,keyboard-interactive"},
			"is right, and sshd wants keyboard-interactive besides (AuthenticationMethods)"},
		{"a password is wanted", []string{"PasswordAuthentication yes", "AuthenticationMethods password"},
			"lets root in by password only"},
		{"no keys are taken", []string{"PubkeyAuthentication no", "KbdInteractiveAuthentication yes", "UsePAM yes"},
			"lets root in by keyboard-interactive only"},
		{"root may not log in", []string{"PermitRootLogin no"},
			"is right, and sshd does not let root in: set PermitRootLogin prohibit-password there, or log in as another user with become"},
		{"a user who is not among those let in looks like a wrong key", []string{"AllowUsers nobody"}, "permission denied: root is not let in"},
		{"old MACs alone", []string{"Ciphers aes128-ctr", "MACs umac-64@openssh.com"}, "MAC in common: it offers umac-64@openssh.com; let MACs"},
		{"old ciphers alone", []string{"Ciphers aes256-cbc"}, "cipher in common: it offers aes256-cbc"},
	} {
		t.Run(row.name, func(t *testing.T) {
			wantUnreachable(t, settings(sshtest.Start(t, sshtest.Options{Config: row.config})), row.want)
		})
	}
	t.Run("fewer tries than keys", func(t *testing.T) {
		server := sshtest.Start(t, sshtest.Options{Config: []string{"MaxAuthTries 2"}})
		var keys []string
		for _, name := range []string{"a", "b", "c"} {
			_, file := sshtest.NewKey(t, t.TempDir(), name)
			keys = append(keys, file)
		}
		d := Dialer{Agent: serveAgent(t, append(keys, server.Identity)...)}
		t.Setenv("HOME", t.TempDir())
		s := settings(server)
		s.Identity = ""
		if _, err := d.Dial(t.Context(), s); err == nil || !strings.Contains(err.Error(), "MaxAuthTries") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a bastion that forwards nothing", func(t *testing.T) {
		bastion := sshtest.Start(t, sshtest.Options{Config: []string{"AllowTcpForwarding no"}})
		wantUnreachable(t, routeThrough(t, bastion, sshtest.Start(t, sshtest.Options{})), "the jump host 127.0.0.1 does not forward connections there", "AllowTcpForwarding yes")
	})
}

// An error of this machine must not appear as one of the host.
func TestReasonsOfThisMachine(t *testing.T) {
	f := newFake(t, goodServer)
	locally := func(t *testing.T, err error, want string) {
		t.Helper()
		if err == nil || Unreachable(err) || !Local(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, unreachable %t, local %t; want %q", err, Unreachable(err), Local(err), want)
		}
	}
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	write(t, filepath.Join(dir, "known_hosts"), "\n@revoked * ssh-ed25519 nonsense\n")
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "locked"), string(pem.EncodeToMemory(locked)))
	for _, row := range []struct {
		name   string
		change func(*Settings)
		want   string
	}{
		{"an identity that is not there", func(s *Settings) { s.Identity = "/no/such/key" }, "/no/such/key: no such file"},
		{"known hosts that are not there", func(s *Settings) { s.KnownHosts = "/no/such/file" }, "/no/such/file: no such file"},
		{"no key at all", func(s *Settings) { s.Identity = "" }, "there is no key to offer"},
		{"an identity with a passphrase that no agent holds", func(s *Settings) { s.Identity = filepath.Join(dir, "locked") }, "ssh-add"},
		{"a revoked key that cannot be read", func(s *Settings) { s.KnownHosts = filepath.Join(dir, "known_hosts") }, "known_hosts:2: "},
		{"an identity that a jump host lacks", func(s *Settings) {
			s.Via = Hop{Address: "bastion"}.Settings(Settings{Identity: "/no/such/key"}, nil)
		}, "/no/such/key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := f.settings
			row.change(&s)
			locally(t, dialer(t).Check(t.Context(), s), row.want)
			_, err := dialer(t).Dial(t.Context(), s)
			locally(t, err, row.want)
		})
	}
	if n := f.accepted.Load(); n != 0 {
		t.Errorf("%d connections were made for that", n)
	}
	if err := dialer(t).Check(t.Context(), f.settings); err != nil {
		t.Errorf("what is right: %v", err)
	}
	t.Run("no more files", func(t *testing.T) {
		d := dialer(t)
		if err := d.Check(t.Context(), f.settings); err != nil { // reads what it will need
			t.Fatal(err)
		}
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		few := limit
		few.Cur = uint64(len(entries) - 1)
		var held []*os.File
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		for { // holes below the limit
			file, err := os.Open("/dev/null")
			if err != nil {
				break
			}
			held = append(held, file)
		}
		_, err = d.Dial(t.Context(), f.settings)
		for _, file := range held {
			file.Close()
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		locally(t, err, "too many open files on this machine: work on fewer hosts at once (--forks), or allow more (ulimit -n)")
	})
}

func TestSessionsBeyondMaxSessions(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprintf("MaxSessions %d", n), func(t *testing.T) {
			server := sshtest.Start(t, sshtest.Options{Config: []string{fmt.Sprintf("MaxSessions %d", n)}})
			c := dial(t, settings(server))
			var all sync.WaitGroup
			for range 3 {
				s, err := c.Pipe(t.Context(), "cat")
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				all.Go(func() {
					var out strings.Builder
					if exit, err := c.Exec(t.Context(), "echo hello", nil, &out, nil); exit != 0 || err != nil || out.String() != "hello\n" {
						t.Errorf("exit %d, error %v, stdout %q", exit, err, out.String())
					}
				})
			}
			all.Wait()
			c.Close()
			waitFor(t, "all connections to end", func() bool {
				return strings.Count(server.Log(), "Closing connection to")+strings.Count(server.Log(), "Connection closed by") >= logins(server)
			})
		})
	}
	t.Run("one after the other needs no other connection", func(t *testing.T) {
		server := sshtest.Start(t, sshtest.Options{Config: []string{"MaxSessions 1"}})
		c := dial(t, settings(server))
		for range 5 {
			if exit, err := c.Exec(t.Context(), "true", nil, nil, nil); exit != 0 || err != nil {
				t.Errorf("exit %d, error %v", exit, err)
			}
		}
		if n := logins(server); n != 1 {
			t.Errorf("%d logins", n)
		}
	})
	t.Run("none at all says so", func(t *testing.T) {
		c := dial(t, settings(sshtest.Start(t, sshtest.Options{Config: []string{"MaxSessions 0"}})))
		if _, err := c.Exec(t.Context(), "true", nil, nil, nil); err == nil || !strings.Contains(err.Error(), "MaxSessions") {
			t.Errorf("error %v", err)
		}
	})
}

// With MaxStartups 3:100:3 every connection beyond three is dropped. The fewer attempts
// are made at the same moment, the sooner all hosts are connected.
func TestADoorOfThreeLosesNobody(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{Config: []string{"MaxStartups 3:100:3"}})
	d := dialer(t)
	const n = 60
	slots := make(chan struct{}, 32) // as many forks
	errs := make(chan error, n)
	for range n {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c, err := d.Dial(t.Context(), settings(server))
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
	if dropped := strings.Count(server.Log(), "drop connection"); dropped > n {
		t.Errorf("%d connections were dropped for %d hosts", dropped, n)
	}
}

func TestADroppedHostIsTriedForAsLongAsItMayTake(t *testing.T) {
	begun := time.Now()
	f := newFake(t, func(f *fake, i int, c net.Conn) {
		if time.Since(begun) < 5*time.Second/2 {
			c.Close()
			return
		}
		goodServer(f, i, c)
	})
	dial(t, f.settings)
}

func TestPeerClosed(t *testing.T) {
	op := func(err error) error {
		return fmt.Errorf("ssh: handshake failed: %w", &net.OpError{Op: "read", Net: "tcp", Err: err})
	}
	for _, row := range []struct {
		name string
		err  error
		want bool
	}{
		{"its end", io.EOF, true},
		{"its end in a packet", io.ErrUnexpectedEOF, true},
		{"a reset", op(syscall.ECONNRESET), true},
		{"a write after its end", op(syscall.EPIPE), true},
		{"closed here, after a write that failed", op(net.ErrClosed), true},
		{"silence", op(os.ErrDeadlineExceeded), false},
		{"no way to it", op(syscall.EHOSTUNREACH), false},
	} {
		if got := peerClosed(row.err); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}
