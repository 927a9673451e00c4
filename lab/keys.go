package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/crypto/ssh"
)

// keyPair reads the OpenSSH key at path, or makes one; path+".pub" holds its
// public half. It returns both as they stand in their files.
func keyPair(path, comment string) (private, public []byte, err error) {
	private, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		private, err = newKey(comment)
		if err == nil {
			err = writeFile(path, private, 0o600)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return nil, nil, &os.PathError{Op: "read key", Path: path, Err: err}
	}
	public = ssh.MarshalAuthorizedKey(signer.PublicKey()) // ends with a newline
	return private, public, writeFile(path+".pub", public, 0o644)
}

func newKey(comment string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}
