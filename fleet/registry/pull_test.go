package registry_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/bcrypt"

	"github.com/vsfleet/vsfleet/fleet/registry"
	"github.com/vsfleet/vsfleet/fleet/registry/registrytest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// layer is what a layer holds; what it is does not matter to a registry.
var layer = bytes.Repeat([]byte("a layer of an image\n"), 50_000)

func imageFor(t testing.TB, arch string) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(layer, types.OCIUncompressedLayer))
	must(t, err)
	config, err := img.ConfigFile()
	must(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	img, err = mutate.ConfigFile(img, config)
	must(t, err)
	return img
}

// upload writes an image to a registry, past vsfleet.
func upload(t testing.TB, reference string, img v1.Image, options ...remote.Option) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	must(t, err)
	must(t, remote.Write(ref, img, options...))
}

func fetch(t testing.TB, c *registry.Client, ref, platform string) (*registry.Image, map[string][]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	img, err := c.Find(ctx, ref, platform)
	if err != nil {
		return nil, nil, err
	}
	layout, err := img.Fetch(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	defer layout.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(layout.Open()); ; {
		h, err := r.Next()
		if err == io.EOF {
			return img, files, nil
		}
		must(t, err)
		files[h.Name], err = io.ReadAll(r)
		must(t, err)
	}
}

func TestPull(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	r := registrytest.Start(t, registrytest.Options{})
	repo := r.Addr + "/some/image"
	img := imageFor(t, "amd64")
	upload(t, repo+":one", img)
	ref, err := name.ParseReference(repo + ":both")
	must(t, err)
	must(t, remote.WriteIndex(ref, mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: imageFor(t, "arm64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}},
	)))
	digest, err := img.Digest()
	must(t, err)
	c := &registry.Client{Pause: time.Millisecond}

	for _, tag := range []string{":one", ":both", "@" + digest.String()} {
		t.Run("an image is pinned and becomes a layout, by "+tag[:1], func(t *testing.T) {
			got, files, err := fetch(t, c, repo+tag, "linux/amd64")
			must(t, err)
			if want := repo + "@" + digest.String(); got.Source != want {
				t.Errorf("source %s, want %s", got.Source, want)
			}
			if len(files) != 5 || !bytes.Contains(files["index.json"], []byte(digest.String())) {
				t.Errorf("the layout has %d files, and the index %s", len(files), files["index.json"])
			}
			for name, content := range files {
				sum := sha256.Sum256(content)
				if hexa, is := strings.CutPrefix(name, "blobs/sha256/"); is && hexa != hex.EncodeToString(sum[:]) {
					t.Errorf("%s has other content", name)
				}
			}
		})
	}
	for _, row := range []struct{ name, ref, platform, want string }{
		{"a tag that is not there", repo + ":none", "linux/amd64", "no such image or tag"},
		{"an image that is not there", r.Addr + "/none:one", "linux/amd64", "no such image or tag"},
		{"an image for another architecture", repo + ":one", "linux/arm64", "there is no image for linux/arm64, only for linux/amd64"},
		{"an index without the architecture", repo + ":both", "linux/riscv64", "there is no image for linux/riscv64, only for linux/amd64, linux/arm64/v8"},
		{"what is no reference", "UPPER/case:x", "linux/amd64", "want HOST/NAME:TAG"},
		{"what is no platform", repo + ":one", "a/b/c/d", "want OS/ARCH"},
		{"a registry that is not there", "127.0.0.1:1/x:y", "linux/amd64", "connection refused"},
	} {
		t.Run(row.name+" is named", func(t *testing.T) {
			if _, _, err := fetch(t, c, row.ref, row.platform); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
	t.Run("a connection that is cut is made again", func(t *testing.T) {
		var cuts atomic.Int32
		proxy := cutting(t, r.Addr, &cuts, 2)
		if _, files, err := fetch(t, c, proxy+"/some/image:one", "linux/amd64"); err != nil || len(files) != 5 || cuts.Load() < 2 {
			t.Errorf("%d cuts, %d files: %v", cuts.Load(), len(files), err)
		}
	})
	for _, row := range []struct {
		name   string
		cut    int
		ranges bool // the registry knows them
		sent   int  // bytes of the layer, in all
	}{
		{"after its first byte", 1, true, len(layer)},
		{"in its middle", len(layer) / 2, true, len(layer)},
		{"before its last byte", len(layer) - 1, true, len(layer)},
		{"by a registry without ranges", len(layer) / 2, false, len(layer) / 2 * 3},
	} {
		t.Run("a layer that is cut off continues: "+row.name, func(t *testing.T) {
			var tries, sent atomic.Int64
			proxy := before(t, r.Addr, func(w http.ResponseWriter, req *http.Request) {
				if !row.ranges {
					req.Header.Del("Range")
				}
				if tries.Add(1) > 1 {
					var from int
					if n, _ := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); n == 0 && row.ranges {
						t.Errorf("the second request has no range")
					}
					sent.Add(int64(len(layer) - from))
					return // the registry answers
				}
				sent.Add(int64(row.cut))
				w.Header().Set("Content-Length", strconv.Itoa(len(layer)))
				w.Write(layer[:row.cut])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			})
			if _, files, err := fetch(t, c, proxy+"/some/image:one", "linux/amd64"); err != nil || len(files) != 5 {
				t.Errorf("%d files: %v", len(files), err)
			}
			if tries.Load() != 2 || sent.Load() != int64(row.sent) {
				t.Errorf("%d bytes in %d requests, want %d in 2", sent.Load(), tries.Load(), row.sent)
			}
		})
	}
	t.Run("a connection that is always cut is given up", func(t *testing.T) {
		var cuts atomic.Int32
		proxy := cutting(t, r.Addr, &cuts, 1000)
		if _, _, err := fetch(t, c, proxy+"/some/image:one", "linux/amd64"); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a registry that stands still is given up, and Ctrl-C ends the wait", func(t *testing.T) {
		gone := errors.New("interrupted")
		for _, row := range []struct {
			stall time.Duration
			want  string
		}{{200 * time.Millisecond, "has sent nothing for 200ms"}, {time.Minute, "interrupted"}} {
			ctx, cancel := context.WithCancelCause(t.Context())
			img, err := (&registry.Client{Stall: row.stall, Pause: time.Millisecond}).Find(ctx, stalling(t, r.Addr, func() {
				if row.stall > time.Second {
					cancel(gone)
				}
			})+"/some/image:one", "linux/amd64")
			must(t, err)
			if _, err := img.Fetch(ctx, nil); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %s", err, row.want)
			}
			cancel(nil)
		}
	})
	t.Run("a blob that the registry has damaged is refused", func(t *testing.T) {
		sum := sha256.Sum256(layer)
		file := r.Blob(hex.EncodeToString(sum[:]))
		b, err := os.ReadFile(file)
		must(t, err)
		b[1000] ^= 1
		must(t, os.WriteFile(file, b, 0o600))
		if _, _, err := fetch(t, c, repo+":one", "linux/amd64"); err == nil || !strings.Contains(err.Error(), "its content is not that of its digest") {
			t.Errorf("got %v", err)
		}
		must(t, os.WriteFile(file, b[:5000], 0o600))
		if _, _, err := fetch(t, c, repo+":one", "linux/amd64"); err == nil {
			t.Error("a short blob was taken")
		}
	})
}

// before returns the address of a server that passes requests for anything but the layer on.
func before(t testing.TB, addr string, blob http.HandlerFunc) string {
	t.Helper()
	sum := sha256.Sum256(layer)
	target, err := url.Parse("http://" + addr)
	must(t, err)
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, hex.EncodeToString(sum[:])) {
			blob(w, r)
			if r.Context().Err() != nil || w.Header().Get("Content-Length") != "" {
				return
			}
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// cutting cuts the connection in the middle of the layer, some times.
func cutting(t testing.TB, addr string, cuts *atomic.Int32, times int32) string {
	return before(t, addr, func(w http.ResponseWriter, _ *http.Request) {
		if cuts.Add(1) <= times {
			half(w)
			panic(http.ErrAbortHandler)
		}
	})
}

// stalling sends half of the layer and no more.
func stalling(t testing.TB, addr string, then func()) string {
	return before(t, addr, func(w http.ResponseWriter, r *http.Request) {
		half(w)
		then()
		<-r.Context().Done()
	})
}

func half(w http.ResponseWriter) {
	w.Header().Set("Content-Length", "1000000")
	w.Write(layer[:len(layer)/2])
	w.(http.Flusher).Flush()
}

func TestCredentials(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	must(t, err)
	r := registrytest.Start(t, registrytest.Options{Htpasswd: "me:" + string(hash) + "\n"})
	repo := r.Addr + "/closed:one"
	upload(t, repo, imageFor(t, "amd64"), remote.WithAuth(&authn.Basic{Username: "me", Password: "secret"}))
	auths := `{"auths": {"` + r.Addr + `": {"auth": "bWU6c2VjcmV0"}}}` // me:secret
	c := &registry.Client{}

	none := t.TempDir()
	t.Setenv("DOCKER_CONFIG", none)
	t.Setenv("XDG_RUNTIME_DIR", none)
	if _, _, err := fetch(t, c, repo, "linux/amd64"); err == nil || !strings.Contains(err.Error(), "log in with docker login "+r.Addr) {
		t.Errorf("without credentials: %v", err)
	}
	for _, row := range []struct{ name, variable, file string }{
		{"docker's config.json is used", "DOCKER_CONFIG", "config.json"},
		{"podman's auth.json is used", "REGISTRY_AUTH_FILE", "auth.json"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, row.file)
			must(t, os.WriteFile(file, []byte(auths), 0o600))
			if row.variable == "DOCKER_CONFIG" {
				file = dir
			}
			t.Setenv(row.variable, file)
			if _, _, err := fetch(t, c, repo, "linux/amd64"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a credential helper is asked", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(dir+"/docker-credential-ours", []byte("#!/bin/sh\ncat >/dev/null\necho '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n"), 0o700))
		must(t, os.WriteFile(dir+"/config.json", []byte(`{"credHelpers": {"`+r.Addr+`": "ours"}}`), 0o600))
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		t.Setenv("DOCKER_CONFIG", dir)
		if _, _, err := fetch(t, c, repo, "linux/amd64"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a wrong password does not appear in the error", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(dir+"/config.json", []byte(`{"auths": {"`+r.Addr+`": {"username": "me", "password": "wrongword"}}}`), 0o600))
		t.Setenv("DOCKER_CONFIG", dir)
		if _, _, err := fetch(t, c, repo, "linux/amd64"); err == nil || strings.Contains(err.Error(), "wrongword") || !strings.Contains(err.Error(), "denies") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCertificates(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(dir+"/cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(dir+"/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	r := registrytest.Start(t, registrytest.Options{Cert: dir + "/cert.pem", Key: dir + "/key.pem"})
	for _, row := range []struct{ name, ca, want string }{
		{"an unknown authority is named with the cure", "", "--registry-ca"},
		{"an authority that was named is trusted", dir + "/cert.pem", "no such image or tag"},
		{"a file without certificates is refused", dir + "/key.pem", "it holds no certificate"},
		{"a missing file is named", dir + "/none", "no such file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, _, err := fetch(t, &registry.Client{CA: row.ca}, r.Addr+"/x:y", "linux/amd64"); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}
