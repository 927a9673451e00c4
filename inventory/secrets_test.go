package inventory

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/vsfleet/vsfleet/inventory/secret"
)

// sealing makes a key in dir, and returns the keys that hold it and a function that
// encrypts for it.
func sealing(t testing.TB, dir string) (*secret.Keys, func(text string, indent int) string) {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte(key.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return &secret.Keys{Files: []string{file}}, func(text string, indent int) string {
		sealed, err := secret.Seal([]byte(text), []age.Recipient{key.Recipient()})
		if err != nil {
			t.Fatal(err)
		}
		if indent < 0 {
			return string(sealed)
		}
		return secret.Block(string(sealed), indent)
	}
}

func TestSecretsOfFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	keys, seal := sealing(t, ".")
	write(t, ".", "site.key.age", seal("the key\n", -1))
	write(t, ".", "db.conf", "user=${guest.name}\npassword=${vars.password}\ntoken=${vars.token}\n")
	if err := os.Mkdir("group_vars", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, ".", "group_vars/web.yml", "token: "+seal("t0ken", 2)+"\n")
	write(t, ".", "fleet.yml", `
hosts: {a: {}, b: {}}
groups:
  web:
    hosts: [a, b]
    vars:
      plain: x
      password: `+seal("hunter2", 8)+`
images: {deb: {method: template, args: [-t, /srv/box.tar]}}
guests:
  www:
    on: web
    image: deb
    files:
      /etc/a: {content: "pw ${vars.password} of ${host.name}\n"}
      /etc/b: {template: db.conf, mode: 0640}
      /etc/c: {source: site.key.age}
      /etc/d: {content: "${vars.plain}"}
      /etc/e:
        owner: www-data
        content: `+seal("whole", 10)+`
      /etc/f: {content: "${vars.none:-${vars.password}}"}
  gone: {on: b, image: deb, state: absent, files: {/etc/a: {content: "${vars.password}"}}}
`)
	inv, err := Load("fleet.yml")
	if err != nil {
		t.Fatal(err)
	}
	files := inv.Hosts[1].mustGuest(t, "www").Files
	if _, err := files[0].Read(); err == nil || !strings.Contains(err.Error(), "still encrypted") {
		t.Errorf("a file was read with its secret unopened: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v", files, inv.Hosts[1].Vars, files[0]); strings.Contains(text, "hunter2") {
		t.Error(text)
	}
	secrets := Sealed(inv.Hosts)
	if len(secrets) != 4 {
		t.Errorf("%d secrets, want 4: each once", len(secrets))
	}
	if err := keys.Open(t.Context(), secrets); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		content string
		mode    uint32
		secret  bool
	}{
		{"pw hunter2 of b\n", 0o600, true}, {"user=www\npassword=hunter2\ntoken=t0ken\n", 0o640, true}, {"the key\n", 0o600, true},
		{"x", 0o644, false}, {"whole", 0o600, true}, {"hunter2", 0o600, true},
	} {
		f := files[i]
		content, err := f.Read()
		if err != nil || string(content) != want.content || f.Mode != want.mode || f.Secret != want.secret {
			t.Errorf("%s holds %q with mode %o, secret %v: %v; want %+v", f.Path, content, f.Mode, f.Secret, err, want)
		}
	}
	shown, err := json.Marshal(inv.Hosts[1])
	text := string(shown) + fmt.Sprintf("%v %+v %#v", files, inv.Hosts[1].Vars, files[0])
	if err != nil || strings.Contains(text, "hunter2") || strings.Contains(text, "t0ken") || !strings.Contains(text, "(secret)") {
		t.Errorf("%s, %v", text, err)
	}
}

// What an encrypted value says elsewhere could be read by others on the host, in
// arguments of processes for example.
func TestWhereNoSecretMayBe(t *testing.T) {
	dir := t.TempDir()
	_, seal := sealing(t, dir)
	write(t, dir, "k.age", seal("x", -1))
	fleet := "hosts: {a: {vars: {p: " + strings.ReplaceAll(fmt.Sprintf("%s %q", secret.Tag, seal("x", -1)), "\n", "") + "}}}\n" +
		"images: {deb: {method: template, args: [-t, /srv/box.tar]}}\nguests:\n  g: {on: a, image: deb, "
	const refused = "${vars.p} is encrypted, and what stands here could be read by others on the host"
	for _, row := range []struct{ name, text, want string }{
		{"a hostname", fleet + `hostname: "x${vars.p}"}`, "fleet.yml:4:38: " + refused},
		{"an argument", fleet + `init: {command: [/bin/x, "${vars.p}"]}}`, "fleet.yml:4:52: " + refused},
		{"a command after a change", fleet + `files: {/etc/x: {content: a, on_change: [x, "${vars.p}"]}}}`, "fleet.yml:4:71: " + refused},
		{"an address", `hosts: {a: {address: "${vars.p}", vars: {p: ` + fmt.Sprintf("%s %q", secret.Tag, seal("x", -1)) + "}}}", "fleet.yml:1:23: " + refused},
		{"a setting itself", fleet + "hostname: !age x}", "fleet.yml:4:36: hostname: want a hostname, have the tag !age"},
		{"an image", "images: {deb: {method: template, args: [-t, /x], files: {/etc/x: {source: " + dir + "/k.age}}}}", "fleet.yml:1:75: files: an image is kept on hosts and shared by guests: give the secret to the guests' files"},
		{"a file that is to be shown", fleet + `files: {/etc/x: {content: "${vars.p}", secret: false}}}`, "fleet.yml:4:73: files: /etc/x holds an encrypted value, so it is secret (leave it out)"},
		{"a value that somebody forgot to encrypt", "hosts: {a: {vars: {p: !age hunter2}}}", "fleet.yml:1:23: p: the tag !age stands before an encrypted value: it is not encrypted (vsfleet inventory edit encrypts it in its place)"},
		{"a value that is damaged", "hosts: {a: {vars: {p: !age '-----BEGIN AGE ENCRYPTED FILE-----'}}}", "fleet.yml:1:23: p: the tag !age stands before an encrypted value: it is encrypted, but damaged (vsfleet inventory edit encrypts it in its place)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(t, row.text+"\n")
			if err == nil || !strings.HasPrefix(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
			for _, e := range err.(*Errors).All { //nolint:errorlint // it is all that Load returns
				if strings.Contains(e.Excerpt+e.Error(), "hunter2") {
					t.Errorf("%s\n%s", e, e.Excerpt)
				}
			}
		})
	}
}
