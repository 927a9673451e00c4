package transport

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"
)

// revokedKeys are the keys of a file of RevokedHostKeys, by their bytes.
type revokedKeys map[string]bool

// has reports whether a key, the key of a certificate or that of its authority is
// revoked.
func (r revokedKeys) has(key ssh.PublicKey) bool {
	if cert, ok := key.(*ssh.Certificate); ok && (r.has(cert.Key) || r.has(cert.SignatureKey)) {
		return true
	}
	return r[string(key.Marshal())]
}

func (d *Dialer) revokedKeys(s Settings) (revokedKeys, error) {
	if s.HostKeys.Revoked == "" {
		return nil, nil
	}
	return d.revoked.get(s.HostKeys.Revoked, readRevokedKeys)
}

// readRevokedKeys reads a list of keys, one per line. A file that cannot be read is an
// error: it may revoke any key.
func readRevokedKeys(path string) (revokedKeys, error) {
	file, err := expandHome(path)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read revoked host keys: %w", err)
	}
	if bytes.HasPrefix(b, []byte("SSHKRL\n\x00")) {
		return nil, fmt.Errorf("read revoked host keys: %s is a KRL, which vsfleet cannot read: list the public keys, one per line", file)
	}
	keys := revokedKeys{}
	for i, line := range bytes.Split(b, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			return nil, fmt.Errorf("read revoked host keys: %s:%d: %w", file, i+1, err)
		}
		keys[string(key.Marshal())] = true
	}
	return keys, nil
}
