package fleet

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTreesAreCopiedAsTheyAre(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "site"), t.TempDir()
	for name, text := range map[string]string{"index.html": "hello", "sub/x": "x"} {
		write(t, filepath.Join(from, name), text)
	}
	if err := os.Symlink("index.html", filepath.Join(from, "start")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(from, "sub/x"), 0o751); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	none := func(text string) { t.Errorf("left out: %s", text) }
	if err := pack(t.Context(), from, &b, none); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again over what is there
		if err := unpack(t.Context(), bytes.NewReader(b.Bytes()), to, none); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(to, "site/sub/x"))
	if err != nil || info.Mode().Perm() != 0o751 {
		t.Errorf("%v, %v", info, err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "site/start")); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func entries(headers ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if w.WriteHeader(&h) == nil && h.Size > 0 {
			io.WriteString(w, "evil")
		}
	}
	w.Close()
	return b.Bytes()
}

// A guest may send anything: nothing is written outside of the destination.
func TestWhatAGuestSendsStaysInside(t *testing.T) {
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755} }
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o4755} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for _, tt := range []struct {
		name   string
		stream []byte
		want   string // in the error or the notes
	}{
		{"a name above", entries(dir("a"), file("a/../../victim")), "sent the name"},
		{"an absolute name", entries(file("/tmp/victim")), "sent the name"},
		{"a name beside", entries(dir("a"), file("b")), "sent the name"},
		{"a link out, and a file through it", entries(dir("a"), link("a/l", ".."), file("a/l/victim")), "outside"},
		{"an absolute link, and a file through it", entries(dir("a"), link("a/l", "/"), file("a/l/victim")), "outside"},
		{"links that lead out together", entries(dir("a"), dir("a/d"), link("a/d/up", ".."), link("a/l", "d/up/.."), file("a/l/victim")), ""},
		{"a device", entries(dir("a"), tar.Header{Typeflag: tar.TypeChar, Name: "a/null", Devmajor: 1, Devminor: 3}), "left out"},
		{"a hard link", entries(dir("a"), tar.Header{Typeflag: tar.TypeLink, Name: "a/h", Linkname: "/etc/passwd"}), "left out"},
		{"nothing", nil, "read the guest's files"},
		{"half a file", entries(file("a"))[:514], "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := t.TempDir()
			inside := filepath.Join(top, "inside")
			if err := os.Mkdir(inside, 0o755); err != nil {
				t.Fatal(err)
			}
			var said []string
			err := unpack(t.Context(), bytes.NewReader(tt.stream), inside, func(text string) { said = append(said, text) })
			if err != nil {
				said = append(said, err.Error())
			}
			if text := strings.Join(said, "\n"); !strings.Contains(text, tt.want) {
				t.Errorf("got %q, want %q", text, tt.want)
			}
			if list, err := os.ReadDir(top); err != nil || len(list) != 1 {
				t.Errorf("beside it there is %v, %v", list, err)
			}
			if list, _ := filepath.Glob(inside + "/victim*"); len(list) > 0 {
				t.Errorf("%v was written outside of what is copied", list)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(entries(tar.Header{Typeflag: tar.TypeDir, Name: "a/"}, tar.Header{Typeflag: tar.TypeReg, Name: "a/b"}))
	f.Add(entries(tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: ".."}, tar.Header{Typeflag: tar.TypeReg, Name: "a/b"}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		top := t.TempDir()
		inside := filepath.Join(top, "inside")
		if err := os.Mkdir(inside, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = unpack(t.Context(), bytes.NewReader(stream), inside, func(string) {}) // most streams are refused
		if list, err := os.ReadDir(top); err != nil || len(list) != 1 {
			t.Errorf("beside it there is %v, %v", list, err)
		}
	})
}
