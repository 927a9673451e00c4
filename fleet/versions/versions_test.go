package versions

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func id(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func image(digit string) api.Image {
	return api.Image{ID: id(digit), Key: "spec", Spec: api.ImageSpec{Name: "web"}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *Keeper {
	t.Helper()
	k, err := Open(path, "me@here")
	must(t, err)
	return k
}

// TestLife: a first version, updates on two architectures, a rollback, a release.
func TestLife(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), FileName)
	k := open(t, path)
	current := func(arch, want string) {
		t.Helper()
		if got := open(t, path).Current("web", "spec", arch); got != want {
			t.Errorf("on %s %q is current, want %q", arch, got, want)
		}
	}
	current("amd64", "")
	must(t, k.Begin(ctx, image("1"), "amd64", "a"))
	must(t, k.Begin(ctx, image("9"), "amd64", "a"))
	must(t, k.Begin(ctx, image("2"), "arm64", "b"))
	current("amd64", id("1"))
	current("arm64", id("2"))
	must(t, k.Built(ctx, image("1"), "amd64", "a"))
	must(t, k.Built(ctx, image("3"), "amd64", "a"))
	must(t, k.Built(ctx, image("4"), "arm64", "b"))
	if n := k.File().Newest("web"); n != 2 {
		t.Errorf("%d versions, want 2: %+v", n, k.File())
	}
	current("amd64", id("3"))
	current("arm64", id("4"))
	must(t, k.Built(ctx, image("5"), "amd64", "a"))
	if kept := k.File().Kept(); !slices.Equal(kept, []string{id("5"), id("4"), id("3"), id("2")}) {
		t.Errorf("a rollback needs %q", kept)
	}
	if from, to, err := k.Rollback(ctx, "web", "spec", "it is new"); from != 3 || to != 2 || err != nil {
		t.Errorf("from %d to %d, %v", from, to, err)
	}
	from, to, err := k.Rollback(ctx, "web", "spec", "it is slow")
	if from != 2 || to != 1 || err != nil {
		t.Errorf("from %d to %d, %v", from, to, err)
	}
	current("amd64", id("1"))
	current("arm64", id("2"))
	if _, _, err := k.Rollback(ctx, "web", "spec", ""); err == nil || !strings.Contains(err.Error(), "no version before 1") {
		t.Errorf("a second rollback: %v", err)
	}
	if err := k.Built(ctx, image("3"), "amd64", "a"); err == nil || !strings.Contains(err.Error(), "version 2, which is held: it is slow") {
		t.Errorf("a held version is built again: %v", err)
	}
	if _, err := k.Release(ctx, "web", 7); err == nil {
		t.Error("a version that is not there is released")
	}
	changed, err := k.Release(ctx, "web", 2)
	if !changed || err != nil {
		t.Error(changed, err)
	}
	current("amd64", id("3"))
	note, err := k.Failed(ctx, id("3"), "guest www of a: not healthy")
	if err != nil || !strings.Contains(note, "version 2 is held now") {
		t.Errorf("%q, %v", note, err)
	}
	for _, other := range []string{id("3"), id("8")} { // held already; of no version
		if note, err := k.Failed(ctx, other, "again"); note != "" || err != nil {
			t.Errorf("%q, %v", note, err)
		}
	}
	current("amd64", id("1"))
	current("arm64", id("2"))
	if got := open(t, path).Current("web", "another spec", "amd64"); got != "" {
		t.Errorf("another spec has %s", got)
	}
}

// TestTwoAtOnce: keepers that change one file lose nothing.
func TestTwoAtOnce(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), FileName)
	var group sync.WaitGroup
	for _, digit := range strings.Split("0123456789abcdef", "") {
		group.Go(func() {
			if err := open(t, path).Built(ctx, image(digit), "amd64", "a"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	f, err := Read(path)
	if must(t, err); len(f.Images["web"]) != 16 || f.Newest("web") != 16 {
		t.Errorf("%d versions up to %d, want 16", len(f.Images["web"]), f.Newest("web"))
	}
}

func TestParse(t *testing.T) {
	good := "{version: 1, id: '" + id("1") + "', spec: k, arch: amd64, built: 2026-01-02T03:04:05Z}"
	for _, row := range []struct{ name, text, err string }{
		{"nothing", "", ""},
		{"a version", "images: {web: [" + good + "]}", ""},
		{"two architectures", "images: {web: [" + good + ", " + strings.Replace(good, "amd64", "arm64", 1) + "]}", ""},
		{"an unknown key", "images: {web: [{number: 1}]}", "line 1: field number not found"},
		{"one version twice", "images: {web: [" + good + ", " + good + "]}", "image web, version 1: it is there twice for amd64"},
		{"an ID that is no digest", "images: {web: [{version: 1, id: sha256:1, spec: k, arch: a}]}", `id "sha256:1": want sha256:`},
		{"no number", "images: {web: [{id: x}]}", "numbered from 1"},
		{"no architecture", strings.Replace("images: {web: ["+good+"]}", "arch: amd64, ", "", 1), "it needs a spec and an arch"},
		{"a list", "[1]", "it cannot be read"},
		{"a conflict of the repository's", "<<<<<<< HEAD\nimages: {}\n", "it cannot be read"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := Parse([]byte(row.text))
			if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
				t.Errorf("error %v, want %q", err, row.err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("images: {web: [{version: 1, id: sha256:1, spec: k, arch: a, held: {reason: x}}]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err == nil {
			for name := range file.Images {
				file.Current(name, "k", "a")
			}
		}
	})
}

// TestPath: beside the file with the images, wherever the hosts are.
func TestPath(t *testing.T) {
	dir := t.TempDir()
	hosts, images := filepath.Join(dir, "hosts.yml"), filepath.Join(dir, "fleet", "fleet.yml")
	must(t, os.Mkdir(filepath.Dir(images), 0o700))
	must(t, os.WriteFile(hosts, []byte("hosts: {a: {address: 192.0.2.1}}"), 0o600))
	must(t, os.WriteFile(images, []byte("images: {web: {method: template, args: [-t, /x.tar]}}"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "fleet", FileName), []byte("images: {}"), 0o600))
	for _, row := range []struct {
		name        string
		inventories []string
		want        string
	}{
		{"a file", []string{images}, filepath.Join(dir, "fleet", FileName)},
		{"the file's directory", []string{filepath.Join(dir, "fleet")}, filepath.Join(dir, "fleet", FileName)},
		{"hosts, and a file", []string{hosts, images}, filepath.Join(dir, "fleet", FileName)},
		{"hosts alone", []string{hosts}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			inv, err := inventory.Load(row.inventories...)
			must(t, err)
			if got := Path(inv); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
	if err := Change(context.Background(), "", func(*File) error { return nil }); err == nil {
		t.Error("versions are kept nowhere")
	}
}
