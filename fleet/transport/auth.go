package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKeys is the number of keys that are offered at most: sshd hangs up after six
// (MaxAuthTries), and since 9.8 it punishes addresses that fail (PerSourcePenalties).
const maxKeys = 5

// offer is the set of keys with which a host is asked to let the user in.
type offer struct {
	signers []ssh.Signer
	names   []string // one per signer: "~/.ssh/id_ed25519 (SHA256:…)"
	skipped []string // keys that were found and not offered, and why
	agent   io.Closer
}

// Close ends the connection to the agent.
func (o *offer) Close() {
	if o.agent != nil {
		o.agent.Close()
	}
}

func (o *offer) add(key ssh.Signer, from string) {
	for _, have := range o.signers {
		if bytes.Equal(have.PublicKey().Marshal(), key.PublicKey().Marshal()) {
			return
		}
	}
	name := fmt.Sprintf("%s (%s)", from, ssh.FingerprintSHA256(key.PublicKey()))
	if len(o.signers) == maxKeys {
		o.skipped = append(o.skipped, name+": five were offered before it")
		return
	}
	o.signers = append(o.signers, key)
	o.names = append(o.names, name)
}

// addIdentity adds a key and, before it, the certificate beside it.
func (o *offer) addIdentity(id identity, key ssh.Signer, path string) {
	if id.cert != nil {
		name := strings.TrimSuffix(path, ".pub") + "-cert.pub"
		now, until := uint64(time.Now().Unix()), time.Unix(int64(min(id.cert.ValidBefore, math.MaxInt64)), 0)
		signer, err := ssh.NewCertSigner(id.cert, key)
		switch {
		case err != nil:
			o.skipped = append(o.skipped, fmt.Sprintf("%s: it is not a certificate of %s", name, path))
		case now >= id.cert.ValidBefore:
			o.skipped = append(o.skipped, fmt.Sprintf("%s: it was valid until %s", name, until.Format(time.DateTime)))
		default:
			o.add(signer, name)
		}
	}
	o.add(key, path)
}

// String lists the keys, for the error of a host that accepted none.
func (o *offer) String() string {
	s := "keys offered: " + strings.Join(o.names, ", ")
	if len(o.skipped) > 0 {
		s += "; not offered: " + strings.Join(o.skipped, ", ")
	}
	return s
}

// offer gathers the keys for a host. The agent's come first, as the user has
// unlocked them. An agent that is not needed is not asked: some hang. The
// connection to the agent ends with ctx, and so does the wait for a signature.
func (d *Dialer) offer(ctx context.Context, identity string) (*offer, error) {
	o := new(offer)
	if identity != "" {
		if id, err := d.keys.get(identity, readIdentity); err == nil && id.key != nil {
			o.addIdentity(id, id.key, identity)
			return o, nil
		}
	}
	agentKeys, err := d.agentKeys(ctx, o)
	if err != nil {
		o.skipped = append(o.skipped, err.Error())
	}
	if identity != "" {
		id, key, err := d.identity(identity, agentKeys)
		if err != nil {
			o.Close()
			return nil, err
		}
		o.addIdentity(id, key, identity)
		return o, nil
	}
	for _, key := range agentKeys {
		o.add(key, "agent's "+key.PublicKey().Type())
	}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		path := filepath.Join("~/.ssh", name)
		id, key, err := d.identity(path, agentKeys)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			o.skipped = append(o.skipped, err.Error())
		default:
			o.addIdentity(id, key, path)
		}
	}
	if len(o.signers) == 0 {
		o.Close()
		hint := "start an agent (ssh-add), make one (ssh-keygen -t ed25519), or name one with identity"
		return nil, fmt.Errorf("there is no key to offer; %s%s", strings.Join(append(o.skipped, ""), "; "), hint)
	}
	return o, nil
}

// agentTimeout is how long an agent may take to list its keys. It needs no answer
// of the user's for that.
const agentTimeout = 3 * time.Second

// agentKeys returns the keys that the agent holds: none, if there is no agent.
func (d *Dialer) agentKeys(ctx context.Context, o *offer) ([]ssh.Signer, error) {
	socket := d.Agent
	if socket == "" {
		socket = os.Getenv("SSH_AUTH_SOCK")
	}
	if socket == "" {
		return nil, nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	o.agent = conn
	context.AfterFunc(ctx, func() { conn.Close() })
	until := time.Now().Add(agentTimeout)
	if err := conn.SetDeadline(until); err != nil {
		return nil, fmt.Errorf("agent %s: %w", socket, err)
	}
	keys, err := agent.NewClient(conn).Signers()
	if err == nil {
		err = conn.SetDeadline(time.Time{}) // a signature may wait for a person
	}
	if err != nil && !time.Now().Before(until) { // the library's error hides which it was
		return nil, fmt.Errorf("agent %s does not answer", socket)
	}
	if err != nil {
		return nil, fmt.Errorf("agent %s: %w", socket, err)
	}
	return keys, nil
}

// identity returns the key of a file, or the agent's key that the file names.
func (d *Dialer) identity(path string, agentKeys []ssh.Signer) (identity, ssh.Signer, error) {
	id, err := d.keys.get(path, readIdentity)
	if err != nil || id.key != nil {
		return id, id.key, err
	}
	for _, key := range agentKeys {
		if id.public != nil && bytes.Equal(key.PublicKey().Marshal(), id.public.Marshal()) {
			return id, key, nil
		}
	}
	return id, nil, fmt.Errorf("%s is protected by a passphrase and no agent holds it: ssh-add %s", path, path)
}

// identity is the content of a key file: a private key, or the public half of one
// that the agent may hold.
type identity struct {
	key    ssh.Signer
	public ssh.PublicKey
	cert   *ssh.Certificate // of FILE-cert.pub; nil if there is none
}

// readIdentity reads a key file and the certificate beside it. Of a key that is
// protected by a passphrase it returns the public half alone, as it does for the
// file of a public key. If path names a certificate, its key is read.
func readIdentity(path string) (identity, error) {
	file, err := expandHome(path)
	if err != nil {
		return identity{}, err
	}
	file = strings.TrimSuffix(file, "-cert.pub")
	id, err := readKey(file)
	if err != nil {
		return identity{}, err
	}
	certFile := strings.TrimSuffix(file, ".pub") + "-cert.pub"
	b, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	} else if err != nil {
		return identity{}, fmt.Errorf("read certificate: %w", err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return identity{}, fmt.Errorf("read certificate %s: %w", certFile, err)
	}
	cert, ok := public.(*ssh.Certificate)
	if !ok {
		return identity{}, fmt.Errorf("read certificate %s: it holds a key and no certificate", certFile)
	}
	id.cert = cert
	return id, nil
}

func readKey(file string) (identity, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return identity{}, fmt.Errorf("read identity: %w", err)
	}
	if public, _, _, _, err := ssh.ParseAuthorizedKey(b); err == nil {
		return identity{public: public}, nil
	}
	key, err := ssh.ParsePrivateKey(b)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		return identity{key: key}, nil
	case !errors.As(err, &locked):
		return identity{}, fmt.Errorf("read identity %s: %w", file, err)
	case locked.PublicKey != nil:
		return identity{public: locked.PublicKey}, nil
	}
	// The older PEM form keeps its public half elsewhere, if at all.
	b, err = os.ReadFile(file + ".pub")
	if err != nil {
		return identity{}, nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return identity{}, fmt.Errorf("read identity %s.pub: %w", file, err)
	}
	return identity{public: public}, nil
}
