package backup

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/api"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files is what vsnode sends of a guest with a file, another name of it, and one that it
// changed the owner of.
func files(t testing.TB) []byte {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	must(t, err)
	w := tar.NewWriter(z)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "root/etc/"},
		{Typeflag: tar.TypeReg, Name: "root/etc/a", Size: 4},
		{Typeflag: tar.TypeLink, Name: "root/etc/b", Linkname: "root/etc/a"},
		{Typeflag: tar.TypeChar, Name: "root/etc/gone"},
		{Typeflag: tar.TypeReg, Name: "root/etc/owned", PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.metacopy": "", "VSFLEET.x": "y"}},
		{Typeflag: tar.TypeSymlink, Name: "root/etc/link", Linkname: "a"},
	} {
		h.Format = tar.FormatPAX
		must(t, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err := w.Write([]byte("text"))
			must(t, err)
		}
	}
	must(t, w.Close())
	must(t, z.Close())
	return b.Bytes()
}

func archive(t testing.TB) (path string, whole []byte) {
	path = Name(t.TempDir(), "lab1", "www", time.Unix(0, 0))
	w, err := Create(path)
	must(t, err)
	_, err = w.Write(files(t))
	must(t, err)
	must(t, w.Finish(Head{Host: "lab1", Image: "sha256:1", Guest: api.Guest{Name: "www", Context: 120}}))
	whole, err = os.ReadFile(path)
	must(t, err)
	return path, whole
}

func TestArchive(t *testing.T) {
	path, whole := archive(t)
	if want := "lab1/www/19700101T000000Z.tar.zst"; !strings.HasSuffix(path, want) {
		t.Errorf("the archive is %s, want …/%s", path, want)
	}
	a, err := Open(path)
	must(t, err)
	defer a.Close()
	must(t, a.Verify(t.Context()))
	if a.Guest.Context != 120 || a.Host != "lab1" || a.Image != "sha256:1" || a.Bytes != int64(len(files(t))) {
		t.Errorf("the head is %+v", a.Head)
	}
	for name, want := range map[string]string{
		"/etc/a": "text", "etc/b": "text", "/../etc/a": "text",
		"/etc/c": "not among the guest's own files", "/etc": "is no file", "/etc/gone": "had removed",
		"/etc/link": `a link to "a"`,
	} {
		var b bytes.Buffer
		if err := a.File(t.Context(), name, &b); err == nil && b.String() != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", name, b.String(), err)
		}
	}
	// Readers that know nothing of the head skip it.
	z, err := zstd.NewReader(bytes.NewReader(whole))
	must(t, err)
	defer z.Close()
	if _, err := z.WriteTo(new(bytes.Buffer)); err != nil {
		t.Errorf("zstd: %v", err)
	}
	if _, err := Create(path); err == nil {
		t.Error("an archive was overwritten")
	}
}

func TestArchiveIsCompleteOrAbsent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tar.zst")
	w, err := Create(path)
	must(t, err)
	_, err = w.Write([]byte("half"))
	must(t, err)
	if _, err := os.Stat(path); err == nil {
		t.Error("it is there before it is complete")
	}
	w.Abandon()
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

func TestDamageIsFound(t *testing.T) {
	path, whole := archive(t)
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 1
		must(t, os.WriteFile(path, bad, 0o600))
		a, err := Open(path)
		if err != nil {
			continue
		}
		if err := a.Verify(t.Context()); err == nil {
			t.Errorf("byte %d of %d was changed and nobody saw it", i, len(whole))
		}
		a.Close()
	}
	for n := range whole {
		must(t, os.WriteFile(path, whole[:n], 0o600))
		if a, err := Open(path); err == nil {
			t.Errorf("%d of %d bytes are an archive", n, len(whole))
			a.Close()
		}
	}
}

func FuzzOpen(f *testing.F) {
	_, whole := archive(f)
	f.Add(whole)
	f.Add(whole[len(whole)-200:])
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "a")
		must(t, os.WriteFile(path, data, 0o600))
		a, err := Open(path)
		if err != nil {
			return
		}
		defer a.Close()
		_ = a.Verify(t.Context())
		_ = a.File(t.Context(), "/etc/a", new(bytes.Buffer))
	})
}
