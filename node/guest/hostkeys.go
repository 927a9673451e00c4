package guest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

// giveHostKey gives a new guest whose image has an sshd a host key of its own. Debian's
// package makes keys when it is installed, which happened in the image, where one key
// for all guests would let each impersonate the others; and only some inits can be told
// to make keys at the first boot.
func (h *Host) giveHostKey(ctx context.Context, g api.Guest) error {
	if g.Image == "" {
		return nil
	}
	spec, err := h.spec(ctx, Config{Guest: g, Root: h.rootDir(g.Name)})
	if err != nil {
		return nil // the start reports what is wrong with it
	}
	image, err := spec.Root.Names(ctx)
	if err != nil {
		return err
	}
	defer image.Close()
	has := func(name string) (bool, error) {
		f, err := (rootfs.Dir{Root: image}).Open(name, unix.O_PATH)
		if err != nil {
			// A path that leads nowhere, or through something that is not a directory,
			// means no sshd either.
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				err = nil
			}
			return false, err
		}
		return true, f.Close()
	}
	if on, err := has("/usr/sbin/sshd"); err != nil || !on {
		return err
	}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		if there, err := has("/etc/ssh/ssh_host_" + kind + "_key"); err != nil || there {
			return err
		}
	}
	private, public, err := newHostKey("root@" + g.Name)
	if err != nil {
		return err
	}
	root, err := spec.Root.Open(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	const name = "/etc/ssh/ssh_host_ed25519_key"
	for _, f := range []api.File{
		{Path: name + ".pub", Content: public, Mode: 0o644, Owner: "0:0"},
		{Path: name, Content: private, Mode: 0o600, Owner: "0:0"},
	} {
		if err := (rootfs.Dir{Root: root}).Write(f); err != nil {
			return fmt.Errorf("%s: %w", path.Base(f.Path), err)
		}
	}
	return nil
}

// newHostKey makes an unencrypted ed25519 key in ssh-keygen's format (OpenSSH's
// PROTOCOL.key).
func newHostKey(comment string) (private, public []byte, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	const kind = "ssh-ed25519"
	text := func(b, s []byte) []byte { return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...) }
	blob := text(text(nil, []byte(kind)), pub)

	var check [4]byte
	rand.Read(check[:]) // never fails (crypto/rand)
	secret := append(check[:], check[:]...)
	for _, field := range [][]byte{[]byte(kind), pub, key, []byte(comment)} {
		secret = text(secret, field)
	}
	for pad := byte(1); len(secret)%8 != 0; pad++ {
		secret = append(secret, pad)
	}
	out := []byte("openssh-key-v1\x00")
	for _, field := range []string{"none", "none", ""} { // cipher, kdf and its options
		out = text(out, []byte(field))
	}
	out = binary.BigEndian.AppendUint32(out, 1) // key
	out = text(text(out, blob), secret)
	private = pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: out})
	return private, []byte(kind + " " + base64.StdEncoding.EncodeToString(blob) + " " + comment + "\n"), nil
}
