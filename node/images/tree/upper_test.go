package tree

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func packUpper(t testing.TB, u Upper) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, u.Pack(t.Context(), &b))
	return b.Bytes()
}

// plantUpper adds to a tree what only an upper layer has.
func plantUpper(t testing.TB, dir string) {
	t.Helper()
	plant(t, dir)
	must(t, unix.Mknod(filepath.Join(dir, "gone"), unix.S_IFCHR, 0))
	must(t, os.Link(filepath.Join(dir, "gone"), filepath.Join(dir, "gone.too"))) // overlayfs has one inode for many
	must(t, os.Mkdir(filepath.Join(dir, "opaque"), 0o755))
	must(t, unix.Setxattr(filepath.Join(dir, "opaque"), "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(filepath.Join(dir, "opaque"), "trusted.overlay.origin", []byte("of this host"), 0))
	must(t, os.WriteFile(filepath.Join(dir, "owned"), make([]byte, 100), 0o600))
	must(t, unix.Setxattr(filepath.Join(dir, "owned"), metacopy, nil, 0))
}

func TestUpperComesBackAsItWas(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	plantUpper(t, from)
	packed := packUpper(t, Upper{From: openDir(t, from)})
	must(t, UnpackUpper(t.Context(), to, nil, bytes.NewReader(packed)))
	if again := packUpper(t, Upper{From: openDir(t, to)}); !bytes.Equal(again, packed) {
		t.Error("what was unpacked is packed otherwise")
	}
	for name, want := range map[string]string{
		"opaque trusted.overlay.opaque": "y", "opaque trusted.overlay.origin": "", "owned " + metacopy: "",
	} {
		file, attr, _ := strings.Cut(name, " ")
		b := make([]byte, 32)
		n, err := unix.Getxattr(filepath.Join(to, file), attr, b)
		if attr == metacopy && err != nil || attr != metacopy && want == "" && err != unix.ENODATA || want != "" && string(b[:max(n, 0)]) != want {
			t.Errorf("%s is %q, %v", name, b[:max(n, 0)], err)
		}
	}
	var st unix.Stat_t
	if must(t, unix.Lstat(filepath.Join(to, "gone.too"), &st)); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("a whiteout became %o %d", st.Mode, st.Rdev)
	}
}

// indexOf returns the index of a round.
func indexOf(t testing.TB, round []byte) io.Reader {
	t.Helper()
	var b bytes.Buffer
	for r := tar.NewReader(bytes.NewReader(round)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return &b
		}
		must(t, err)
		if id, ok := h.PAXRecords[IDRecord]; ok {
			fmt.Fprintf(&b, "%q %s\n", strings.TrimPrefix(h.Name, upperPrefix), id)
		}
	}
}

func TestUpperRoundSendsWhatChanged(t *testing.T) {
	from, first, last := t.TempDir(), t.TempDir(), t.TempDir()
	write := func(name, content string) { must(t, os.WriteFile(filepath.Join(from, name), []byte(content), 0o644)) }
	for _, d := range []string{"a", "b", "c"} {
		must(t, os.Mkdir(filepath.Join(from, d), 0o755))
		write(d+"/same", d+strings.Repeat("x", 1<<20))
	}
	write("a/changes", "1")
	write("a/goes", "1")
	must(t, os.Link(filepath.Join(from, "a/same"), filepath.Join(from, "z")))
	begun := time.Now().Add(time.Minute).Unix() // all of this is older
	round := packUpper(t, Upper{From: openDir(t, from), Changing: true, Index: true, Begun: begun})
	index := indexOf(t, round)
	must(t, UnpackUpper(t.Context(), first, nil, bytes.NewReader(round)))

	at := func(name string) string { return filepath.Join(from, name) }
	must(t, os.WriteFile(at("a/changes"), []byte("2"), 0o644))
	must(t, os.Remove(at("a/goes")))
	// Two directories change places: every file in them has another path.
	must(t, os.Rename(at("b"), at("x")))
	must(t, os.Rename(at("c"), at("b")))
	must(t, os.Rename(at("x"), at("c")))
	write("b/new", "new")
	sent := packUpper(t, Upper{From: openDir(t, from), Sent: index, Begun: begun})
	if n := len(sent); n < 2<<20 || n > 2<<20+1<<17 {
		t.Errorf("%d bytes were sent, want two files of 1 MiB and little more", n)
	}
	must(t, UnpackUpper(t.Context(), last, openDir(t, first), bytes.NewReader(sent)))
	if a, b := digest(t, from), digest(t, last); a != b {
		t.Errorf("the layer is %+v, want %+v", b, a)
	}
	if err := UnpackUpper(t.Context(), t.TempDir(), nil, bytes.NewReader(sent)); err == nil || !strings.Contains(err.Error(), "nothing is") {
		t.Errorf("a round without the one before: %v", err)
	}
}

// A file that changed after the first round began is sent whatever its identity.
func TestUpperRoundDistrustsTheClock(t *testing.T) {
	from := t.TempDir()
	must(t, os.WriteFile(filepath.Join(from, "f"), make([]byte, 1<<20), 0o644))
	index := indexOf(t, packUpper(t, Upper{From: openDir(t, from), Index: true}))
	if n := len(packUpper(t, Upper{From: openDir(t, from), Sent: index, Begun: time.Now().Unix()})); n < 1<<20 {
		t.Errorf("%d bytes were sent", n)
	}
}

func TestUnpackUpperRefuses(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"a path that leaves the layer":         {reg("root/../x")},
		"a file through a link":                {sym("root/l", "/etc"), reg("root/l/passwd")},
		"a hard link to a file outside":        {{Typeflag: tar.TypeLink, Name: "root/x", Linkname: "etc/passwd"}},
		"a hard link to what is not there yet": {{Typeflag: tar.TypeLink, Name: "root/x", Linkname: "root/y"}},
		"a file that was not sent before":      {{Typeflag: tar.TypeLink, Name: "root/x", Linkname: "root/x"}},
		"a device":                             {{Typeflag: tar.TypeChar, Name: "root/null", Devmajor: 1, Devminor: 3}},
		"a disk":                               {{Typeflag: tar.TypeBlock, Name: "root/sda", Devmajor: 8}},
		"a name twice":                         {reg("root/x"), reg("root/x")},
		"an owner that no guest has":           {{Typeflag: tar.TypeReg, Name: "root/x", Uid: 65536}},
		"the root itself":                      {dir("root")},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			for _, h := range entries {
				h.Format = tar.FormatPAX
				must(t, tw.WriteHeader(&h))
			}
			must(t, tw.Close())
			if err := UnpackUpper(t.Context(), t.TempDir(), openDir(t, t.TempDir()), &b); err == nil {
				t.Error("it was unpacked")
			}
		})
	}
	from := t.TempDir()
	must(t, os.WriteFile(filepath.Join(from, "f"), []byte("content"), 0o644))
	whole := packUpper(t, Upper{From: openDir(t, from)})
	if err := UnpackUpper(t.Context(), t.TempDir(), nil, bytes.NewReader(whole[:len(whole)-1024])); err == nil {
		t.Error("half an archive was unpacked")
	}
}

func FuzzUnpackUpper(f *testing.F) {
	dir := f.TempDir()
	plantUpper(f, dir)
	var b bytes.Buffer
	root, err := os.Open(dir)
	must(f, err)
	defer root.Close()
	must(f, Upper{From: root}.Pack(f.Context(), &b))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = UnpackUpper(t.Context(), t.TempDir(), nil, bytes.NewReader(data))
	})
}
