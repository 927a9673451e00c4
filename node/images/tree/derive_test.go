package tree

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func TestDerive(t *testing.T) {
	object := func(content string) string {
		sum := sha256.Sum256([]byte(content))
		return hex.EncodeToString(sum[:])
	}
	base := manifestHead +
		"d \"a\" 755 0 0 0 1 \"\" \n" +
		"f \"a/x\" 644 0 0 1 1 \"\" " + object("x") + "\n" +
		"h \"a/y\" 0 0 0 0 0 \"a/x\" \n" +
		"h \"a/z\" 0 0 0 0 0 \"a/x\" \n" +
		"f \"a-b\" 644 0 0 1 1 \"\" " + object("b") + "\n" +
		"l \"c\" 0 0 0 0 1 \"a\" \n"
	own := func(path, content string) *Entry {
		e := &Entry{entry: entry{kind: file, path: path, mode: 0o4755, uid: 3, gid: 4, size: 1, mtime: 5, nsec: 60}, object: object(content)}
		e.markOwn()
		return e
	}
	mine := "4755 3 4 1 5.000000060 \"\" "
	for _, row := range []struct {
		what string
		own  []*Entry
		want string // the paths with their kinds and marks
	}{
		{"nothing", nil, "d:a f:a/x h:a/y h:a/z f:a-b l:c"},
		{"a new file", []*Entry{own("a/w", "w")}, "d:a f:a/w! f:a/x h:a/y h:a/z f:a-b l:c"},
		{"the first name of a file", []*Entry{own("a/x", "w")}, "d:a f:a/x! f:a/y h:a/z f:a-b l:c"},
		{"a directory that hides what is below", []*Entry{OwnDirectory("a", true), own("a/y", "w")}, "d:a! f:a/y! f:a-b l:c"},
		{"a file in the place of a directory", []*Entry{own("a", "w")}, "f:a! f:a-b l:c"},
		{"a directory in the place of a link", []*Entry{OwnDirectory("c", false), own("c/d", "w")}, "d:a f:a/x h:a/y h:a/z f:a-b d:c f:c/d!"},
	} {
		t.Run(row.what, func(t *testing.T) {
			var out bytes.Buffer
			w := bufio.NewWriter(&out)
			sum, err := Derive(strings.NewReader(base), row.own, w)
			if err == nil {
				err = w.Flush()
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			read, err := ReadManifest(bytes.NewReader(out.Bytes()), func(e *Entry) error {
				s := string(e.kind) + ":" + e.path
				if e.Own() {
					s += "!"
				}
				e.Xattrs(func(name, _ string) { t.Errorf("%s shows the attribute %s", e.path, name) })
				got = append(got, s)
				return nil
			})
			if err != nil || read != sum || strings.Join(got, " ") != row.want {
				t.Errorf("%v, %v, want %v; %q\n%s", read, err, sum, got, out.String())
			}
			if len(row.own) > 0 && !strings.Contains(out.String(), mine) {
				t.Errorf("not %s in\n%s", mine, out.String())
			}
			again, err := OwnEntries(bytes.NewReader(out.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			var twice bytes.Buffer
			w = bufio.NewWriter(&twice)
			if second, err := Derive(strings.NewReader(base), again, w); err != nil || second != sum {
				t.Errorf("from its own entries: %v, %v", second, err)
			}
		})
	}
}
