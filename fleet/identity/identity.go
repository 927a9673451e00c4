package identity

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"
)

// A Change is from one guest to another one.
type Change struct {
	// Names are words of /etc/hostname and /etc/hosts and what they become: hostnames,
	// addresses.
	Names map[string]string
	// Host is in the comment of keys.
	Host string

	machine string            // id
	public  map[string][]byte // keys, by kind
}

// maxFile is how long a file with an identity may be.
const maxFile = 1 << 20

const below = "root/"

// Has reports whether a file of the guest, by its path without a slash at its front, has
// something of its identity.
func Has(name string) bool {
	switch name {
	case "etc/hostname", "etc/hosts", "etc/machine-id", "var/lib/dbus/machine-id":
		return true
	}
	return strings.HasPrefix(name, "etc/ssh/ssh_host_")
}

// Apply copies a guest's own files, as vsnode sends them, from r to w, and changes them.
func (c *Change) Apply(ctx context.Context, r io.Reader, w io.Writer) error {
	head := bufio.NewReaderSize(r, 1<<16)
	if _, err := head.Peek(1); err != nil {
		return fmt.Errorf("read the files: %w", err)
	}
	in, err := zstd.NewReader(head, zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(4<<20), zstd.WithEncoderCRC(true))
	if err != nil {
		return err
	}
	from, to := tar.NewReader(in), tar.NewWriter(out)
	buf := make([]byte, 1<<18)
	for {
		h, err := from.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		content := io.Reader(from)
		if name, ok := strings.CutPrefix(h.Name, below); ok && Has(name) && h.Typeflag == tar.TypeReg && h.Size > 0 {
			changed, keep, err := c.file(name, h.Size, from)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if !keep {
				continue
			}
			h.Size, content = int64(len(changed)), bytes.NewReader(changed)
		}
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.CopyBuffer(to, content, buf); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(in, 1<<20)); err != nil { // the frame's checksum
		return err
	}
	return errors.Join(to.Close(), out.Close())
}

// file returns what a file becomes; not keep: it is left out.
func (c *Change) file(name string, size int64, r io.Reader) (changed []byte, keep bool, err error) {
	if size > maxFile {
		return nil, false, fmt.Errorf("it has %d bytes, which no such file has", size)
	}
	old, err := io.ReadAll(r)
	if err != nil {
		return nil, false, err
	}
	switch {
	case name == "etc/hostname" || name == "etc/hosts":
		return c.words(old), true, nil
	case strings.HasSuffix(name, "machine-id"):
		if len(bytes.TrimSpace(old)) != 32 { // "uninitialized"
			return old, true, nil
		}
		if c.machine == "" {
			c.machine, err = newMachine()
		}
		return []byte(c.machine + "\n"), true, err
	}
	return c.key(strings.TrimPrefix(name, "etc/ssh/ssh_host_"), old)
}

// words replaces words.
func (c *Change) words(text []byte) []byte {
	var b bytes.Buffer
	blank := func(r byte) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }
	for len(text) > 0 {
		n := slices.IndexFunc(text, blank)
		if n < 0 {
			n = len(text)
		}
		word := string(text[:n])
		if to, known := c.Names[word]; known && word != "" {
			word = to
		}
		b.WriteString(word)
		if text = text[n:]; len(text) > 0 {
			b.WriteByte(text[0])
			text = text[1:]
		}
	}
	return b.Bytes()
}

// newMachine returns a machine id (machine-id(5)): a random UUID without its hyphens.
func newMachine() (string, error) {
	var id [16]byte
	_, err := rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return hex.EncodeToString(id[:]), err
}

// key makes a key in the place of one of sshd's: "rsa_key" or "rsa_key.pub". What belongs to
// the old keys only, such as certificates, is left out.
func (c *Change) key(name string, old []byte) (changed []byte, keep bool, err error) {
	if kind, private := strings.CutSuffix(name, "_key"); private {
		changed, err = c.newKey(kind, old)
		return changed, err == nil && changed != nil, err
	}
	if kind, public := strings.CutSuffix(name, "_key.pub"); public { // which follows
		return c.public[kind], c.public[kind] != nil, nil
	}
	return nil, false, nil
}

func (c *Change) newKey(kind string, old []byte) ([]byte, error) {
	var private crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		curve := elliptic.P256()
		if was, perr := ssh.ParsePrivateKey(old); perr == nil {
			switch was.PublicKey().Type() {
			case ssh.KeyAlgoECDSA384:
				curve = elliptic.P384()
			case ssh.KeyAlgoECDSA521:
				curve = elliptic.P521()
			}
		}
		private, err = ecdsa.GenerateKey(curve, rand.Reader)
	case "rsa":
		const bits = 3072 // as ssh-keygen(1)
		private, err = rsa.GenerateKey(rand.Reader, bits)
	default: // dsa, which no sshd takes any more, and what is to come
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	comment := "root@" + c.Host
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, err
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	if c.public == nil {
		c.public = map[string][]byte{}
	}
	c.public[kind] = append(bytes.TrimSuffix(ssh.MarshalAuthorizedKey(public), []byte("\n")), " "+comment+"\n"...)
	return pem.EncodeToMemory(block), nil
}
