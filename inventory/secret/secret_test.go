package secret

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

const plain = "hunter2 is my password\n"

// keyFile writes a private key and returns its file and its recipient.
func keyFile(t *testing.T, key any, words string) (file string, to age.Recipient) {
	t.Helper()
	var block *pem.Block
	var err error
	if words == "" {
		block, err = ssh.MarshalPrivateKey(key, "eve@laptop")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "eve@laptop", []byte(words))
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	to, err = ParseRecipient(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	if err != nil {
		t.Fatal(err)
	}
	return file, to
}

func newEd25519(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ageKey(t *testing.T) (file string, to age.Recipient) {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "age")
	if err := os.WriteFile(file, []byte("# made by a test\n"+key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, key.Recipient()
}

func value(t *testing.T, to ...age.Recipient) Value {
	t.Helper()
	text, err := Seal([]byte(plain), to)
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(yamlpos.Position{File: "fleet.yml", Line: 3, Column: 7}, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEachKindOfKeyOpensWhatIsEncryptedForIt(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ageWithPassphrase := func(t *testing.T) (string, age.Recipient) {
		file, to := ageKey(t)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		with, err := age.NewScryptRecipient("open sesame")
		if err != nil {
			t.Fatal(err)
		}
		with.SetWorkFactor(10)
		sealed, err := Seal(text, []age.Recipient{with})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, sealed, 0o600); err != nil {
			t.Fatal(err)
		}
		return file, to
	}
	for _, row := range []struct {
		name  string
		key   func(t *testing.T) (string, age.Recipient)
		asked int
	}{
		{"an age key", ageKey, 0},
		{"an SSH key", func(t *testing.T) (string, age.Recipient) { return keyFile(t, newEd25519(t), "") }, 0},
		{"an RSA key", func(t *testing.T) (string, age.Recipient) { return keyFile(t, rsaKey, "") }, 0},
		{"an SSH key with a passphrase", func(t *testing.T) (string, age.Recipient) { return keyFile(t, newEd25519(t), "open sesame") }, 1},
		{"an RSA key with a passphrase", func(t *testing.T) (string, age.Recipient) { return keyFile(t, rsaKey, "open sesame") }, 1},
		{"an age key with a passphrase", ageWithPassphrase, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			file, to := row.key(t)
			other, _ := ageKey(t)
			asked := 0
			keys := &Keys{Files: []string{other, file}, Passphrase: func(context.Context, string) ([]byte, error) {
				asked++
				return []byte("open sesame"), nil
			}}
			_, somebody := ageKey(t)
			values := []Value{value(t, to), value(t, somebody, to), {}}
			if err := keys.Open(t.Context(), values); err != nil {
				t.Fatal(err)
			}
			for i, want := range []string{plain, plain, ""} {
				if got, err := values[i].Reveal(); err != nil || string(got) != want {
					t.Errorf("value %d is %q, %v", i, got, err)
				}
			}
			if asked != row.asked {
				t.Errorf("%d passphrases were asked for, want %d", asked, row.asked)
			}
		})
	}
}

func TestAPassphraseIsAskedForOnlyIfItIsNeeded(t *testing.T) {
	locked, _ := keyFile(t, newEd25519(t), "open sesame")
	file, to := ageKey(t)
	keys := &Keys{Files: []string{locked, file}, Passphrase: func(context.Context, string) ([]byte, error) {
		t.Error("it was asked for")
		return nil, errors.New("no")
	}}
	if err := keys.Open(t.Context(), []Value{value(t, to)}); err != nil {
		t.Error(err)
	}
}

func TestValuesThatNoKeyOpens(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	file, _ := ageKey(t)
	locked, toLocked := keyFile(t, newEd25519(t), "open sesame")
	_, toSSH := keyFile(t, newEd25519(t), "")
	_, toAge := ageKey(t)
	v := value(t, toSSH, toAge)
	tag := v.recipients()[0].tag
	damaged := value(t, toLocked)
	damaged.data[len(damaged.data)-1] ^= 1
	wrong, asked := func(context.Context, string) ([]byte, error) { return []byte("close sesame"), nil }, 0
	for _, row := range []struct {
		name   string
		keys   Keys
		values []Value
		want   string
	}{
		{"no key at all", Keys{}, []Value{v},
			"fleet.yml:3:7: no key here opens this value: it is encrypted for ssh-ed25519 " + tag + ", an age key; there is no key here (name the key with --age-identity FILE or VSFLEET_AGE_IDENTITY; an agent cannot decrypt)"},
		{"another key", Keys{Files: []string{file}}, []Value{v},
			"fleet.yml:3:7: no key here opens this value: it is encrypted for ssh-ed25519 " + tag + ", an age key; tried " + file + " (name the key with --age-identity FILE or VSFLEET_AGE_IDENTITY; an agent cannot decrypt)"},
		{"a key with a passphrase and no terminal", Keys{Files: []string{locked}}, []Value{value(t, toLocked)},
			"fleet.yml:3:7: this value is encrypted for a key that is not usable: " + locked + " has a passphrase, and there is no terminal to ask for it (name a key without one with --age-identity, or run vsfleet from a terminal)"},
		{"a wrong passphrase, which is asked for three times for all values", Keys{Files: []string{locked}, Passphrase: func(ctx context.Context, f string) ([]byte, error) { asked++; return wrong(ctx, f) }},
			[]Value{value(t, toLocked), value(t, toLocked)}, "fleet.yml:3:7: this value is encrypted for a key that is not usable: this is not the passphrase of " + locked},
		{"a key that is not there", Keys{Files: []string{"nowhere"}}, []Value{v}, "read age identity: open nowhere: no such file or directory"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.keys.Open(t.Context(), row.values)
			if err == nil || err.Error() != row.want {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
			if _, err := row.values[0].Reveal(); err == nil {
				t.Error("it is revealed")
			}
		})
	}
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
	keys := Keys{Files: []string{locked}, Passphrase: func(context.Context, string) ([]byte, error) { return []byte("open sesame"), nil }}
	if err := keys.Open(t.Context(), []Value{damaged}); err == nil || !strings.Contains(err.Error(), "this value is damaged") {
		t.Error(err)
	}
}

// A value that was opened is not in anything that prints it.
func TestValuesAreRedactedHoweverTheyArePrinted(t *testing.T) {
	file, to := ageKey(t)
	v := value(t, to)
	if err := (&Keys{Files: []string{file}}).Open(t.Context(), []Value{v}); err != nil {
		t.Fatal(err)
	}
	type inner struct{ v Value }
	type outer struct {
		Value Value
		Any   any
		in    inner
		List  []Value
		Map   map[string]Value
	}
	o := outer{v, v, inner{v}, []Value{v}, map[string]Value{"a": v}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", v, o, &o)
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		text, err := marshal(o)
		if err != nil || !bytes.Contains(text, []byte(Redacted)) {
			t.Errorf("%s, %v", text, err)
		}
		out.Write(text)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v, "o", o)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v, "o", o)
	for _, form := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), "104 117 110", "aHVudGVyM"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%s is in %s", form, out.String())
		}
	}
}

func TestRecipients(t *testing.T) {
	_, one := ageKey(t)
	if list, err := ParseRecipients(".age-recipients", []byte("# us\n\n"+fmt.Sprint(one)+"\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN eve\n")); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	for _, row := range []struct{ name, text, want string }{
		{"nobody", "# none\n", ".age-recipients: it names nobody (want lines of age1…, ssh-ed25519 … or ssh-rsa …)"},
		{"a word", "eve\n", `.age-recipients:1:1: "eve" is not a recipient: want age1…, ssh-ed25519 … or ssh-rsa …`},
		{"a key that cannot encrypt", "ssh-dss AAAA\n", `.age-recipients:1:1: "ssh-dss AAAA" is not a supported SSH public key: want ssh-ed25519 or ssh-rsa`},
		{"a private key is not quoted", "\nAGE-SECRET-KEY-1QQQ\n", ".age-recipients:2:1: this is a private key: recipients are public keys"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := ParseRecipients(".age-recipients", []byte(row.text)); err == nil || err.Error() != row.want {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
		})
	}
}

func FuzzNew(f *testing.F) {
	f.Add([]byte(armor.Header + "\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCg==\n" + armor.Footer))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 a\n\n--- x\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := New(yamlpos.Position{File: "f", Line: 1, Column: 1}, text)
		if err != nil {
			return
		}
		if err := (&Keys{Files: []string{os.DevNull}}).Open(t.Context(), []Value{v}); err == nil {
			t.Errorf("%q was opened without a key", text)
		}
	})
}

func FuzzRecipients(f *testing.F) {
	f.Add([]byte("# x\nage1qqq\nssh-ed25519 AAAA x\nssh-rsa \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ParseRecipients("f", text)
		if err == nil && len(list) == 0 {
			t.Errorf("%q names nobody", text)
		}
	})
}
