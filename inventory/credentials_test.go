package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func withCredentials(text string) string {
	return base + "  www:\n    on: all\n    image: deb\n    credentials:\n" + text
}

func TestCredentials(t *testing.T) {
	t.Chdir(t.TempDir())
	keys, seal := sealing(t, ".")
	write(t, ".", "h1.key", "plain one\n")
	write(t, ".", "h2.key", "plain two\n")
	write(t, ".", "site.key.age", seal("sealed file\n", -1))
	write(t, ".", "fleet.yml", withCredentials(`      plain: "of ${host.name}"
      empty: ""
      file: {source: "${host.name}.key"}
      sealed-file: {source: site.key.age}
      sealed: `+seal("hunter2", 8)+"\n    files: {/etc/x: {content: x}}\n"))
	inv, err := Load("fleet.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Open(t.Context(), Sealed(inv.Hosts)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"plain": "of h2", "empty": "", "file": "plain two\n", "sealed-file": "sealed file\n", "sealed": "hunter2",
	} {
		f := fileOf(t, inv, "h2", "/run/host/credentials/"+name)
		content, err := f.Read()
		if err != nil || string(content) != want || f.Mode != 0o600 || !f.Secret || !f.OnChange.Restart || f.Owner != "root:root" {
			t.Errorf("%s: %q, %v, %+v", name, content, err, f)
		}
		if want != "" && !slices.Contains(inv.Secrets(), want) {
			t.Errorf("%s may be shown", name)
		}
	}
	if f := fileOf(t, inv, "h2", "/etc/x"); f.Secret || f.OnChange.Restart {
		t.Errorf("a file beside them: %+v", f)
	}
}

func TestErrorsOfCredentials(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", "full", strings.Repeat("x", MaxFile))
	const name = "the name of a credential has 1 to 200 letters, digits and signs, as db.password, and no / or :, no blanks, no . in front and no ~ at the end"
	for _, row := range []struct{ name, text, want string }{
		{"a name with a slash", "      a/b: geheim\n", "fleet.yml:8:7: credentials: a/b: " + name},
		{"a name with a colon", "      \"a:b\": geheim\n", "fleet.yml:8:7: credentials: a:b: " + name},
		{"a hidden name", "      ..: geheim\n", "fleet.yml:8:7: credentials: ..: " + name},
		{"a name of a copy", "      a~: geheim\n", "fleet.yml:8:7: credentials: a~: " + name},
		{"nothing", "      a:\n", "fleet.yml:8:7: credentials: a: want its text, or {source: FILE}"},
		{"nothing in it", "      a: {}\n", "fleet.yml:8:7: credentials: a: want its text, or {source: FILE}"},
		{"a list", "      a: [geheim]\n", "fleet.yml:8:10: credential a: want its text, or {source: FILE}, have a list"},
		{"an unknown key", "      a:\n        source: full\n        content: geheim\n", `fleet.yml:10:9: unknown key "content" (known here: source)`},
		{"a file that is not there", "      a: {source: none}\n", "fleet.yml:8:19: source: stat none: no such file or directory"},
		{"a text in its place", "", "fleet.yml:7:18: credentials: want a mapping of names, as {db.password: {source: db.age}}, have a list"},
		{"an unknown variable", "      a: |\n        geheim\n        geheim ${vars.none}\n", "fleet.yml:10:16: unknown variable ${vars.none}"},
		{"one that is twice there", "      a: geheim\n      a: geheim\n", "fleet.yml:9:7: "},
		{"a value that somebody forgot to encrypt", "      a: !age geheim\n", "fleet.yml:8:10: a: the tag !age stands before an encrypted value: it is not encrypted"},
		{"too much", "      a: {source: full}\n      b: geheim\n", "fleet.yml:9:7: credentials: more than 1 MiB altogether, which is what systemd reads (give it what is large as files)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := withCredentials(row.text)
			if row.text == "" {
				text = strings.TrimSuffix(text, "\n") + " [x]\n"
			}
			_, err := Load(write(t, ".", "fleet.yml", text))
			if err == nil || !strings.HasPrefix(err.Error(), row.want) {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
			for _, e := range err.(*Errors).All { //nolint:errorlint // it is all that Load returns
				if shown := fmt.Sprint(e.Excerpt, e.Error()); strings.Contains(shown, "geheim") {
					t.Errorf("shown: %s", shown)
				}
			}
		})
	}
}
