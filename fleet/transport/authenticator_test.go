package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// authenticator is an agent with one key on a security key (FIDO), which sshd takes for
// a real one.
type authenticator struct {
	agent.Agent // all that is not below is not there
	public      ssh.PublicKey
	private     ed25519.PrivateKey
	touch       func() // waits for the person
	count       atomic.Uint32
}

func newAuthenticator(t *testing.T) *authenticator {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	blob := ssh.Marshal(struct{ Type, Key, Application string }{"sk-ssh-ed25519@openssh.com", string(public), "ssh:"})
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	return &authenticator{public: key, private: private, touch: func() {}}
}

func (a *authenticator) PublicKey() ssh.PublicKey { return a.public }

func (a *authenticator) List() ([]*agent.Key, error) {
	return []*agent.Key{{Format: a.public.Type(), Blob: a.public.Marshal(), Comment: "security key"}}, nil
}

func (a *authenticator) Sign(_ ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	a.touch()
	application, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	rest := ssh.Marshal(struct {
		Flags byte
		Count uint32
	}{1, a.count.Add(1)})
	signed := append(append(append([]byte{}, application[:]...), rest...), message[:]...)
	return &ssh.Signature{Format: a.public.Type(), Blob: ed25519.Sign(a.private, signed), Rest: rest}, nil
}

func (a *authenticator) SignWithFlags(key ssh.PublicKey, data []byte, _ agent.SignatureFlags) (*ssh.Signature, error) {
	return a.Sign(key, data)
}

func (a *authenticator) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}

// serve listens as an agent and returns the socket.
func (a *authenticator) serve(t *testing.T) string {
	t.Helper()
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
				if err := agent.ServeAgent(a, c); err != nil && !errors.Is(err, io.EOF) {
					c.Close()
				}
			}()
		}
	}()
	return socket
}
