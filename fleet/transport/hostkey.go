package transport

import (
	"errors"
	"fmt"
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
	file string // where a new one belongs
}

// readKnownHosts parses a known_hosts file, or the usual ones for "".
func readKnownHosts(path string) (*knownHosts, error) {
	file, err := home(path)
	if err != nil {
		return nil, err
	}
	files := []string{file}
	if path == "" {
		if file, err = home("~/.ssh/known_hosts"); err != nil {
			return nil, err
		}
		// Neither has to be there: then no host is known.
		files = slices.DeleteFunc([]string{file, "/etc/ssh/ssh_known_hosts"}, func(f string) bool {
			_, err := os.Stat(f)
			return errors.Is(err, os.ErrNotExist)
		})
	}
	db, err := knownhosts.NewDB(files...)
	if err != nil {
		return nil, fmt.Errorf("read known hosts: %w", err)
	}
	return &knownHosts{db: db, file: file}, nil
}

// check is an ssh.HostKeyCallback that says what to do.
func (k *knownHosts) check(endpoint string, remote net.Addr, key ssh.PublicKey) error {
	err := k.db.HostKeyCallback()(endpoint, remote, key)
	var revoked *xknownhosts.RevokedError
	var mismatch *xknownhosts.KeyError
	shown := key.Type() + " " + ssh.FingerprintSHA256(key)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return fmt.Errorf("its host key %s is revoked by %s:%d: do not connect", shown, revoked.Revoked.Filename, revoked.Revoked.Line)
	case !errors.As(err, &mismatch):
		return fmt.Errorf("host key %s: %w", shown, err)
	case len(mismatch.Want) == 0:
		return fmt.Errorf("its host key %s is not known: compare it with the host's own (there: ssh-keygen -lf %s), then add to %s: %s",
			shown, keyFile(key), k.file, knownhosts.Line([]string{endpoint}, key))
	}
	var old []string
	for _, w := range mismatch.Want {
		old = append(old, fmt.Sprintf("%s:%d has %s %s", w.Filename, w.Line, w.Key.Type(), ssh.FingerprintSHA256(w.Key)))
	}
	return fmt.Errorf("its host key has CHANGED: it shows %s, but %s; somebody may be between you and the host. If it was installed anew, compare the key there (ssh-keygen -lf %s) and remove the old one: ssh-keygen -f %s -R '%s'",
		shown, strings.Join(old, ", "), keyFile(key), mismatch.Want[0].Filename, knownhosts.Normalize(endpoint))
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
