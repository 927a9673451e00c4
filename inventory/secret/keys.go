package secret

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// DefaultFiles are the key files that are tried if none is named and that exist.
var DefaultFiles = []string{"~/.ssh/id_ed25519", "~/.ssh/id_rsa"}

// Keys decrypts values with the keys of some files.
type Keys struct {
	// Files hold age identities or SSH private keys; nil: DefaultFiles.
	Files []string
	// Passphrase asks for the passphrase of a file. If it is nil, a key with a
	// passphrase is an error.
	Passphrase func(ctx context.Context, file string) ([]byte, error)

	identities []age.Identity
	tried      []string
	loaded     bool
}

// Open decrypts values, so that Reveal returns them. If any cannot be decrypted, the
// error is a *yamlpos.Errors that names each of them.
func (k *Keys) Open(ctx context.Context, values []Value) error {
	report := &yamlpos.Report{}
	for _, v := range values {
		if v.sealed == nil || v.plain != nil {
			continue
		}
		if err := k.load(ctx); err != nil {
			return err
		}
		plain, err := k.decrypt(v)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			report.Failed(v.pos, err)
			continue
		}
		v.plain = func() []byte { return plain }
	}
	return report.Err()
}

func (k *Keys) decrypt(v Value) ([]byte, *yamlpos.Error) {
	plain, err := io.Reader(nil), error(&age.NoIdentityMatchError{})
	if len(k.identities) > 0 {
		plain, err = age.Decrypt(bytes.NewReader(v.data), k.identities...)
	}
	var none *age.NoIdentityMatchError
	var unusable *lockedError
	switch {
	case errors.As(err, &unusable):
		return nil, &yamlpos.Error{Msg: "this value is encrypted for a key that is not usable: " + unusable.Error(), Hint: unusable.hint}
	case errors.As(err, &none):
		return nil, k.noMatch(v)
	case err != nil:
		return nil, &yamlpos.Error{Msg: "this value cannot be decrypted: " + err.Error()}
	}
	text, err := io.ReadAll(io.LimitReader(plain, MaxBytes+1))
	switch {
	case err != nil:
		return nil, &yamlpos.Error{Msg: "this value is damaged: " + err.Error(), Hint: "encrypt it again with: vsfleet inventory encrypt"}
	case len(text) > MaxBytes:
		return nil, &yamlpos.Error{Msg: fmt.Sprintf("this value has more than %d MiB", MaxBytes>>20)}
	}
	return text, nil
}

// noMatch returns an error with the recipients of a value and the keys that were tried.
func (k *Keys) noMatch(v Value) *yamlpos.Error {
	var list []string
	for _, r := range v.recipients() {
		if r.kind == kinds["scrypt"] {
			return &yamlpos.Error{Msg: "this value is encrypted with a passphrase", Hint: "vsfleet takes keys alone: encrypt it again with vsfleet inventory encrypt"}
		}
		list = append(list, r.String())
	}
	tried := "there is no key here"
	if len(k.tried) > 0 {
		tried = "tried " + strings.Join(k.tried, ", ")
	}
	return &yamlpos.Error{
		Msg:  fmt.Sprintf("no key here opens this value: it is encrypted for %s; %s", strings.Join(list, ", "), tried),
		Hint: "name the key with --age-identity FILE or VSFLEET_AGE_IDENTITY; an agent cannot decrypt",
	}
}

// load reads the files of keys, once.
func (k *Keys) load(ctx context.Context) error {
	if k.loaded {
		return nil
	}
	files, named := k.Files, len(k.Files) > 0
	if !named {
		files = DefaultFiles
	}
	for _, file := range files {
		path, err := expandHome(file)
		var data []byte
		if err == nil {
			data, err = os.ReadFile(path)
		}
		if errors.Is(err, fs.ErrNotExist) && !named {
			continue
		}
		if err != nil {
			return &yamlpos.Error{Msg: "read age identity: " + err.Error()}
		}
		list, err := k.parse(ctx, file, data)
		if err != nil && !named {
			k.tried = append(k.tried, fmt.Sprintf("%s (%v)", file, err))
			continue
		}
		if err != nil {
			return &yamlpos.Error{Msg: fmt.Sprintf("age identity %s: %v", file, err)}
		}
		k.identities, k.tried = append(k.identities, list...), append(k.tried, file)
	}
	k.loaded = true
	return nil
}

// parse returns the identities that a file holds.
func (k *Keys) parse(ctx context.Context, file string, data []byte) ([]age.Identity, error) {
	switch {
	case IsSealed(data):
		data, err := unarmored(data)
		if err != nil {
			return nil, err
		}
		return []age.Identity{&locked{
			wants: func(s *age.Stanza) bool { return s.Type == "X25519" || s.Type == "mlkem768x25519" },
			unlock: func() ([]age.Identity, error) {
				return k.ask(ctx, file, func(words []byte) ([]age.Identity, error) { return unlockAge(data, words) })
			},
		}}, nil
	case bytes.Contains(data, []byte("PRIVATE KEY-----")):
		id, err := k.sshKey(ctx, file, data)
		return []age.Identity{id}, err
	case bytes.HasPrefix(data, []byte("ssh-")), bytes.HasPrefix(data, []byte("age1")):
		return nil, errors.New("this is the public half of a key; decryption needs the private one")
	}
	list, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		return nil, errors.New("want AGE-SECRET-KEY-1… lines or an SSH private key (ed25519 or rsa)") // err quotes the file
	}
	return list, nil
}

// sshKey returns the identity of an SSH private key. A passphrase is asked for when
// the key is needed.
func (k *Keys) sshKey(ctx context.Context, file string, data []byte) (age.Identity, error) {
	id, err := agessh.ParseIdentity(data)
	var missing *ssh.PassphraseMissingError
	if !errors.As(err, &missing) {
		return id, err
	}
	public := missing.PublicKey
	if public == nil { // the older PEM form keeps its public half beside it
		path, err := expandHome(file)
		if err != nil {
			return nil, err
		}
		line, err := os.ReadFile(path + ".pub")
		if err != nil {
			return nil, fmt.Errorf("its public half is needed: %w", err)
		}
		if public, _, _, _, err = ssh.ParseAuthorizedKey(line); err != nil {
			return nil, fmt.Errorf("%s.pub: %w", file, err)
		}
	}
	tag := sshTag(public)
	return &locked{
		wants: func(s *age.Stanza) bool { return s.Type == public.Type() && len(s.Args) > 0 && s.Args[0] == tag },
		unlock: func() ([]age.Identity, error) {
			return k.ask(ctx, file, func(words []byte) ([]age.Identity, error) { return unlockSSH(data, words) })
		},
	}, nil
}

// sshTag returns the part of an SSH key's hash that age stores with values.
func sshTag(public ssh.PublicKey) string {
	hash := sha256.Sum256(public.Marshal())
	return base64.RawStdEncoding.EncodeToString(hash[:4])
}

// locked is a key that is protected by a passphrase.
type locked struct {
	wants  func(*age.Stanza) bool // reports whether a value may be encrypted for the key
	unlock func() ([]age.Identity, error)

	done bool
	keys []age.Identity
	err  error
}

// Unwrap unlocks the key the first time that a value needs it.
func (l *locked) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if !slices.ContainsFunc(stanzas, l.wants) {
		return nil, age.ErrIncorrectIdentity
	}
	if !l.done {
		l.keys, l.err = l.unlock()
		l.done = true
	}
	if l.err != nil {
		return nil, l.err
	}
	for _, key := range l.keys {
		if fileKey, err := key.Unwrap(stanzas); !errors.Is(err, age.ErrIncorrectIdentity) {
			return fileKey, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// lockedError is a key that cannot be unlocked.
type lockedError struct{ msg, hint string }

func (e *lockedError) Error() string { return e.msg }

// maxTries is how many times a passphrase is asked for.
const maxTries = 3

// ask asks for a passphrase until it unlocks a key.
func (k *Keys) ask(ctx context.Context, file string, unlock func([]byte) ([]age.Identity, error)) ([]age.Identity, error) {
	if k.Passphrase == nil {
		return nil, &lockedError{file + " has a passphrase, and there is no terminal to ask for it", "name a key without one with --age-identity, or run vsfleet from a terminal"}
	}
	for range maxTries {
		words, err := k.Passphrase(ctx, file)
		if err != nil {
			return nil, &lockedError{err.Error(), ""}
		}
		if keys, err := unlock(words); err == nil {
			return keys, nil
		}
	}
	return nil, &lockedError{"this is not the passphrase of " + file, ""}
}

func unlockSSH(data, words []byte) ([]age.Identity, error) {
	raw, err := ssh.ParseRawPrivateKeyWithPassphrase(data, words)
	if err != nil {
		return nil, err
	}
	var id age.Identity
	switch key := raw.(type) {
	case *ed25519.PrivateKey:
		id, err = agessh.NewEd25519Identity(*key)
	case *rsa.PrivateKey:
		id, err = agessh.NewRSAIdentity(key)
	default:
		err = fmt.Errorf("a key of type %T decrypts nothing", raw)
	}
	return []age.Identity{id}, err
}

func unlockAge(data, words []byte) ([]age.Identity, error) {
	id, err := age.NewScryptIdentity(string(words))
	if err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		return nil, err
	}
	return age.ParseIdentities(io.LimitReader(plain, MaxBytes))
}

func expandHome(name string) (string, error) {
	rest, ok := strings.CutPrefix(name, "~/")
	if !ok {
		return name, nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, rest), err
}
