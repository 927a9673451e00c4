package transport

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// knownHosts are the host keys that one says are right.
type knownHosts struct {
	db   *knownhosts.HostKeyDB
	file string            // where a new one belongs
	odd  []string          // lines that are left out, as OpenSSH leaves them out: FILE:LINE
	none error             // of a file that was named and is not there
	real map[string]string // of a file that was read without its odd lines: its name by that of the copy
}

// readKnownHosts parses a known_hosts file, or the usual ones for "".
func readKnownHosts(path string) (*knownHosts, error) {
	file, err := home(path)
	if err != nil {
		return nil, err
	}
	files := []string{file}
	var none error
	if path != "" {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			none, files = fmt.Errorf("read known hosts: %w (vsfleet trust makes it)", err), nil
		}
	} else {
		if file, err = home("~/.ssh/known_hosts"); err != nil {
			return nil, err
		}
		// Neither has to be there: then no host is known.
		files = slices.DeleteFunc([]string{file, "/etc/ssh/ssh_known_hosts"}, func(f string) bool {
			_, err := os.Stat(f)
			return errors.Is(err, os.ErrNotExist)
		})
	}
	k := &knownHosts{file: file, none: none, real: map[string]string{}}
	for i, f := range files {
		if files[i], err = k.readable(f); err != nil {
			return nil, fmt.Errorf("read known hosts: %w", err)
		}
		if files[i] != f {
			defer os.Remove(files[i])
		}
	}
	if k.db, err = knownhosts.NewDB(files...); err != nil {
		return nil, fmt.Errorf("read known hosts: %w", err)
	}
	return k, nil
}

// readable gives the file, or a copy in which the lines are blank that nobody
// here can read: keys of SSH 1, of types to come, mistakes. The library would
// take none of the others, either. What is revoked has to be read.
func (k *knownHosts) readable(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(b), "\n")
	odd := false
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		marker, _, _ := strings.Cut(line, " ")
		_, _, _, _, _, err := ssh.ParseKnownHosts([]byte(line))
		switch {
		case err == nil && (line[0] != '@' || marker == "@revoked" || marker == "@cert-authority"):
			continue
		case marker == "@revoked":
			return "", fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
		k.odd = append(k.odd, fmt.Sprintf("%s:%d", file, i+1))
		lines[i], odd = "", true
	}
	if !odd {
		return file, nil
	}
	f, err := os.CreateTemp("", "vsfleet-known-hosts-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	k.real[f.Name()] = file
	_, err = f.WriteString(strings.Join(lines, "\n"))
	return f.Name(), err
}

// hostKeys that are known for an endpoint.
func (k *knownHosts) hostKeys(endpoint string) []knownhosts.PublicKey { return k.db.HostKeys(endpoint) }

// algorithms to ask a host for, by the keys that are known for it. What an
// authority signs may be of any type, whatever its own key is. Plain keys come
// behind, so that a host without a certificate is told as that; and of a host
// that is not known the plain key is what can become known.
func (k *knownHosts) algorithms(endpoint string) []string {
	var certs, plain []string
	for _, key := range k.hostKeys(endpoint) {
		switch kind := key.Type(); {
		case key.Cert:
			certs = certAlgorithms
		case slices.Contains(plain, kind):
		case kind == ssh.KeyAlgoRSA:
			plain = append(plain, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, kind)
		default:
			plain = append(plain, kind)
		}
	}
	if plain == nil {
		plain = plainAlgorithms
	}
	return append(slices.Clone(certs), plain...)
}

var (
	certAlgorithms = []string{
		ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
		ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
	}
	plainAlgorithms = []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
)

// place of a key, FILE:LINE.
func (k *knownHosts) place(key xknownhosts.KnownKey) string {
	return fmt.Sprintf("%s:%d", cmp.Or(k.real[key.Filename], key.Filename), key.Line)
}

// UnknownKeyError is a host key that known_hosts does not hold for its host.
type UnknownKeyError struct {
	Key  ssh.PublicKey
	Name string   // of the host, as known_hosts has it
	File string   // where the key belongs
	odd  []string // lines that were left out
}

func (e *UnknownKeyError) Error() string {
	text := "its host key " + Shown(e.Key) + " is not known"
	if len(e.odd) > 0 {
		text += " (not to be read in known_hosts, and left out: " + strings.Join(e.odd[:min(len(e.odd), 3)], ", ") + ")"
	}
	return text
}

// Hint returns what helps with several of them.
func (e *UnknownKeyError) Hint() string {
	return "vsfleet trust shows the keys of all hosts that are not known, and adds those that you accept to known_hosts"
}

// Line of known_hosts that would make the key known.
func (e *UnknownKeyError) Line() string { return knownhosts.Line([]string{e.Name}, e.Key) }

// ChangedKeyError is a host key in place of which known_hosts holds another.
type ChangedKeyError struct {
	Key  ssh.PublicKey
	text string
}

func (e *ChangedKeyError) Error() string { return e.text }

// Shown is a key as people compare it: its type and fingerprint.
func Shown(key ssh.PublicKey) string { return key.Type() + " " + ssh.FingerprintSHA256(key) }

// check is what to say of the key that a host shows; nil if it is known.
func (k *knownHosts) check(endpoint string, remote net.Addr, key ssh.PublicKey) error {
	err := k.db.HostKeyCallback()(endpoint, remote, key)
	var revoked *xknownhosts.RevokedError
	var mismatch *xknownhosts.KeyError
	shown := Shown(key)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return fmt.Errorf("its host key %s is revoked by %s: do not connect", shown, k.place(revoked.Revoked))
	case !errors.As(err, &mismatch):
		return certError(endpoint, key, err)
	case len(mismatch.Want) == 0:
		return &UnknownKeyError{Key: key, Name: endpoint, File: k.file, odd: k.odd}
	}
	var old, authorities []string
	for _, w := range mismatch.Want {
		holds := fmt.Sprintf("%s has %s", k.place(w), Shown(w.Key))
		if slices.ContainsFunc(k.hostKeys(endpoint), func(h knownhosts.PublicKey) bool {
			return h.Cert && bytes.Equal(h.Marshal(), w.Key.Marshal())
		}) {
			authorities = append(authorities, k.place(w))
			continue
		}
		old = append(old, holds)
	}
	if old == nil {
		return fmt.Errorf("it shows the plain host key %s, and known_hosts wants a certificate of the authority in %s: sign the host's key with it (ssh-keygen -s) and set HostCertificate there",
			shown, strings.Join(authorities, ", "))
	}
	file := cmp.Or(k.real[mismatch.Want[0].Filename], mismatch.Want[0].Filename)
	return &ChangedKeyError{key, fmt.Sprintf("its host key has CHANGED: it shows %s, but %s; somebody may be between you and the host. If it was installed anew, compare the key there (ssh-keygen -lf %s) and remove the old one: ssh-keygen -f %s -R '%s'",
		shown, strings.Join(old, ", "), keyFile(key), file, knownhosts.Normalize(endpoint))}
}

// certError is why a host's certificate is not believed.
func certError(endpoint string, key ssh.PublicKey, err error) error {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return fmt.Errorf("host key %s: %w", Shown(key), err)
	}
	host, _, _ := net.SplitHostPort(endpoint)
	if len(cert.ValidPrincipals) > 0 && !slices.Contains(cert.ValidPrincipals, host) {
		return fmt.Errorf("its host certificate is for %s, not for %s: set host_key_alias to the name that it has",
			list(cert.ValidPrincipals), host)
	}
	return fmt.Errorf("its host certificate %q (by %s) is not valid: %w", Printable(cert.KeyId), Shown(cert.SignatureKey), err)
}

// keyFile is where sshd usually keeps a key of this type.
func keyFile(key ssh.PublicKey) string {
	kind := "ed25519"
	switch t := key.Type(); {
	case strings.Contains(t, "rsa"):
		kind = "rsa"
	case strings.Contains(t, "ecdsa"):
		kind = "ecdsa"
	}
	return "/etc/ssh/ssh_host_" + kind + "_key.pub"
}
