package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// fake is a server that behaves as sshd does rarely: what tells it apart is
// what it does with a connection.
type fake struct {
	settings Settings
	key      ssh.Signer
	config   *ssh.ServerConfig
	accepted atomic.Int32
}

// newFake listens, and gives each connection with its number, from 1, to
// serve. It lets in whoever has the key of its settings.
func newFake(t *testing.T, serve func(f *fake, n int, c net.Conn)) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	dir := t.TempDir()
	f := new(fake)
	f.key, _ = sshtest.NewKey(t, dir, "host")
	user, identity := sshtest.NewKey(t, dir, "user")
	f.settings = Settings{
		Name: "web1", Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port,
		Identity: identity, KnownHosts: filepath.Join(dir, "known_hosts"),
	}
	line := "[127.0.0.1]:" + portOf(f.settings) + " " + string(ssh.MarshalAuthorizedKey(f.key.PublicKey()))
	if err := os.WriteFile(f.settings.KnownHosts, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	f.config = &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if ssh.FingerprintSHA256(key) != ssh.FingerprintSHA256(user.PublicKey()) {
				return nil, errors.New("another key")
			}
			return nil, nil
		},
	}
	f.config.AddHostKey(f.key)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			t.Cleanup(func() { c.Close() })
			go serve(f, int(f.accepted.Add(1)), c)
		}
	}()
	return f
}

func portOf(s Settings) string {
	_, port, _ := net.SplitHostPort(s.endpoint())
	return port
}

// greet makes the handshake and gives what comes after; nil if that failed.
func (f *fake) greet(c net.Conn) (<-chan ssh.NewChannel, <-chan *ssh.Request) {
	_, chans, reqs, err := ssh.NewServerConn(c, f.config)
	if err != nil {
		return nil, nil
	}
	return chans, reqs
}

// sessions runs what is asked for in each session.
func sessions(chans <-chan ssh.NewChannel, run func(ch ssh.Channel, command string)) {
	for open := range chans {
		ch, reqs, err := open.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range reqs {
				if r.WantReply {
					_ = r.Reply(true, nil)
				}
				if r.Type == "exec" {
					go run(ch, string(r.Payload[4:]))
				}
			}
		}()
	}
}

// Servers by what they do.

func wellBehaved(f *fake, _ int, c net.Conn) {
	chans, reqs := f.greet(c)
	if chans == nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	sessions(chans, func(ch ssh.Channel, command string) {
		_, _ = io.WriteString(ch, command)
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
		ch.Close()
	})
}

// drops n connections as a throttled sshd does.
func drops(n int, said string) func(*fake, int, net.Conn) {
	return func(f *fake, i int, c net.Conn) {
		if i > n {
			wellBehaved(f, i, c)
			return
		}
		_, _ = io.WriteString(c, said)
		c.Close()
	}
}

// silent answers nothing, once it has let somebody in.
func silent(f *fake, _ int, c net.Conn) {
	chans, _ := f.greet(c)
	if chans == nil {
		return
	}
	sessions(chans, func(ssh.Channel, string) {})
}

// hangsUp when it is asked for a session.
func hangsUp(f *fake, _ int, c net.Conn) {
	chans, _ := f.greet(c)
	if chans != nil {
		<-chans
		c.Close()
	}
}

// mute accepts and says nothing.
func mute(*fake, int, net.Conn) {}
