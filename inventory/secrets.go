package inventory

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

// part is a piece of a file's content: a text, or a secret.
type part struct {
	text   string
	secret secret.Value
}

// Read returns the content of a file. Secrets in it must have been opened.
func (f *File) Read() ([]byte, error) {
	if f.parts == nil {
		return f.Content, nil
	}
	var all []byte
	for _, p := range f.parts {
		plain, err := p.secret.Reveal()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		all = append(append(all, p.text...), plain...)
	}
	if len(all) > MaxFile {
		return nil, fmt.Errorf("%s: with its secrets it has more than %d MiB", f.Path, MaxFile>>20)
	}
	return all, nil
}

// Sealed returns the encrypted values in files of these hosts' guests, without
// duplicates.
func Sealed(hosts []*Host) []secret.Value {
	var list []secret.Value
	seen := map[secret.Value]bool{}
	for _, h := range hosts {
		for _, g := range h.Guests {
			if g.State == Absent {
				continue
			}
			for i := range g.Files {
				for _, p := range g.Files[i].parts {
					if p.secret != (secret.Value{}) && !seen[p.secret] {
						seen[p.secret] = true
						list = append(list, p.secret)
					}
				}
			}
		}
	}
	return list
}

// Secrets returns the values that must not be shown or stored anywhere: the contents of
// secret files, and decrypted values.
func (inv *Inventory) Secrets() []string {
	var list []string
	seen := map[string]bool{"": true}
	add := func(plain []byte, err error) {
		if text := string(plain); err == nil && !seen[text] {
			seen[text] = true
			list = append(list, text)
		}
	}
	files := func(all []File) {
		for i := range all {
			f := &all[i]
			if !f.Secret {
				continue
			}
			add(f.Read())
			for _, p := range f.parts {
				add(p.secret.Reveal())
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(inv.images)) {
		files(inv.images[name].Files)
	}
	for _, h := range inv.Hosts {
		for _, g := range h.Guests {
			files(g.Files)
		}
	}
	return list
}

// isSecret reports whether a node has the tag of encrypted values.
func isSecret(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == secret.Tag && yamlpos.HasForeignTag(n)
}

// secret reads an encrypted value. Errors do not show a value that is not encrypted.
func (d *decoder) secret(name string, n *yaml.Node) (secret.Value, bool) {
	v, err := secret.New(d.At(n), []byte(n.Value))
	if err != nil {
		notSealed(d.Report, name, d.At(n), err)
		return v, false
	}
	return v, true
}

func notSealed(r *report, name string, pos Position, err error) {
	r.Hide(pos)
	r.Add(pos, "vsfleet inventory edit encrypts it in its place", "%s: the tag %s stands before an encrypted value: %v", name, secret.Tag, err)
}

var errImageSecret = errors.New("an image is kept on hosts and shared by guests: give the secret to the guests' files")

// seal makes the content of a file of these parts.
func (r *resolver) seal(f *File, pos Position, parts []part, image bool) {
	if image {
		r.fail(pos, "", "files: %v", errImageSecret)
		return
	}
	f.parts = parts
}

// size returns an upper bound of the size of a file in bytes.
func (f *File) size() int {
	n := len(f.Content)
	for _, p := range f.parts {
		n += len(p.text) + p.secret.Size()
	}
	return n
}

// holdsSecret sets the mode and secrecy of a file that holds secrets.
func (r *resolver) holdsSecret(spec *fileSpec, f *File) {
	if spec.secret.OK() && !spec.secret.Value {
		r.fail(spec.secret.Pos, "leave it out", "files: %s holds an encrypted value, so it is secret", yamlpos.Short(f.Path))
	}
	f.Secret = true
	if !spec.mode.OK() {
		f.Mode = 0o600
	}
}

// sealedFile returns the content of an encrypted file. All guests with the file share
// it.
func (b *builder) sealedFile(name string, data []byte) (secret.Value, error) {
	if v, known := b.sealed[name]; known {
		return v, nil
	}
	v, err := secret.New(Position{File: name}, data)
	if err != nil {
		return v, fmt.Errorf("%s: %w", name, err)
	}
	if b.sealed == nil {
		b.sealed = map[string]secret.Value{}
	}
	b.sealed[name] = v
	return v, nil
}
