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

// knownHosts is the set of host keys that are trusted: the parsed known_hosts files.
type knownHosts struct {
	db        *knownhosts.HostKeyDB
	file      string              // to which a new key is added
	badLines  []string            // lines that are skipped, as OpenSSH skips them: FILE:LINE
	missing   error               // the error of a named file that does not exist
	originals map[string]string   // the file's name by that of its copy without bad lines
	names     map[string][]string // of hosts, by key: "web1", or FILE:LINE if they are hashed

	// exact holds the keys by name as known_hosts has it, so that a host among thousands
	// is not compared with all lines. It is nil if a line has a hash, a pattern or a mark.
	exact map[string][]knownhosts.PublicKey
}

// knownHostsFiles returns the files with the host keys for s as one text, the key of
// the cache: a named file, or files that may be missing with a NUL before each.
func (s Settings) knownHostsFiles() string {
	if s.KnownHosts != "" {
		return s.KnownHosts
	}
	files := s.HostKeys.Files
	if files == nil {
		files = []string{"~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"}
	}
	text := ""
	for _, f := range files {
		text += "\x00" + f
	}
	return text
}

// readKnownHosts parses the files of knownHostsFiles. New keys go to the first.
func readKnownHosts(text string) (*knownHosts, error) {
	optional, named := strings.CutPrefix(text, "\x00")
	k := &knownHosts{originals: map[string]string{}, names: map[string][]string{}, exact: map[string][]knownhosts.PublicKey{}}
	var files []string
	for i, name := range strings.Split(optional, "\x00") {
		file, err := expandHome(name)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			k.file = file
		}
		switch _, err := os.Stat(file); {
		case !errors.Is(err, fs.ErrNotExist):
		case !named:
			k.missing = fmt.Errorf("read known hosts: %w (vsfleet trust makes it)", err)
			continue
		default: // then it holds no keys
			continue
		}
		if file, err = k.readableFile(file); err != nil {
			return nil, fmt.Errorf("read known hosts: %w", err)
		}
		if k.originals[file] != "" {
			defer os.Remove(file)
		}
		files = append(files, file)
	}
	db, err := knownhosts.NewDB(files...)
	if err != nil {
		return nil, fmt.Errorf("read known hosts: %w", err)
	}
	k.db = db
	return k, nil
}

// readableFile returns the file, or a copy in which lines that cannot be parsed are
// blank: keys of SSH 1, of future types, mistakes. With such a line the library
// would read none of the others. A @revoked line that cannot be parsed is an error.
func (k *knownHosts) readableFile(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(b), "\n")
	bad := false
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		marker, _, _ := strings.Cut(line, " ")
		_, names, key, _, _, err := ssh.ParseKnownHosts([]byte(line))
		if err == nil {
			k.index(line, names, key)
		}
		if err == nil && line[0] != '@' {
			if strings.HasPrefix(names[0], "|") {
				names = []string{fmt.Sprintf("%s:%d", file, i+1)}
			}
			k.names[string(key.Marshal())] = append(k.names[string(key.Marshal())], names...)
		}
		switch {
		case err == nil && (line[0] != '@' || marker == "@revoked" || marker == "@cert-authority"):
			continue
		case marker == "@revoked":
			return "", fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
		k.badLines = append(k.badLines, fmt.Sprintf("%s:%d", file, i+1))
		lines[i], bad = "", true
	}
	if !bad {
		return file, nil
	}
	f, err := os.CreateTemp("", "vsfleet-known-hosts-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	k.originals[f.Name()] = file
	_, err = f.WriteString(strings.Join(lines, "\n"))
	return f.Name(), err
}

// index adds a line to exact, or gives that up.
func (k *knownHosts) index(line string, names []string, key ssh.PublicKey) {
	if line[0] == '@' || strings.ContainsAny(strings.Join(names, ","), "|*?!") {
		k.exact = nil
	}
	if k.exact == nil {
		return
	}
	for _, name := range names {
		name = knownhosts.Normalize(name)
		k.exact[name] = append(k.exact[name], knownhosts.PublicKey{PublicKey: key})
	}
}

// lookUp returns the keys that exact has for an endpoint. If it has none for another port
// than 22, those without a port count, as for ssh.
func (k *knownHosts) lookUp(endpoint string) []knownhosts.PublicKey {
	if keys := k.exact[knownhosts.Normalize(endpoint)]; keys != nil {
		return keys
	}
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil
	}
	return k.exact[host]
}

// hostKeys returns the keys that are known for an endpoint.
func (k *knownHosts) hostKeys(endpoint string) []knownhosts.PublicKey {
	if k.exact != nil {
		return k.exact[knownhosts.Normalize(endpoint)]
	}
	return k.db.HostKeys(endpoint)
}

// algorithms returns the host key algorithms to ask a host for, by the keys that are
// known for it. A key that an authority signs may be of any type, whatever the
// authority's own is. Plain keys come last, so that the error of a host without a
// certificate can say so. A host that is not known is asked for its plain
// key, as only that can be added to known_hosts.
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

// location returns where a key is: FILE:LINE.
func (k *knownHosts) location(key xknownhosts.KnownKey) string {
	return fmt.Sprintf("%s:%d", cmp.Or(k.originals[key.Filename], key.Filename), key.Line)
}

// UnknownKeyError reports a host key that known_hosts does not hold for its host.
type UnknownKeyError struct {
	Key      ssh.PublicKey
	Name     string   // the host's, as known_hosts has it
	File     string   // to which the key is to be added
	Others   []string // hosts that have the same key, as known_hosts names them
	Hash     bool     // the name is to be hashed
	badLines []string // lines that were skipped
}

func (e *UnknownKeyError) Error() string {
	text := "its host key " + KeyString(e.Key) + " is not known"
	if len(e.badLines) > 0 {
		text += " (not to be read in known_hosts, and left out: " + strings.Join(e.badLines[:min(len(e.badLines), 3)], ", ") + ")"
	}
	return text
}

// Hint returns the command that helps with all such hosts.
func (e *UnknownKeyError) Hint() string {
	return "vsfleet trust shows the keys of all hosts that are not known, and adds those that you accept to known_hosts"
}

// Line returns the line of known_hosts that makes the key known.
func (e *UnknownKeyError) Line() string {
	if e.Hash {
		return knownhosts.Line([]string{xknownhosts.HashHostname(knownhosts.Normalize(e.Name))}, e.Key)
	}
	return knownhosts.Line([]string{e.Name}, e.Key)
}

// ChangedKeyError reports a host key that differs from the one in known_hosts.
type ChangedKeyError struct {
	Key  ssh.PublicKey
	text string
}

func (e *ChangedKeyError) Error() string { return e.text }

// KeyString returns a key as people compare it: its type and fingerprint.
func KeyString(key ssh.PublicKey) string { return key.Type() + " " + ssh.FingerprintSHA256(key) }

// check returns nil if the key that a host shows is known, else why it is not accepted.
func (k *knownHosts) check(endpoint string, remote net.Addr, key ssh.PublicKey) error {
	if slices.ContainsFunc(k.lookUp(endpoint), func(known knownhosts.PublicKey) bool {
		return bytes.Equal(known.Marshal(), key.Marshal())
	}) {
		return nil
	}
	err := k.db.HostKeyCallback()(endpoint, remote, key)
	var revoked *xknownhosts.RevokedError
	var mismatch *xknownhosts.KeyError
	shown := KeyString(key)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return fmt.Errorf("its host key %s is revoked by %s: do not connect", shown, k.location(revoked.Revoked))
	case !errors.As(err, &mismatch):
		return certError(endpoint, key, err)
	case len(mismatch.Want) == 0:
		return &UnknownKeyError{Key: key, Name: endpoint, File: k.file, Others: k.names[string(key.Marshal())], badLines: k.badLines}
	}
	var old, authorities []string
	for _, w := range mismatch.Want {
		if slices.ContainsFunc(k.hostKeys(endpoint), func(h knownhosts.PublicKey) bool {
			return h.Cert && bytes.Equal(h.Marshal(), w.Key.Marshal())
		}) {
			authorities = append(authorities, k.location(w))
			continue
		}
		old = append(old, fmt.Sprintf("%s has %s", k.location(w), KeyString(w.Key)))
	}
	if old == nil {
		return fmt.Errorf("it shows the plain host key %s, and known_hosts wants a certificate of the authority in %s: sign the host's key with it (ssh-keygen -s) and set HostCertificate there",
			shown, strings.Join(authorities, ", "))
	}
	file := cmp.Or(k.originals[mismatch.Want[0].Filename], mismatch.Want[0].Filename)
	return &ChangedKeyError{key, fmt.Sprintf("its host key has CHANGED: it shows %s, but %s; somebody may be between you and the host. If it was installed anew, compare the key there (ssh-keygen -lf %s) and remove the old one: ssh-keygen -f %s -R '%s'",
		shown, strings.Join(old, ", "), keyFile(key), file, knownhosts.Normalize(endpoint))}
}

// certError returns why a host's certificate is not accepted.
func certError(endpoint string, key ssh.PublicKey, err error) error {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return fmt.Errorf("host key %s: %w", KeyString(key), err)
	}
	host, _, _ := net.SplitHostPort(endpoint)
	if len(cert.ValidPrincipals) > 0 && !slices.Contains(cert.ValidPrincipals, host) {
		return fmt.Errorf("its host certificate is for %s, not for %s: set host_key_alias to the name that it has",
			joinNames(cert.ValidPrincipals), host)
	}
	return fmt.Errorf("its host certificate %q (by %s) is not valid: %w", Printable(cert.KeyId), KeyString(cert.SignatureKey), err)
}

// keyFile returns where sshd usually keeps a key of this type.
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
