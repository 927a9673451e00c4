package registry_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/fleet/registry"
	"github.com/vsfleet/vsfleet/fleet/registry/registrytest"
)

// A root is what an image holds: "path" and its content, "path/" or "path -> first name".
type root map[string]string

func (r root) archive(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	var names []string
	for name := range r {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h := &tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(r[name])), ModTime: time.Unix(1e9, 0),
			PAXRecords: map[string]string{"SCHILY.xattr.user.of": name}}
		target, link := strings.CutPrefix(r[name], "-> ")
		switch {
		case link:
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, target, 0, nil
		case strings.HasSuffix(name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		must(t, tw.WriteHeader(h))
		if h.Typeflag == tar.TypeReg {
			_, err := io.WriteString(tw, r[name])
			must(t, err)
		}
	}
	must(t, tw.Close())
	return out.Bytes()
}

// host is a host with images.
type host map[string][]byte // archives, by ID

func (h host) content(id string) registry.Content {
	return registry.Content{
		ID: id, Arch: "amd64", Created: time.Unix(1.7e9, 0).UTC(), Labels: map[string]string{"io.vsfleet.image.name": "base"},
		Has:  func(id string) bool { return h[id] != nil },
		Most: func(string) int64 { return 10 << 20 },
		Export: func(_ context.Context, id string, w io.Writer) error {
			z, err := zstd.NewWriter(w)
			if err != nil {
				return err
			}
			fmt.Fprintf(z, "vsfleet-image-1\n[{\"id\": %q}]\n", id)
			if _, err := z.Write(h[id]); err != nil {
				return err
			}
			return z.Close()
		},
	}
}

// inLayers returns what each layer of an image holds.
func inLayers(t testing.TB, reference string) (layers []string, img v1.Image) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	must(t, err)
	img, err = remote.Image(ref)
	must(t, err)
	all, err := img.Layers()
	must(t, err)
	for _, l := range all {
		r, err := l.Uncompressed()
		must(t, err)
		var names []string
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			must(t, err)
			names = append(names, h.Name)
		}
		layers = append(layers, strings.Join(names, " "))
	}
	return layers, img
}

func TestPush(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	r := registrytest.Start(t, registrytest.Options{})
	tag := r.Addr + "/base:one"
	c := &registry.Client{}
	first := root{"etc/": "", "etc/a": "a", "etc/same": "same", "usr/": "", "usr/l1": "linked", "usr/l2": "-> usr/l1", "usr/l3": "-> usr/l1", "usr/l4": "four", "usr/l5": "four", "var/": "", "var/gone/": "", "var/gone/x": "x", "var/gone/y": "y", "was/": "", "was/in": "in"}
	second := root{"etc/": "", "etc/a": "changed", "etc/same": "same", "etc/new": "new", "usr/": "", "usr/l1": "linked", "usr/l2": "-> usr/l1", "usr/l3": "now alone", "usr/l4": "four", "usr/l5": "-> usr/l4", "var/": "", "was": "a file now"}
	h := host{"sha256:1": first.archive(t), "sha256:2": second.archive(t)}

	one, err := c.Push(t.Context(), tag, h.content("sha256:1"), func(int64, int64) {})
	must(t, err)
	t.Run("a first image is one layer, with what it is", func(t *testing.T) {
		layers, img := inLayers(t, tag)
		config, err := img.ConfigFile()
		must(t, err)
		digest, err := img.Digest()
		must(t, err)
		if len(layers) != 1 || !strings.Contains(layers[0], "etc/a") || one.Bytes == 0 || one.Base != "" || !strings.HasSuffix(one.Source, digest.String()) {
			t.Errorf("%q, %+v", layers, one)
		}
		if config.Architecture != "amd64" || config.OS != "linux" || config.Config.Labels["io.vsfleet.image.id"] != "sha256:1" || config.Config.Labels["io.vsfleet.image.name"] != "base" || config.Created.Unix() != 1.7e9 {
			t.Errorf("%+v", config)
		}
	})
	t.Run("the same again changes nothing, and has the same digest elsewhere", func(t *testing.T) {
		again, err := c.Push(t.Context(), tag, h.content("sha256:1"), nil)
		must(t, err)
		other, err := c.Push(t.Context(), r.Addr+"/other:x", h.content("sha256:1"), nil)
		must(t, err)
		_, digest, _ := strings.Cut(one.Source, "@")
		if again.Bytes != 0 || again.Source != one.Source || !strings.HasSuffix(other.Source, digest) {
			t.Errorf("%+v, %+v", again, other)
		}
	})
	t.Run("the next version is a layer on it", func(t *testing.T) {
		two, err := c.Push(t.Context(), tag, h.content("sha256:2"), nil)
		must(t, err)
		layers, _ := inLayers(t, tag)
		const want = "var/.wh.gone was/.wh.in etc/ etc/a etc/new usr/ usr/l3 usr/l4 usr/l5 var/ was"
		if len(layers) != 2 || layers[1] != want || two.Base != "sha256:1" {
			t.Errorf("%q, %+v", layers, two)
		}
	})
	t.Run("without the earlier version on the host it is whole", func(t *testing.T) {
		_, err := c.Push(t.Context(), tag, host{"sha256:1": h["sha256:1"]}.content("sha256:1"), nil)
		must(t, err)
		if layers, _ := inLayers(t, tag); len(layers) != 1 {
			t.Errorf("%q", layers)
		}
	})
	cut := h.content("sha256:1")
	cut.Export = func(_ context.Context, _ string, w io.Writer) error {
		io.WriteString(w, "\x28\xb5\x2f\xfd")
		return errors.New("the host is gone")
	}
	small := h.content("sha256:1")
	small.Most = func(string) int64 { return 2000 }
	for _, row := range []struct {
		name, ref string
		content   registry.Content
		want      string
	}{
		{"a host that is lost", r.Addr + "/bad:x", cut, "the host is gone"},
		{"a host that sends more than the image", r.Addr + "/bad:x", small, "it is more than the"},
		{"another image", r.Addr + "/bad:x", func() registry.Content {
			c := h.content("sha256:1")
			c.Export = func(ctx context.Context, _ string, w io.Writer) error {
				return h.content("").Export(ctx, "sha256:2", w)
			}
			return c
		}(), "sends another image"},
		{"a file that a layer cannot hold", r.Addr + "/bad:x", host{"sha256:3": root{"a/": "", "a/.wh.b": ""}.archive(t)}.content("sha256:3"), "no layer can hold"},
		{"a digest as the target", r.Addr + "/bad@sha256:" + strings.Repeat("0", 64), h.content("sha256:1"), "want HOST/NAME:TAG"},
		{"no registry", "127.0.0.1:1/x:y", h.content("sha256:1"), "connection refused"},
	} {
		t.Run(row.name+" is refused", func(t *testing.T) {
			if _, err := c.Push(t.Context(), row.ref, row.content, nil); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if _, err := c.Find(t.Context(), r.Addr+"/bad:x", "linux/amd64"); err == nil {
				t.Error("something was pushed")
			}
		})
	}
}
