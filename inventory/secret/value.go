package secret

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Tag marks encrypted values in YAML.
const Tag = "!age"

// Redacted stands for a value wherever it is printed.
const Redacted = "(secret)"

// MaxBytes is the longest text that may be encrypted.
const MaxBytes = 1 << 20

// Value is a text that is encrypted in a file. Copies share the decrypted text. The
// zero value is an empty text.
type Value struct {
	*sealed
}

type sealed struct {
	pos  yamlpos.Position
	data []byte // as age made it, without armor
	// plain returns the text; nil before the value is opened. It is a function so that
	// package fmt, which looks into unexported fields, finds no text.
	plain func() []byte
}

// New returns the value of a text encrypted by age, with or without armor.
func New(pos yamlpos.Position, text []byte) (Value, error) {
	data, err := unarmored(text)
	if err != nil {
		return Value{}, err
	}
	if _, err := age.ExtractHeader(bytes.NewReader(data)); err != nil {
		return Value{}, errDamaged
	}
	return Value{&sealed{pos: pos, data: data}}, nil
}

// Opened returns a Value for a text that is not encrypted but must not be shown.
func Opened(pos yamlpos.Position, plain string) Value {
	return Value{&sealed{pos: pos, plain: func() []byte { return []byte(plain) }}}
}

var (
	errPlain   = errors.New("it is not encrypted")
	errDamaged = errors.New("it is encrypted, but damaged")
)

// IsSealed reports whether a text was encrypted by age.
func IsSealed(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return bytes.HasPrefix(text, []byte(armor.Header)) || bytes.HasPrefix(text, []byte("age-encryption.org/"))
}

func unarmored(text []byte) ([]byte, error) {
	switch {
	case !IsSealed(text):
		return nil, errPlain
	case len(text) > 2*MaxBytes:
		return nil, fmt.Errorf("it has more than %d MiB", MaxBytes>>20)
	case bytes.HasPrefix(text, []byte("age-encryption.org/")):
		return text, nil
	}
	data, err := io.ReadAll(armor.NewReader(bytes.NewReader(text)))
	if err != nil {
		return nil, errDamaged
	}
	return data, nil
}

// Reveal returns the text. It must not be printed.
func (v Value) Reveal() ([]byte, error) {
	if v.sealed == nil {
		return nil, nil
	}
	if v.plain == nil {
		return nil, fmt.Errorf("%s: the value is still encrypted", v.pos)
	}
	return v.plain(), nil
}

// Pos returns the position of the value.
func (v Value) Pos() yamlpos.Position { return v.pos }

// Size returns an upper bound of the length of the text, in bytes.
func (v Value) Size() int {
	if v.sealed == nil {
		return 0
	}
	if v.plain != nil {
		return len(v.plain())
	}
	return len(v.data)
}

// String returns "(secret)".
func (Value) String() string { return Redacted }

// GoString returns "(secret)".
func (Value) GoString() string { return Redacted }

// Format writes "(secret)" for every verb.
func (Value) Format(s fmt.State, _ rune) { io.WriteString(s, Redacted) }

// MarshalText returns "(secret)", for JSON, YAML and other encodings.
func (Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// recipient is one of those that a value is encrypted for.
type recipient struct {
	kind string // of the key
	tag  string // a part of the hash of an SSH key; "" for others, which stay anonymous
}

func (r recipient) String() string { return strings.TrimSpace(r.kind + " " + r.tag) }

// kinds names age's kinds of keys as people know them.
var kinds = map[string]string{
	"X25519": "an age key", "mlkem768x25519": "a post-quantum age key", "ssh-ed25519": "ssh-ed25519", "ssh-rsa": "ssh-rsa", "scrypt": "a passphrase",
}

// recipients returns the recipients of the value.
func (v Value) recipients() []recipient {
	reader := &stanzas{}
	_, _ = age.Decrypt(bytes.NewReader(v.data), reader) // it only looks
	return reader.found
}

// stanzas is an identity that decrypts nothing and records the recipients of a value.
type stanzas struct{ found []recipient }

func (s *stanzas) Unwrap(list []*age.Stanza) ([]byte, error) {
	for _, one := range list {
		kind, known := kinds[one.Type]
		if strings.HasSuffix(one.Type, "-grease") {
			continue // of nobody: it is there so that programs bear unknown kinds
		}
		if !known { // of a plugin
			kind = yamlpos.Short(one.Type)
		}
		r := recipient{kind: kind}
		if strings.HasPrefix(one.Type, "ssh-") && len(one.Args) > 0 && len(one.Args[0]) == tagLength {
			r.tag = one.Args[0]
		}
		s.found = append(s.found, r)
	}
	return nil, age.ErrIncorrectIdentity
}

// tagLength is that of four bytes of a hash.
var tagLength = base64.RawStdEncoding.EncodedLen(4)
