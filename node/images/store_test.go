package images

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// archive writes a template and returns the spec that builds from it.
func archive(t testing.TB, name string, files map[string]string) api.ImageSpec {
	t.Helper()
	return archiveAt(t, name, files, time.Unix(1e9, 0))
}

func archiveAt(t testing.TB, name string, files map[string]string, mtime time.Time) api.ImageSpec {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	for name, content := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: mtime}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return api.ImageSpec{Name: name, Method: "template", Args: []string{"-t", path}}
}

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "vservers", ".images"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func made(t testing.TB, s *Store, spec api.ImageSpec) api.Image {
	t.Helper()
	img, changed, err := s.Build(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !changed {
		t.Fatalf("%s was there before", spec.Name)
	}
	return img
}

// contents returns the files of an image, by name.
func contents(t testing.TB, s *Store, id string) map[string]string {
	t.Helper()
	var stream bytes.Buffer
	_, err := s.pack(t.Context(), id, &stream)
	must(t, err)
	files := map[string]string{}
	for r := tar.NewReader(&stream); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		files[h.Name] = string(b)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestBuildOnceAndCarryToAnotherStore(t *testing.T) {
	ctx := context.Background()
	a, b := open(t), open(t)
	spec := archive(t, "base", map[string]string{"etc/os-release": "ID=test\n", "bin/true": "\x7fELF"})
	img := made(t, a, spec)
	again, changed, err := a.Build(ctx, spec, nil)
	if err != nil || changed || again.ID != img.ID {
		t.Fatalf("second build: %v, changed %v, %v", again.ID, changed, err)
	}
	var stream, twice bytes.Buffer
	if err := a.Export(ctx, img.ID, &stream); err != nil {
		t.Fatal(err)
	}
	if err := a.Export(ctx, img.ID, &twice); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(stream.Bytes(), twice.Bytes()) {
		t.Error("two exports of one image differ")
	}
	got, changed, err := b.Import(ctx, bytes.NewReader(stream.Bytes()), img.ID)
	if err != nil || !changed || got.ID != img.ID {
		t.Fatalf("import: %v, changed %v, %v", got.ID, changed, err)
	}
	rest := bytes.NewReader(stream.Bytes())
	if _, changed, err = b.Import(ctx, rest, img.ID); err != nil || changed || rest.Len() != 0 {
		t.Fatalf("second import: changed %v, %d bytes left, %v", changed, rest.Len(), err)
	}
	if content := contents(t, b, img.ID)["etc/os-release"]; content != "ID=test\n" {
		t.Fatalf("read imported file: %q", content)
	}
}

func TestOneTreeOfTwoSpecs(t *testing.T) {
	ctx := t.Context()
	a, b := open(t), open(t)
	files := map[string]string{"etc/os-release": "ID=test\n"}
	one := made(t, a, archive(t, "one", files))
	time.Sleep(time.Until(one.Created.Add(time.Second))) // records are ordered by the second
	two := made(t, a, archive(t, "two", files))
	if one.ID != two.ID {
		t.Fatalf("equal trees have the IDs %s and %s", one.ID, two.ID)
	}
	contains(t, a, one)
	list := func(s *Store) (names []string) {
		images, err := s.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range images {
			names = append(names, img.Spec.Name)
		}
		return names
	}
	if got := list(a); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("images are %v, want both specs", got)
	}
	// Neither spec is built again, here or where the image is carried to.
	for _, spec := range []api.ImageSpec{one.Spec, two.Spec} {
		if _, changed, err := a.Build(ctx, spec, nil); err != nil || changed {
			t.Errorf("%s is built again: %v", spec.Name, err)
		}
	}
	made(t, b, one.Spec)
	var stream bytes.Buffer
	if err := a.Export(ctx, one.ID, &stream); err != nil {
		t.Fatal(err)
	}
	again := bytes.NewReader(stream.Bytes())
	if _, changed, err := b.Import(ctx, &stream, one.ID); err != nil || !changed {
		t.Errorf("import of a record that was missing: changed %v, %v", changed, err)
	}
	if _, changed, err := b.Import(ctx, again, one.ID); err != nil || changed {
		t.Errorf("import of nothing new: changed %v, %v", changed, err)
	}
	if got := list(b); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("images there are %v, want both specs", got)
	}
}

func TestGet(t *testing.T) {
	s := open(t)
	if _, err := s.Get(t.Context(), "base"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of an empty store: %v", err)
	}
	old := made(t, s, archive(t, "base", map[string]string{"x": "1"}))
	time.Sleep(time.Until(old.Created.Add(time.Second)))
	young := made(t, s, archive(t, "base", map[string]string{"x": "2"}))
	digest := strings.TrimPrefix(old.ID, "sha256:")
	for _, row := range []struct{ name, ref, want string }{
		{"a name gives the newest", "base", young.ID},
		{"an ID", old.ID, old.ID},
		{"a digest", digest, old.ID},
		{"a prefix of an ID", old.ID[:20], old.ID},
		{"a prefix of a digest", digest[:8], old.ID},
		{"a prefix that is too short", digest[:7], ""},
		{"nothing", "", ""},
		{"a path", "../.images", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			img, err := s.Get(t.Context(), row.ref)
			if img.ID != row.want || (err == nil) != (row.want != "") {
				t.Errorf("Get(%q) = %s, %v; want %s", row.ref, img.ID, err, row.want)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	s := open(t)
	img := made(t, s, archive(t, "base", map[string]string{"x": "1"}))
	err := s.Remove(t.Context(), img.ID, func(string) ([]string, error) { return []string{"www", "mail"}, nil })
	if err == nil || !strings.Contains(err.Error(), "used by www, mail") {
		t.Errorf("remove of a used one: %v", err)
	}
	contains(t, s, img)
	nobody := func(string) ([]string, error) { return nil, nil }
	if err := s.Remove(t.Context(), img.ID, nobody); err != nil {
		t.Fatal(err)
	}
	contains(t, s)
	if err := s.Remove(t.Context(), img.ID, nobody); !errors.Is(err, ErrNotFound) {
		t.Errorf("remove twice: %v", err)
	}
	if err := s.Remove(t.Context(), "sha256:../../etc", nobody); err == nil {
		t.Error("an ID that is a path was taken")
	}
}

func TestOnlyRootReachesTheTrees(t *testing.T) {
	s, plain := open(t), open(t)
	plain.Plain = true
	img := made(t, s, archive(t, "base", map[string]string{"x": "1"}))
	made(t, plain, archive(t, "base", map[string]string{"x": "1"}))
	for path, want := range map[string]os.FileMode{
		s.dir: 0o700, s.path(img.ID): 0o700, s.objects.Dir(): 0o700,
		plain.dir: 0o700, plain.path(img.ID): 0o700, filepath.Join(plain.path(img.ID), plainTree): 0o755,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s is %v, want %v", path, info.Mode().Perm(), want)
		}
	}
}

func TestDamagedRecordIsNamed(t *testing.T) {
	s := open(t)
	img := made(t, s, archive(t, "base", map[string]string{"x": "1"}))
	name := filepath.Join(s.path(img.ID), img.Key+recordSuffix)
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("list: %v, want the file's name", err)
	}
}

// layoutOf returns a tar archive of an OCI layout with an image of one layer.
func layoutOf(t testing.TB, layer []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	add := func(name string, content []byte) {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	digest := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
	blob := func(kind, content string) string {
		add("blobs/sha256/"+digest([]byte(content)), []byte(content))
		return fmt.Sprintf(`{"mediaType": "application/vnd.oci.image.%s", "digest": "sha256:%s", "size": %d}`, kind, digest([]byte(content)), len(content))
	}
	config := blob("config.v1+json", fmt.Sprintf(`{"os": "linux", "architecture": %q, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}`, runtime.GOARCH, digest(layer)))
	add("index.json", []byte(`{"manifests": [`+blob("manifest.v1+json", `{"config": `+config+`, "layers": [`+blob("layer.v1.tar", string(layer))+`]}`)+`]}`))
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBuildFromWhatTheControllerSends(t *testing.T) {
	ctx := t.Context()
	s := open(t)
	spec := api.ImageSpec{Name: "debian", Method: "oci", Args: []string{"-r", "docker.io/library/debian:bookworm"}}
	tree, err := os.ReadFile(archive(t, "debian", map[string]string{"etc/os-release": "ID=test\n"}).Args[1])
	if err != nil {
		t.Fatal(err)
	}
	sent := layoutOf(t, tree)
	clean := func() {
		t.Helper()
		if left, _ := filepath.Glob(filepath.Join(s.dir, tmpPrefix+"*")); len(left) > 0 {
			t.Errorf("%q are left", left)
		}
	}
	cut := io.MultiReader(bytes.NewReader(sent[:len(sent)/2]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, _, err := s.BuildFrom(ctx, spec, false, Input{Archive: cut, Source: "a@sha256:1"}, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("half of it: %v", err)
	}
	clean()
	damaged := bytes.Replace(sent, []byte("ID=test"), []byte("ID=evil"), 1)
	if _, _, err := s.BuildFrom(ctx, spec, false, Input{Archive: bytes.NewReader(damaged)}, nil); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Fatalf("a damaged layer: %v", err)
	}
	clean()
	img, changed, err := s.BuildFrom(ctx, spec, false, Input{Archive: bytes.NewReader(sent), Source: "a@sha256:1"}, nil)
	if err != nil || !changed || img.Source != "a@sha256:1" {
		t.Fatalf("changed %v, source %q: %v", changed, img.Source, err)
	}
	contains(t, s, img)
	if _, err := os.Lstat(filepath.Join(s.path(img.ID), "input")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was sent is kept: %v", err)
	}
	clean()
	again, changed, err := s.BuildFrom(ctx, spec, false, Input{Archive: iotest.ErrReader(errors.New("it was read"))}, nil)
	if err != nil || changed || again.ID != img.ID {
		t.Errorf("what is there: %v, changed %v, %v", again.ID, changed, err)
	}
	if _, changed, err = s.BuildFrom(ctx, spec, true, Input{Archive: bytes.NewReader(sent), Source: "a@sha256:1"}, nil); err != nil || changed {
		t.Errorf("the next version, the same: changed %v, %v", changed, err)
	}
}
