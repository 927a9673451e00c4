package secret

import (
	"os"
	"strings"
	"testing"

	"filippo.io/age"
)

// edited opens a file, has edit change it as a person would, and returns what is saved.
func edited(t *testing.T, keys *Keys, to []age.Recipient, text string, edit func(string) string) string {
	t.Helper()
	d, err := Open(t.Context(), "fleet.yml", []byte(text), keys)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	saved, err := d.Seal(edit(d.Plain()), to, false)
	if err != nil {
		t.Fatalf("%v in\n%s", err, d.Plain())
	}
	return string(saved)
}

func TestEditing(t *testing.T) {
	file, to := ageKey(t)
	keys := &Keys{Files: []string{file}}
	const plain = `# of the team
groups:
  web:
    hosts: [a]
    vars:
      # for the database
      db_password: !age hunter2   # not hunter3
      key: !age |
          -----BEGIN KEY-----
            indented

          -----END KEY-----

      after: 1
  db: {hosts: [b], vars: {x: !age "a\"b", y: !age 'it''s', z: 2}}
list:
  - !age |-
    no newline
  - plain
`
	sealed := edited(t, keys, []age.Recipient{to}, plain, func(s string) string {
		if s != plain {
			t.Errorf("what is not encrypted yet was changed:\n%s", s)
		}
		return s
	})
	for _, word := range []string{"hunter2 ", "BEGIN KEY", "a\\\"b", "it''s", "no newline"} {
		if strings.Contains(sealed, word) {
			t.Errorf("%s is in\n%s", word, sealed)
		}
	}
	for _, word := range []string{"# of the team\n", "      # for the database\n", "# not hunter3\n", "\n\n      after: 1\n", "z: 2}}\n", "  - plain\n"} {
		if !strings.Contains(sealed, word) {
			t.Errorf("%q is not in\n%s", word, sealed)
		}
	}
	again := edited(t, keys, nil, sealed, func(s string) string {
		for _, word := range []string{"db_password: !age \"hunter2\"   # not hunter3\n", "            indented\n\n", `x: !age "a\"b"`, `y: !age "it's"`, "  - !age |-\n    no newline\n"} {
			if !strings.Contains(s, word) {
				t.Errorf("%q is not in\n%s", word, s)
			}
		}
		return s
	})
	if again != sealed {
		t.Errorf("nothing was changed, and saved was\n%s\ninstead of\n%s", again, sealed)
	}
}

// lines returns the lines of b that a lacks.
func newLines(a, b string) int {
	n := 0
	for line := range strings.SplitSeq(b, "\n") {
		if !strings.Contains(a, line) {
			n++
		}
	}
	return n
}

func TestOnlyWhatWasChangedIsEncryptedAnew(t *testing.T) {
	file, to := ageKey(t)
	keys, us := &Keys{Files: []string{file}}, []age.Recipient{to}
	same := func(s string) string { return s }
	sealed := edited(t, keys, us, "a: !age |\n  first\nb: !age |\n  second\nc: 1\n", same)
	one := edited(t, keys, us, sealed, func(s string) string { return strings.Replace(s, "second", "third", 1) })
	if !strings.HasPrefix(one, sealed[:strings.Index(sealed, "b: ")]) || newLines(sealed, one) == 0 {
		t.Errorf("of\n%s\nbecame\n%s", sealed, one)
	}
	for _, row := range []struct {
		name string
		edit func(string) string
		want string
	}{
		{"a comment", func(s string) string { return strings.Replace(s, "c: 1", "c: 2 # more", 1) }, strings.Replace(sealed, "c: 1", "c: 2 # more", 1)},
		{"a key that was renamed", func(s string) string { return strings.Replace(s, "b: ", "d: ", 1) }, strings.Replace(sealed, "b: ", "d: ", 1)},
		{"a value that was removed", func(s string) string { return s[strings.Index(s, "b: "):] }, sealed[strings.Index(sealed, "b: "):]},
		{"a value that was pasted as it is encrypted", func(string) string { return sealed }, sealed},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := edited(t, keys, nil, sealed, row.edit); got != row.want {
				t.Errorf("got\n%s\nwant\n%s", got, row.want)
			}
		})
	}
	d, err := Open(t.Context(), "fleet.yml", []byte(sealed), keys)
	if err != nil {
		t.Fatal(err)
	}
	other, toOther := ageKey(t)
	again, err := d.Seal(d.Plain(), []age.Recipient{toOther}, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), "fleet.yml", again, keys); err == nil {
		t.Error("who was left out can still read it")
	}
	if d, err := Open(t.Context(), "fleet.yml", again, &Keys{Files: []string{other}}); err != nil || d.Plain() != "a: !age |\n  first\nb: !age |\n  second\nc: 1\n" {
		t.Errorf("%v", err)
	}
}

func TestFilesThatAreEncryptedAsAWhole(t *testing.T) {
	file, to := ageKey(t)
	keys, us := &Keys{Files: []string{file}}, []age.Recipient{to}
	sealed, err := Seal([]byte("-----KEY-----\n"), us)
	if err != nil {
		t.Fatal(err)
	}
	same := edited(t, keys, nil, string(sealed), func(s string) string { return s })
	if same != string(sealed) {
		t.Error("it was encrypted anew without a change")
	}
	changed := edited(t, keys, us, string(sealed), func(s string) string { return s + "more\n" })
	if d, err := Open(t.Context(), "x.age", []byte(changed), keys); err != nil || d.Plain() != "-----KEY-----\nmore\n" {
		t.Errorf("%v", err)
	}
}

func TestDocumentsThatCannotBeEdited(t *testing.T) {
	file, to := ageKey(t)
	keys := &Keys{Files: []string{file}}
	for _, row := range []struct{ name, text, want string }{
		{"no YAML", "a: [b\n", "fleet.yml:1:1: not readable as YAML: did not find expected ',' or ']' (is a { or a [ not closed, or a text with a colon or a comma not in quotes?)"},
		{"a text in quotes on two lines", "a: !age \"b\n  c\"\n", "fleet.yml:1:4: write the value as !age | with the text indented below, or in one line"},
		{"a value below its key", "a:\n  !age b\n", ""},
		{"windows' line ends", "a: !age |\r\n  b\r\nc: !age d\r\n", ""},
		{"a folded text", "a: !age >\n  b\n  c\nd: 1\n", ""},
		{"an anchor before the tag", "a: &x !age b\nc: *x\n", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			d, err := Open(t.Context(), "fleet.yml", []byte(row.text), keys)
			var text []byte
			if err == nil {
				text, err = d.Seal(d.Plain(), []age.Recipient{to}, false)
			}
			if row.want == "" && (err != nil || !strings.Contains(string(text), "BEGIN AGE")) {
				t.Errorf("%v\n%s", err, text)
			}
			if row.want != "" && (err == nil || err.Error() != row.want) {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
		})
	}
}

func FuzzDocument(f *testing.F) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	file := f.TempDir() + "/key"
	if err := os.WriteFile(file, []byte(key.String()), 0o600); err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		"a: !age b\n", "a: !age |\n  b\n\n   c\n\nd: 1\n", "a: {b: !age \"c\\n\", d: [!age 'e']}", "- !age |+\n  x\n\n", "a: !age >-\n  b\n c: d", "? !age a\n: b", "a: !age", "!age |\n x\n",
		"a: &x !age b\nc: *x", "a: !age \"\\x01\\u2028\"\n", "a: !age |2\n    b\n", "ä: !age ö # c\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys := &Keys{Files: []string{file}}
		d, err := Open(t.Context(), "f", []byte(text), keys)
		if err != nil {
			return
		}
		sealed, err := d.Seal(d.Plain(), []age.Recipient{key.Recipient()}, false)
		if err != nil {
			return // in another form than is understood
		}
		now, err := Open(t.Context(), "f", sealed, keys)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, sealed, err)
		}
		again, err := now.Seal(now.Plain(), nil, false)
		if err != nil || string(again) != string(sealed) {
			t.Fatalf("%q became %q, and that, shown as %q, %q: %v", text, sealed, now.Plain(), again, err)
		}
		before, _ := find("f", text)
		for i, field := range now.fields {
			if !IsSealed([]byte(before[i].text)) && field.plain != before[i].text {
				t.Fatalf("%q is decrypted as %q", before[i].text, field.plain)
			}
		}
	})
}
