package builder_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
)

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type object = map[string]any

// A layoutDir is a layout that is being written.
type layoutDir string

func newLayout(t testing.TB) layoutDir {
	t.Helper()
	l := layoutDir(t.TempDir())
	must(t, os.MkdirAll(l.path("blobs/sha256"), 0o755))
	must(t, os.WriteFile(l.path("oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	return l
}

func (l layoutDir) path(name string) string { return filepath.Join(string(l), name) }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// blob writes a blob and returns its descriptor.
func (l layoutDir) blob(t testing.TB, mediaType string, b []byte) object {
	t.Helper()
	must(t, os.WriteFile(l.path("blobs/sha256/"+strings.TrimPrefix(digestOf(b), "sha256:")), b, 0o644))
	return object{"mediaType": mediaType, "digest": digestOf(b), "size": len(b)}
}

func (l layoutDir) document(t testing.TB, mediaType string, v any) object {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return l.blob(t, mediaType, b)
}

// image writes an image of layers, each a tar archive, packed as its type says.
func (l layoutDir) image(t testing.TB, arch, layerType string, layers ...[]byte) object {
	t.Helper()
	blobs, ids := []object{}, []string{}
	for _, archive := range layers {
		ids = append(ids, digestOf(archive))
		blobs = append(blobs, l.blob(t, layerType, packed(t, layerType, archive)))
	}
	return l.manifest(t, arch, blobs, ids)
}

func (l layoutDir) manifest(t testing.TB, arch string, layers []object, ids []string) object {
	t.Helper()
	config := l.document(t, typeConfig, object{"os": "linux", "architecture": arch, "rootfs": object{"type": "layers", "diff_ids": ids},
		"config": object{"Entrypoint": []string{"/entry"}, "Cmd": []string{"serve"}}})
	return l.document(t, typeManifest, object{"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": layers})
}

// index writes index.json.
func (l layoutDir) index(t testing.TB, manifests ...object) {
	t.Helper()
	b, err := json.Marshal(object{"schemaVersion": 2, "manifests": manifests})
	must(t, err)
	must(t, os.WriteFile(l.path("index.json"), b, 0o644))
}

func named(d object, name string) object {
	d["annotations"] = object{"org.opencontainers.image.ref.name": name}
	return d
}

func packed(t testing.TB, mediaType string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		w = gzip.NewWriter(&out)
	case strings.HasSuffix(mediaType, "zstd"):
		z, err := zstd.NewWriter(&out)
		must(t, err)
		w = z
	default:
		return b
	}
	_, err := w.Write(b)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

// layer makes an archive of files with their names as content; names that end with a
// slash are directories.
func layer(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(name))}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		must(t, tw.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(tw, name)
			must(t, err)
		}
	}
	must(t, tw.Close())
	return b.Bytes()
}

func init() {
	fixtures["oci"] = fixture{spec: func(t *testing.T, source string) api.ImageSpec {
		base, err := exec.Command("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", source, "-c", ".").Output()
		must(t, err)
		l := newLayout(t)
		l.index(t, l.image(t, runtime.GOARCH, typeLayer+"+gzip", layer(t, "etc/passwd", "etc/gone", "var/lib/gone"), base, layer(t, "etc/.wh.gone", "var/lib/.wh.gone")))
		return api.ImageSpec{Method: "oci", Args: []string{"-s", string(l)}}
	}}
}

func TestOCILayouts(t *testing.T) {
	one := func(t testing.TB, l layoutDir) object {
		return l.image(t, runtime.GOARCH, typeLayer+"+gzip", layer(t, "etc/x", "srv/x"), layer(t, "etc/y", "srv/.wh..wh..opq"))
	}
	change := func(t testing.TB, l layoutDir, d object, f func([]byte) []byte) {
		name := l.path("blobs/sha256/" + strings.TrimPrefix(d["digest"].(string), "sha256:"))
		b, err := os.ReadFile(name)
		must(t, err)
		must(t, os.WriteFile(name, f(b), 0o644))
	}
	for _, row := range []struct {
		name  string
		make  func(t testing.TB, l layoutDir) (args []string)
		want  string // names of files in etc and srv
		fails string
	}{
		{"one image of two layers", func(t testing.TB, l layoutDir) []string { l.index(t, one(t, l)); return nil }, "x y", ""},
		{"plain layers", func(t testing.TB, l layoutDir) []string {
			l.index(t, l.image(t, runtime.GOARCH, typeLayer, layer(t, "etc/x"), layer(t)))
			return nil
		}, "x", ""},
		{"layers packed by zstd", func(t testing.TB, l layoutDir) []string {
			l.index(t, l.image(t, runtime.GOARCH, typeLayer+"+zstd", layer(t, "etc/x"), layer(t, "etc/.wh.x", "etc/z")))
			return nil
		}, "z", ""},
		{"docker's types", func(t testing.TB, l layoutDir) []string {
			d := l.image(t, runtime.GOARCH, "application/vnd.docker.image.rootfs.diff.tar.gzip", layer(t, "etc/x"))
			d["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
			l.index(t, d)
			return nil
		}, "x", ""},
		{"an index of architectures, of which one is there", func(t testing.TB, l layoutDir) []string {
			mine := one(t, l)
			mine["platform"] = object{"os": "linux", "architecture": runtime.GOARCH}
			l.index(t, l.document(t, typeIndex, object{"schemaVersion": 2, "manifests": []object{
				{"mediaType": typeManifest, "digest": digestOf([]byte("not there")), "size": 9, "platform": object{"os": "linux", "architecture": "s390x"}},
				{"mediaType": typeManifest, "digest": digestOf([]byte("attestation")), "size": 11, "platform": object{"os": "unknown", "architecture": "unknown"}},
				mine,
			}}))
			return nil
		}, "x y", ""},
		{"one of two names", func(t testing.TB, l layoutDir) []string {
			l.index(t, named(one(t, l), "a:1"), named(l.image(t, runtime.GOARCH, typeLayer, layer(t, "etc/second")), "b:1"))
			return []string{"-r", "b:1"}
		}, "second", ""},
		{"another platform by its name", func(t testing.TB, l layoutDir) []string {
			l.index(t, one(t, l), l.image(t, "riscv64", typeLayer, layer(t, "etc/riscv")))
			return []string{"-p", "linux/riscv64"}
		}, "riscv", ""},
		{"an archive of a layout", func(t testing.TB, l layoutDir) []string {
			l.index(t, one(t, l))
			file := filepath.Join(t.(*testing.T).TempDir(), "image.tar")
			if out, err := exec.Command("tar", "-C", string(l), "-cf", file, ".").CombinedOutput(); err != nil {
				t.Fatalf("tar: %s", out)
			}
			return []string{"-s", file}
		}, "x y", ""},

		{"no layout", func(testing.TB, layoutDir) []string { return nil }, "", "it has no index.json"},
		{"an archive of docker's older kind", func(t testing.TB, l layoutDir) []string {
			must(t, os.WriteFile(l.path("manifest.json"), []byte("[]"), 0o644))
			return nil
		}, "", "skopeo copy docker-archive:FILE"},
		{"a compressed archive", func(t testing.TB, l layoutDir) []string {
			file := l.path("image.tar.gz")
			must(t, os.WriteFile(file, packed(t, "gzip", layer(t, "index.json")), 0o644))
			return []string{"-s", file}
		}, "", "unpack it first if it is compressed"},
		{"a registry", func(testing.TB, layoutDir) []string { return []string{"-s", "docker.io/library/nginx:1"} }, "", "an image of a registry is named by -r alone"},
		{"a layout that is not there", func(testing.TB, layoutDir) []string { return []string{"-s", "/nowhere"} }, "", "no /nowhere on this host"},
		{"a platform that is none", func(testing.TB, layoutDir) []string { return []string{"-p", "arm64"} }, "", "want OS/ARCH[/VARIANT]"},
		{"no image", func(t testing.TB, l layoutDir) []string { l.index(t); return nil }, "", "there is no image in it"},
		{"two images without a name", func(t testing.TB, l layoutDir) []string {
			l.index(t, one(t, l), l.image(t, runtime.GOARCH, typeLayer, layer(t, "etc/second")))
			return nil
		}, "", "there are 2 images for linux/" + runtime.GOARCH},
		{"a name that is not there", func(t testing.TB, l layoutDir) []string {
			l.index(t, named(one(t, l), "a:1"))
			return []string{"-r", "b:1"}
		}, "", `there is no image "b:1" in it, only ["a:1"]`},
		{"an image for another architecture", func(t testing.TB, l layoutDir) []string {
			l.index(t, l.image(t, "s390x", typeLayer, layer(t, "etc/x")))
			return nil
		}, "", "only for linux/s390x"},
		{"an index in itself, again and again", func(t testing.TB, l layoutDir) []string {
			d := one(t, l)
			for range 6 {
				d = l.document(t, typeIndex, object{"manifests": []object{d}})
			}
			l.index(t, d)
			return nil
		}, "", "nested too deeply"},
		{"an artifact that is no root", func(t testing.TB, l layoutDir) []string {
			l.index(t, l.manifest(t, runtime.GOARCH, []object{l.blob(t, "text/plain", []byte("hello"))}, nil))
			return nil
		}, "", "want the image of a root filesystem"},
		{"a layer of an unknown type", func(t testing.TB, l layoutDir) []string {
			l.index(t, l.manifest(t, runtime.GOARCH, []object{l.blob(t, typeLayer+"+lz4", nil)}, []string{"sha256:x"}))
			return nil
		}, "", "want a tar archive, alone or packed by gzip or zstd"},
		{"a layer with a changed byte", func(t testing.TB, l layoutDir) []string {
			archive := layer(t, "etc/x")
			d := l.blob(t, typeLayer, archive)
			change(t, l, d, func(b []byte) []byte { return bytes.Replace(b, []byte("etc/x"), []byte("etc/y"), 1) })
			l.index(t, l.manifest(t, runtime.GOARCH, []object{d}, []string{digestOf(archive)}))
			return nil
		}, "", "invalid tar header"},
		{"a layer with other content", func(t testing.TB, l layoutDir) []string {
			archive := layer(t, "etc/x")
			d := l.blob(t, typeLayer, archive)
			change(t, l, d, func([]byte) []byte { return layer(t, "etc/y") })
			l.index(t, l.manifest(t, runtime.GOARCH, []object{d}, []string{digestOf(archive)}))
			return nil
		}, "", "is damaged: it has the digest"},
		{"a layer that was cut off", func(t testing.TB, l layoutDir) []string {
			archive := layer(t, "etc/x")
			d := l.blob(t, typeLayer, archive)
			change(t, l, d, func(b []byte) []byte { return b[:len(b)-512] })
			l.index(t, l.manifest(t, runtime.GOARCH, []object{d}, []string{digestOf(archive)}))
			return nil
		}, "", "is damaged"},
		{"a layer with another content than the configuration says", func(t testing.TB, l layoutDir) []string {
			l.index(t, l.manifest(t, runtime.GOARCH, []object{l.blob(t, typeLayer, layer(t, "etc/x"))}, []string{digestOf(nil)}))
			return nil
		}, "", "and the image's configuration names"},
		{"a manifest with a changed byte", func(t testing.TB, l layoutDir) []string {
			d := one(t, l)
			change(t, l, d, func(b []byte) []byte { return append(b, ' ') })
			l.index(t, d)
			return nil
		}, "", "is damaged"},
		{"a digest that is a path", func(t testing.TB, l layoutDir) []string {
			l.index(t, object{"mediaType": typeManifest, "digest": "sha256:../../../../etc/passwd", "size": 1})
			return nil
		}, "", "want sha256: and 64 hexadecimal digits"},
		{"a blob that is a link out", func(t testing.TB, l layoutDir) []string {
			must(t, os.Symlink("/etc/passwd", l.path("blobs/sha256/"+strings.Repeat("0", 64))))
			l.index(t, object{"mediaType": typeManifest, "digest": "sha256:" + strings.Repeat("0", 64), "size": 1})
			return nil
		}, "", "escapes"},
		{"an index that is endless", func(t testing.TB, l layoutDir) []string {
			must(t, os.WriteFile(l.path("index.json"), bytes.Repeat([]byte(" "), 9<<20), 0o644))
			return nil
		}, "", "has more than 8 MiB"},
		{"an index that is no JSON", func(t testing.TB, l layoutDir) []string {
			must(t, os.WriteFile(l.path("index.json"), []byte("<html>"), 0o644))
			return nil
		}, "", "read the index"},
		{"a bomb", func(t testing.TB, l layoutDir) []string {
			var b bytes.Buffer
			must(t, tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bomb", Size: 1 << 45}))
			l.index(t, l.image(t, runtime.GOARCH, typeLayer+"+gzip", b.Bytes()))
			return nil
		}, "", "no space left on device"},
		{"a path that climbs", func(t testing.TB, l layoutDir) []string {
			l.index(t, l.image(t, runtime.GOARCH, typeLayer, layer(t, "../x")))
			return nil
		}, "", `".."`},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, dir := newLayout(t), t.TempDir()
			args := row.make(t, l)
			if len(args) == 0 || args[0] != "-s" {
				args = append(args, "-s", string(l))
			}
			err := builder.Run(t.Context(), builder.Request{Spec: api.ImageSpec{Method: "oci", Args: args}, Dir: dir})
			if row.fails != "" {
				if err == nil || !strings.Contains(err.Error(), row.fails) {
					t.Errorf("error is %v, want %q", err, row.fails)
				}
				if _, err := os.Stat(filepath.Join(dir, "etc/y")); err == nil {
					t.Error("it was unpacked nevertheless")
				}
				return
			}
			must(t, err)
			var got []string
			for _, d := range []string{"etc", "srv"} {
				entries, _ := os.ReadDir(filepath.Join(dir, d))
				for _, e := range entries {
					got = append(got, e.Name())
				}
			}
			if strings.Join(got, " ") != row.want {
				t.Errorf("it holds %q, want %s", got, row.want)
			}
		})
	}
}

// FuzzLayout holds that no archive of a layout takes much time or leads out of it.
func FuzzLayout(f *testing.F) {
	l := newLayout(f)
	l.index(f, l.image(f, runtime.GOARCH, typeLayer+"+gzip", layer(f, "etc/x"), layer(f, "etc/.wh.x")))
	seed, err := exec.Command("tar", "-C", string(l), "-c", ".").Output()
	must(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "layout.tar")
		must(t, os.WriteFile(file, data, 0o600))
		dir := t.TempDir()
		if err := builder.Run(t.Context(), builder.Request{Spec: api.ImageSpec{Method: "oci", Args: []string{"-s", file}}, Dir: dir}); err == nil {
			if _, err := os.Lstat(filepath.Join(dir, "etc")); err != nil {
				t.Error(err)
			}
		}
	})
}

// What the controller sends is a layout of one image, whatever that is called there.
func TestAnImageOfARegistryComesFromTheController(t *testing.T) {
	l := newLayout(t)
	l.index(t, l.image(t, runtime.GOARCH, typeLayer, layer(t, "etc/x")))
	file := filepath.Join(t.TempDir(), "input")
	if out, err := exec.Command("tar", "-C", string(l), "-cf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %s", out)
	}
	req := builder.Request{Spec: api.ImageSpec{Method: "oci", Args: []string{"-r", "docker.io/library/debian:bookworm"}}, Dir: t.TempDir(), Input: file}
	must(t, builder.Run(t.Context(), req))
	if _, err := os.Stat(filepath.Join(req.Dir, "etc/x")); err != nil {
		t.Error(err)
	}
	req.Dir, req.Input = t.TempDir(), ""
	if err := builder.Run(t.Context(), req); err == nil || !strings.Contains(err.Error(), "skopeo copy docker://docker.io/library/debian:bookworm oci:DIRECTORY") {
		t.Errorf("on a host alone: %v", err)
	}
	req.Spec.Args = nil
	if err := builder.Run(t.Context(), req); err == nil || !strings.Contains(err.Error(), "which image?") {
		t.Errorf("without a name: %v", err)
	}
}
