package tree

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// planted returns the sum, the manifest and the stream of a tree with everything in it.
func planted(t testing.TB) (sum Sum, manifest []byte, stream *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	plant(t, dir)
	var text bytes.Buffer
	w := bufio.NewWriter(&text)
	sum, err := Record(t.Context(), dir, w)
	must(t, err)
	must(t, w.Flush())
	stream = new(bytes.Buffer)
	_, err = Pack(t.Context(), dir, stream)
	must(t, err)
	return sum, text.Bytes(), stream
}

func TestATreeAsManifestAndObjects(t *testing.T) {
	sum, manifest, stream := planted(t)
	objects := map[string]int64{}
	read, err := ReadManifest(bytes.NewReader(manifest), func(e *Entry) error {
		if e.Object() != "" {
			objects[e.Object()] = e.Size()
		}
		return nil
	})
	must(t, err)
	if read != sum {
		t.Errorf("the manifest is that of %+v, the tree is %+v", read, sum)
	}
	dir := t.TempDir()
	var text, again bytes.Buffer
	w := bufio.NewWriter(&text)
	received, err := Receive(t.Context(), dir, bytes.NewReader(stream.Bytes()), w)
	must(t, err)
	must(t, w.Flush())
	if received != sum || !bytes.Equal(text.Bytes(), manifest) {
		t.Errorf("received %+v, want %+v and the same manifest", received, sum)
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if size, named := objects[f.Name()]; !named || size != info.Size() || info.Mode() != 0o444 {
			t.Errorf("%s has %d bytes and mode %v; named by the manifest: %v, %d", f.Name(), info.Size(), info.Mode(), named, size)
		}
		delete(objects, f.Name())
	}
	if len(objects) > 0 {
		t.Errorf("these did not come: %v", objects)
	}
	open := func(name string) (*os.File, error) { return os.Open(filepath.Join(dir, name)) }
	sent, err := Send(t.Context(), bytes.NewReader(manifest), open, &again)
	must(t, err)
	if sent != sum || !bytes.Equal(again.Bytes(), stream.Bytes()) {
		t.Errorf("sent %+v, want %+v and the bytes of Pack", sent, sum)
	}
	for _, row := range []struct {
		what   string
		damage func(name string) error
	}{
		{"an object of other content", func(name string) error { return os.WriteFile(name, []byte("other"), 0o644) }},
		{"one that is cut off", func(name string) error { return os.Truncate(name, 1) }},
		{"one that is not there", os.Remove},
	} {
		must(t, row.damage(filepath.Join(dir, files[0].Name())))
		if _, err := Send(t.Context(), bytes.NewReader(manifest), open, new(bytes.Buffer)); err == nil {
			t.Errorf("%s was sent", row.what)
		}
	}
}

// TestEntriesSayWhatStatSays compares each line of a manifest with the tree.
func TestEntriesSayWhatStatSays(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir)
	var text bytes.Buffer
	w := bufio.NewWriter(&text)
	_, err := Record(t.Context(), dir, w)
	must(t, err)
	must(t, w.Flush())
	inodes := map[string]uint64{}
	_, err = ReadManifest(&text, func(e *Entry) error {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, e.Path()), &st))
		inodes[e.Path()] = st.Ino
		if to, ok := e.HardLink(); ok {
			if inodes[to] != st.Ino {
				t.Errorf("%s is not the same file as %s", e.Path(), to)
			}
			return nil
		}
		uid, gid := e.Owner()
		if e.Mode() != st.Mode || uid != st.Uid || gid != st.Gid || e.Mtime() != st.Mtim.Sec {
			t.Errorf("%s is %o %d:%d %d, want %o %d:%d %d", e.Path(), e.Mode(), uid, gid, e.Mtime(), st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		}
		e.Xattrs(func(name, value string) {
			got := make([]byte, 256)
			if n, err := unix.Lgetxattr(filepath.Join(dir, e.Path()), name, got); err != nil || string(got[:n]) != value {
				t.Errorf("%s has %s=%q, want %q (%v)", e.Path(), name, got[:n], value, err)
			}
		})
		if to, ok := e.Symlink(); ok {
			if target, err := os.Readlink(filepath.Join(dir, e.Path())); err != nil || target != to {
				t.Errorf("%s leads to %q, want %q", e.Path(), to, target)
			}
		}
		return nil
	})
	must(t, err)
}

func TestWhatIsNoManifestIsRefused(t *testing.T) {
	const hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	f := func(path string) string { return `f "` + path + `" 644 0 0 1 0 "" ` + hash + "\n" }
	const d = `d "a" 755 0 0 0 0 "" ` + "\n"
	for _, row := range []struct{ what, text, fails string }{
		{"nothing", "", "not a manifest"},
		{"another version", "vsfleet tree 2\n", "not a manifest"},
		{"an empty line", manifestHead + "\n", "not a line"},
		{"a cut line", manifestHead + d[:10], "unexpected EOF"},
		{"a line without its end", manifestHead + strings.TrimSuffix(d, "\n"), "unexpected EOF"},
		{"a name in other quotes", manifestHead + "d `a` 755 0 0 0 0 \"\" \n", "not a line"},
		{"a number with zeros in front", manifestHead + strings.Replace(d, "755", "0755", 1), "not a line"},
		{"an id that no guest has", manifestHead + strings.Replace(d, "755 0", "755 65536", 1), "not a line"},
		{"a directory with content", manifestHead + strings.Replace(d, `"" `, `"" `+hash, 1), "not a line"},
		{"a file without a digest", manifestHead + strings.Replace(f("x"), hash, "", 1), "not a line"},
		{"a short digest", manifestHead + strings.Replace(f("x"), hash, hash[:62], 1), "not a line"},
		{"an absolute path", manifestHead + f("/x"), "not an entry"},
		{"a path that climbs", manifestHead + f("../x"), `".."`},
		{"a path with a dot", manifestHead + d + f("a/./x"), "not an entry"},
		{"the root", manifestHead + f(""), "not an entry"},
		{"a long name", manifestHead + f(strings.Repeat("n", 256)), "not an entry"},
		{"a name with a NUL", manifestHead + f(`x\x00y`), "not an entry"},
		{"a name twice", manifestHead + f("x") + f("x"), "out of order"},
		{"no directory", manifestHead + f("a/x"), "no directory"},
		{"a file as a directory", manifestHead + f("a") + f("a/x"), "no directory"},
		{"another's directory", manifestHead + d + f("a/x") + f("b/x"), "no directory"},
		{"a hard link to nothing", manifestHead + "h \"x\" 0 0 0 0 0 \"a\" \n", "not a file before it"},
		{"a hard link with an owner", manifestHead + f("a") + "h \"x\" 0 1 0 0 0 \"a\" \n", "no attributes"},
		{"a symbolic link to nothing", manifestHead + "l \"x\" 0 0 0 0 0 \"\" \n", "contradicts"},
		{"a device", manifestHead + "c \"x\" 600 0 0 0 0 \"\" \n", "not an entry"},
		{"an attribute of overlayfs", manifestHead + strings.TrimSuffix(d, "\n") + " \"trusted.overlay.redirect\" \"/etc\"\n", "contradicts"},
		{"attributes out of order", manifestHead + strings.TrimSuffix(d, "\n") + ` "user.b" "" "user.a" ""` + "\n", "contradicts"},
	} {
		t.Run(row.what, func(t *testing.T) {
			if _, err := ReadManifest(strings.NewReader(row.text), func(*Entry) error { return nil }); err == nil || !strings.Contains(err.Error(), row.fails) {
				t.Errorf("error is %v, want one with %q", err, row.fails)
			}
		})
	}
	if sum, err := ReadManifest(strings.NewReader(manifestHead+d+f("a/x")+f("a-b")[:0]), func(*Entry) error { return nil }); err != nil || sum.Files != 2 {
		t.Errorf("a good one: %+v, %v", sum, err)
	}
}

// FuzzManifest holds that what is taken for a manifest describes a tree: each entry can be
// written again as it was read.
func FuzzManifest(f *testing.F) {
	_, manifest, _ := planted(f)
	f.Add(manifest)
	f.Add([]byte(manifestHead))
	f.Fuzz(func(t *testing.T, text []byte) {
		again := []byte(manifestHead)
		_, err := ReadManifest(bytes.NewReader(text), func(e *Entry) error {
			var content []byte
			if e.kind == file {
				content = bytes.Repeat([]byte{0}, 32)
				if e.object != "" {
					content, _ = hex.DecodeString(e.object)
				}
			}
			again = append(again, e.line(content)...)
			return nil
		})
		if err == nil && len(again) != len(text) {
			t.Errorf("a manifest of %d bytes has entries of %d", len(text), len(again))
		}
	})
}
