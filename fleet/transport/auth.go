package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
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
	accepts func(ssh.PublicKey) bool // by PubkeyAcceptedAlgorithms; nil: all
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
	if o.accepts != nil && !o.accepts(key.PublicKey()) {
		o.skipped = append(o.skipped, name+": PubkeyAcceptedAlgorithms leaves it out")
		return
	}
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
		o.addCertificate(id.cert, key, name, path)
	}
	o.add(key, path)
}

// addCertificate adds a certificate with its key, which is from a file or of the agent.
func (o *offer) addCertificate(cert *ssh.Certificate, key ssh.Signer, name, from string) {
	now, until := uint64(time.Now().Unix()), time.Unix(int64(min(cert.ValidBefore, math.MaxInt64)), 0)
	signer, err := ssh.NewCertSigner(cert, key)
	switch {
	case err != nil:
		o.skipped = append(o.skipped, fmt.Sprintf("%s: it is not a certificate of %s", name, from))
	case now >= cert.ValidBefore:
		o.skipped = append(o.skipped, fmt.Sprintf("%s: it was valid until %s", name, until.Format(time.DateTime)))
	default:
		o.add(signer, name)
	}
}

// hasSecurityKey reports whether a key may have to be touched.
func (o *offer) hasSecurityKey() bool {
	return slices.ContainsFunc(o.signers, func(key ssh.Signer) bool { return isSecurityKey(key.PublicKey()) })
}

// String lists the keys, for the error of a host that accepted none.
func (o *offer) String() string {
	s := "keys offered: " + strings.Join(o.names, ", ")
	if len(o.skipped) > 0 {
		s += "; not offered: " + strings.Join(o.skipped, ", ")
	}
	return s
}

// offer gathers the keys for a host in OpenSSH's order: certificates, the agent's keys that
// a file names, the agent's others, then files. An agent that is not needed is not
// asked: some hang. The connection to the agent ends with ctx, and so does the wait for a
// signature.
func (d *Dialer) offer(ctx context.Context, s Settings) (*offer, error) {
	o := &offer{accepts: s.Algorithms.accepts}
	files, err := d.identityFiles(s, o)
	if err != nil {
		return nil, err
	}
	var agentKeys []ssh.Signer
	only := s.Keys.Only || s.Identity != ""
	if !only || slices.ContainsFunc(files, func(f identityFile) bool { return f.key == nil }) {
		if agentKeys, err = d.agentKeys(ctx, s.Keys.Agent, o); err != nil {
			o.skipped = append(o.skipped, err.Error())
		}
	}
	for i := range files {
		files[i].held = heldKey(agentKeys, files[i].public)
	}
	for _, path := range s.Keys.Certificates {
		d.addNamedCertificate(o, path, files, agentKeys)
	}
	for _, f := range files {
		if f.held != nil {
			o.addIdentity(f.identity, f.held, f.path)
		}
	}
	for _, key := range agentKeys {
		cert, ok := key.PublicKey().(*ssh.Certificate)
		if !only || ok && slices.ContainsFunc(files, func(f identityFile) bool { return sameKey(f.public, cert.Key) }) {
			o.add(key, "agent's "+key.PublicKey().Type())
		}
	}
	if err := d.addFiles(ctx, s, o, files); err != nil {
		o.Close()
		return nil, err
	}
	if len(o.signers) == 0 && d.Password == "" {
		o.Close()
		hint := "start an agent (ssh-add), make one (ssh-keygen -t ed25519), or name one with identity"
		return nil, fmt.Errorf("there is no key to offer; %s%s", strings.Join(append(o.skipped, ""), "; "), hint)
	}
	return o, nil
}

// identityFile is a key file of this machine.
type identityFile struct {
	identity
	path string
	held ssh.Signer // the agent's key, if it holds this one
}

// identityFiles reads the key files for a host. Only the file of Settings.Identity has to
// exist and to be right.
func (d *Dialer) identityFiles(s Settings, o *offer) ([]identityFile, error) {
	paths := s.Keys.Identities
	if s.Identity != "" {
		paths = []string{s.Identity}
	} else if paths == nil {
		paths = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	var files []identityFile
	for _, path := range paths {
		id, err := d.keys.get(path, readIdentity)
		switch {
		case err == nil:
			files = append(files, identityFile{identity: id, path: path})
		case s.Identity != "":
			return nil, err
		case errors.Is(err, os.ErrNotExist) && s.Keys.Identities == nil:
		default:
			o.skipped = append(o.skipped, err.Error())
		}
	}
	return files, nil
}

// addFiles adds the keys of files that the agent does not hold.
func (d *Dialer) addFiles(ctx context.Context, s Settings, o *offer, files []identityFile) error {
	for _, f := range files {
		switch {
		case f.held != nil:
		case f.key != nil:
			o.addIdentity(f.identity, f.key, f.path)
		case f.locked && d.Ask != nil && (s.Identity != "" || s.Keys.Identities != nil || len(o.signers) == 0):
			// Without a need nobody is asked: another key may do.
			key, err := d.unlock(ctx, f.path)
			switch {
			case err == nil:
				o.addIdentity(f.identity, key, f.path)
			case s.Identity != "" || ctx.Err() != nil:
				return err
			default:
				o.skipped = append(o.skipped, err.Error())
			}
		case s.Identity != "":
			return f.unusable()
		default:
			o.skipped = append(o.skipped, f.unusable().Error())
		}
	}
	return nil
}

// unusable returns why a key file that the agent does not hold cannot be used.
func (f identityFile) unusable() error {
	private := strings.TrimSuffix(f.path, ".pub")
	switch {
	case f.exposed:
		return fmt.Errorf("others can read the private key %s, and ssh does not use it either: chmod 600 %s", f.path, f.path)
	case f.public != nil && isSecurityKey(f.public):
		return fmt.Errorf("%s is on a security key and no agent holds it: ssh-add %s", f.path, private)
	case !f.locked && private != f.path:
		return fmt.Errorf("%s is a public key and no agent holds its private key: name the private key (%s), or ssh-add it", f.path, private)
	case !f.locked:
		return fmt.Errorf("%s is a public key and no agent holds its private key: name the private key, or ssh-add it", f.path)
	}
	return fmt.Errorf("%s is protected by a passphrase and no agent holds it: ssh-add %s", f.path, f.path)
}

// isSecurityKey reports whether a key, or that of a certificate, is on a security key
// (FIDO), which signs when it is touched.
func isSecurityKey(key ssh.PublicKey) bool { return strings.HasPrefix(key.Type(), "sk-") }

// addNamedCertificate adds a certificate that is not beside its key.
func (d *Dialer) addNamedCertificate(o *offer, path string, files []identityFile, agentKeys []ssh.Signer) {
	cert, err := d.certs.get(path, readCertificate)
	if err != nil {
		o.skipped = append(o.skipped, err.Error())
		return
	}
	if key := heldKey(agentKeys, cert.Key); key != nil {
		o.addCertificate(cert, key, path, "the agent's key")
		return
	}
	for _, f := range files {
		if f.key != nil && sameKey(f.key.PublicKey(), cert.Key) {
			o.addCertificate(cert, f.key, path, f.path)
			return
		}
	}
	o.skipped = append(o.skipped, path+": neither the agent nor a key file has its key")
}

// heldKey returns the agent's key with this public half, or nil.
func heldKey(agentKeys []ssh.Signer, public ssh.PublicKey) ssh.Signer {
	for _, key := range agentKeys {
		if sameKey(key.PublicKey(), public) {
			return key
		}
	}
	return nil
}

func sameKey(a, b ssh.PublicKey) bool {
	return a != nil && b != nil && bytes.Equal(a.Marshal(), b.Marshal())
}

// agentTimeout is how long an agent may take to list its keys. It needs no answer
// of the user's for that.
const agentTimeout = 3 * time.Second

// agentKeys returns the keys that the agent holds: none, if there is no agent. socket is
// as IdentityAgent in ssh_config(5): a path, a variable of the environment, or "none".
func (d *Dialer) agentKeys(ctx context.Context, socket string, o *offer) ([]ssh.Signer, error) {
	switch name, variable := strings.CutPrefix(socket, "$"); {
	case socket == "none":
		return nil, nil
	case variable:
		socket = os.Getenv(strings.Trim(name, "{}"))
	case socket == "", socket == "SSH_AUTH_SOCK":
		socket = cmp.Or(d.Agent, os.Getenv("SSH_AUTH_SOCK"))
	}
	socket, err := expandHome(socket)
	if socket == "" || err != nil {
		return nil, err
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

// identity is the content of a key file: a private key, or the public half of one
// that the agent may hold.
type identity struct {
	key    ssh.Signer
	public ssh.PublicKey    // nil if it is not known
	cert   *ssh.Certificate // of FILE-cert.pub; nil if there is none
	locked bool             // by a passphrase

	exposed bool // others can read the file, so that only an agent may use the key
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
	id.cert, err = readCertificate(strings.TrimSuffix(file, ".pub") + "-cert.pub")
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	}
	return id, err
}

func readCertificate(path string) (*ssh.Certificate, error) {
	file, err := expandHome(path)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", file, err)
	}
	cert, ok := public.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("read certificate %s: it holds a key and no certificate", file)
	}
	return cert, nil
}

func readKey(file string) (identity, error) {
	b, exposed, err := readKeyFile(file)
	if err != nil {
		return identity{}, fmt.Errorf("read identity: %w", err)
	}
	if public, _, _, _, err := ssh.ParseAuthorizedKey(b); err == nil {
		return identity{public: public}, nil
	}
	key, err := ssh.ParsePrivateKey(b)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil && exposed:
		return identity{public: key.PublicKey(), exposed: true}, nil
	case err == nil:
		return identity{key: key, public: key.PublicKey()}, nil
	case !errors.As(err, &locked):
		if public := readPublic(file + ".pub"); public != nil && isSecurityKey(public) {
			return identity{public: public}, nil // of which the library knows the public half only
		}
		return identity{}, fmt.Errorf("read identity %s: %w", file, err)
	case locked.PublicKey != nil:
		return identity{public: locked.PublicKey, locked: !exposed, exposed: exposed}, nil
	}
	// The older PEM form keeps its public half elsewhere, if at all.
	return identity{public: readPublic(file + ".pub"), locked: !exposed, exposed: exposed}, nil
}

// readKeyFile reads a key file. It is exposed if it is this user's and its mode lets
// others read or write it: ssh refuses such a private key, too.
func readKeyFile(file string) (b []byte, exposed bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	b, err = io.ReadAll(f)
	return b, owner == os.Getuid() && info.Mode()&0o077 != 0, err
}

// readPublic returns the public key of a file, or nil.
func readPublic(file string) ssh.PublicKey {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil
	}
	return public
}
