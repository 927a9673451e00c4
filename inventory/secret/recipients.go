package secret

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Seal encrypts a text for recipients, with armor.
func Seal(plain []byte, to []age.Recipient) ([]byte, error) {
	if len(plain) > MaxBytes {
		return nil, fmt.Errorf("it has more than %d MiB", MaxBytes>>20)
	}
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	w, err := age.Encrypt(armored, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := armored.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// RecipientsFile is the name of the file, beside an inventory, that lists the public
// keys for which values are encrypted.
const RecipientsFile = ".age-recipients"

// ParseRecipients reads recipients, one per line: age1…, ssh-ed25519 … or ssh-rsa ….
// Lines that begin with # are comments.
func ParseRecipients(file string, data []byte) ([]age.Recipient, error) {
	var list []age.Recipient
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		r, err := ParseRecipient(line)
		if err != nil {
			return nil, &yamlpos.Error{Pos: yamlpos.Position{File: file, Line: i + 1, Column: 1}, Msg: err.Error()}
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		return nil, &yamlpos.Error{Pos: yamlpos.Position{File: file}, Msg: "it names nobody", Hint: "want lines of age1…, ssh-ed25519 … or ssh-rsa …"}
	}
	return list, nil
}

// ParseRecipient reads one recipient.
func ParseRecipient(s string) (age.Recipient, error) {
	if strings.HasPrefix(s, "AGE-SECRET-KEY-") || strings.Contains(s, "PRIVATE KEY") {
		return nil, errors.New("this is a private key: recipients are public keys") // not to be quoted
	}
	if strings.HasPrefix(s, "ssh-") {
		r, err := agessh.ParseRecipient(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a supported SSH public key: want ssh-ed25519 or ssh-rsa", yamlpos.Short(s))
		}
		return r, nil
	}
	if list, err := age.ParseRecipients(strings.NewReader(s)); err == nil && len(list) == 1 {
		return list[0], nil
	}
	return nil, fmt.Errorf("%q is not a recipient: want age1…, ssh-ed25519 … or ssh-rsa …", yamlpos.Short(s))
}
