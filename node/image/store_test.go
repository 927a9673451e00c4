package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// archive writes a template and gives the spec that builds from it.
func archive(t testing.TB, name string, files map[string]string) api.ImageSpec {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	for name, content := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1e9, 0)}
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
	if content, err := os.ReadFile(filepath.Join(b.Tree(img.ID), "etc/os-release")); err != nil || string(content) != "ID=test\n" {
		t.Fatalf("read imported file: %q, %v", content, err)
	}
}
