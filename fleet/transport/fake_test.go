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

// fake is a server that behaves as sshd rarely does. serve is what it does with a
// connection.
type fake struct {
	settings Settings
	key      ssh.Signer
	config   *ssh.ServerConfig
	accepted atomic.Int32
}

// newFake listens, and passes each connection with its number, from 1, to serve. It
// accepts the key of its settings.
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

// greet makes the handshake and returns the channels and requests; nil if it failed.
func (f *fake) greet(c net.Conn) (<-chan ssh.NewChannel, <-chan *ssh.Request) {
	_, chans, reqs, err := ssh.NewServerConn(c, f.config)
	if err != nil {
		return nil, nil
	}
	return chans, reqs
}

// sessions calls run with the command of each session.
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

// goodServer prints each command and exits with status 0.
func goodServer(f *fake, _ int, c net.Conn) {
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

// droppingServer drops the first n connections with a message, as an sshd that
// throttles does.
func droppingServer(n int, message string) func(*fake, int, net.Conn) {
	return func(f *fake, i int, c net.Conn) {
		if i > n {
			goodServer(f, i, c)
			return
		}
		_, _ = io.WriteString(c, message)
		c.Close()
	}
}

// silentServer answers nothing after the login.
func silentServer(f *fake, _ int, c net.Conn) {
	chans, _ := f.greet(c)
	if chans == nil {
		return
	}
	sessions(chans, func(ssh.Channel, string) {})
}

// hangUpServer closes the connection when it is asked for a session.
func hangUpServer(f *fake, _ int, c net.Conn) {
	chans, _ := f.greet(c)
	if chans != nil {
		<-chans
		c.Close()
	}
}

// muteServer accepts connections and sends nothing.
func muteServer(*fake, int, net.Conn) {}
