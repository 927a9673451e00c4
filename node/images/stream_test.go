package images

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/api"
)

func TestDamagedStreamIsRefused(t *testing.T) {
	ctx := context.Background()
	a := open(t)
	img := made(t, a, archive(t, "base", map[string]string{"etc/os-release": "ID=test\n", "bin/true": strings.Repeat("true", 1000)}))
	other := made(t, a, archive(t, "other", map[string]string{"x": "y"}))
	var packed bytes.Buffer
	if err := a.Export(ctx, img.ID, &packed); err != nil {
		t.Fatal(err)
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := d.DecodeAll(packed.Bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	repack := func(from, to string) []byte {
		e, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Replace(plain, []byte(from), []byte(to), 1)
		if bytes.Equal(changed, plain) {
			t.Fatalf("%q is not in the stream", from)
		}
		return e.EncodeAll(changed, nil)
	}
	type row struct {
		name   string
		stream []byte
		want   string
	}
	rows := []row{
		{"another image than was asked for", packed.Bytes(), other.ID},
		{"an ID that is none", packed.Bytes(), "sha256:../../etc"},
		{"nothing", nil, img.ID},
		{"no zstd", []byte("-bash: vsnode: command not found\n"), img.ID},
		{"another version", repack("image-1", "image-2"), img.ID},
		{"another content, check sums right", repack("ID=test", "ID=evil"), img.ID},
		{"another name, check sums right", repack("bin/true", "bin/trux"), img.ID},
		{"another spec than its key", repack(`"template"`, `"templatf"`), img.ID},
		{"another number of files", repack(`"files":4`, `"files":5`), img.ID},
		{"something after the end", append(bytes.Clone(packed.Bytes()), d2(t, make([]byte, 1<<20))...), img.ID},
	}
	for cut := 1; cut < packed.Len(); cut += 1 + packed.Len()/40 {
		rows = append(rows, row{fmt.Sprintf("cut after %d bytes", cut), packed.Bytes()[:cut], img.ID})
		flipped := bytes.Clone(packed.Bytes())
		flipped[cut] ^= 0x10
		if same, err := d.DecodeAll(flipped, nil); err == nil && bytes.Equal(same, plain) {
			continue // a bit without a meaning, or a match elsewhere with the same bytes
		}
		rows = append(rows, row{fmt.Sprintf("byte %d flipped", cut), flipped, img.ID})
	}
	rows = append(rows, row{"cut before the last byte", packed.Bytes()[:packed.Len()-1], img.ID})
	b := open(t)
	for _, row := range rows {
		if _, _, err := b.Import(ctx, bytes.NewReader(row.stream), row.want); err == nil {
			t.Errorf("%s: was imported", row.name)
		}
		contains(t, b)
	}
	if _, changed, err := b.Import(ctx, &packed, img.ID); err != nil || !changed {
		t.Errorf("the whole stream: changed %v, %v", changed, err)
	}
}

// d2 packs a second frame.
func d2(t testing.TB, b []byte) []byte {
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(b, nil)
}

func TestChangedTreeIsNotHandedOn(t *testing.T) {
	s := open(t)
	s.Plain = true
	img := made(t, s, archive(t, "base", map[string]string{"x": "y"}))
	if err := os.WriteFile(filepath.Join(s.path(img.ID), plainTree, "x"), []byte("z"), 0o644); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := s.Export(t.Context(), img.ID, &stream); err == nil || !strings.Contains(err.Error(), "its tree was changed") {
		t.Errorf("export: %v", err)
	}
	if _, _, err := open(t).Import(t.Context(), &stream, img.ID); err == nil {
		t.Error("what was exported could be imported")
	}
}

func FuzzStream(f *testing.F) {
	img := api.Image{ID: "sha256:" + strings.Repeat("0", 64), Spec: api.ImageSpec{Name: "x", Method: "template"}}
	img.Key = img.Spec.Key()
	b, err := json.Marshal([]api.Image{img})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(magic + string(b) + "\n"))
	f.Add([]byte(magic + "[]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		images, err := readRecords(bytes.NewReader(data), magic)
		if err == nil && (len(images) == 0 || !validID(images[0].ID)) {
			t.Errorf("accepted %v", images)
		}
	})
}
