package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// Image is an image of a registry, for one platform.
type Image struct {
	Source string // its manifest: "HOST/NAME@sha256:…"

	client *Client
	ref    name.Reference
	index  v1.Descriptor // of the manifest, as in a layout's index.json
	blobs  []v1.Descriptor
	get    func(ctx context.Context, blob v1.Descriptor, from int64) (io.ReadCloser, error)
}

// Find resolves a reference to the image for a platform, OS/ARCH or OS/ARCH/VARIANT.
func (c *Client) Find(ctx context.Context, reference, platform string) (*Image, error) {
	if err := Check(reference); err != nil {
		return nil, err
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	want, err := v1.ParsePlatform(platform)
	if err != nil {
		return nil, fmt.Errorf("platform %q: want OS/ARCH or OS/ARCH/VARIANT, as linux/arm64", platform)
	}
	options, err := c.options(ctx)
	if err != nil {
		return nil, err
	}
	desc, err := remote.Get(ref, options...)
	if err == nil && desc.MediaType.IsIndex() {
		desc, err = ofPlatform(ref, desc, *want, options)
	}
	if err != nil {
		return nil, explain(ref, err)
	}
	return c.image(ref, desc, *want)
}

// ofPlatform returns the image for a platform among those of an index.
func ofPlatform(ref name.Reference, desc *remote.Descriptor, want v1.Platform, options []remote.Option) (*remote.Descriptor, error) {
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var others []string
	for _, m := range list.Manifests {
		switch {
		case m.Platform == nil || m.Platform.OS == "unknown" || !m.MediaType.IsImage(): // attestations
		case m.Platform.Satisfies(want):
			return remote.Get(ref.Context().Digest(m.Digest.String()), options...)
		default:
			others = append(others, m.Platform.String())
		}
	}
	return nil, otherPlatforms(want, others)
}

func otherPlatforms(want v1.Platform, have []string) error {
	if len(have) == 0 {
		return errors.New("it is an index without images")
	}
	return fmt.Errorf("there is no image for %s, only for %s", want, strings.Join(have, ", "))
}

// image reads the manifest and the configuration.
func (c *Client) image(ref name.Reference, desc *remote.Descriptor, want v1.Platform) (*Image, error) {
	if !desc.MediaType.IsImage() {
		return nil, fmt.Errorf("%s: want the image of a root filesystem; its type is %q", canonical(ref), desc.MediaType)
	}
	img, err := desc.Image()
	var config *v1.ConfigFile
	var manifest *v1.Manifest
	if err == nil {
		manifest, err = img.Manifest()
	}
	if err == nil {
		config, err = img.ConfigFile()
	}
	if err == nil && !config.Platform().Satisfies(want) {
		err = otherPlatforms(want, []string{config.Platform().String()})
	}
	if err != nil {
		return nil, explain(ref, err)
	}
	for _, d := range manifest.Layers {
		if !d.MediaType.IsDistributable() {
			return nil, fmt.Errorf("%s: its layer %s is not in the registry (%s)", canonical(ref), d.Digest, d.MediaType)
		}
	}
	m := &Image{
		Source: canonical(ref.Context().Digest(desc.Digest.String())),
		client: c, ref: ref, index: desc.Descriptor,
		blobs: append([]v1.Descriptor{desc.Descriptor, manifest.Config}, manifest.Layers...),
	}
	m.index.Platform, m.index.Annotations = nil, nil
	raw := desc.Manifest
	m.get = func(ctx context.Context, blob v1.Descriptor, from int64) (io.ReadCloser, error) {
		if blob.Digest == desc.Digest {
			return io.NopCloser(bytes.NewReader(raw[from:])), nil
		}
		return c.blob(ctx, ref, blob, from)
	}
	return m, nil
}

// Layout is an image of a registry on this machine, as a tar archive of an OCI layout.
type Layout struct {
	file *os.File
	size int64
}

// Open returns a reader of the archive from its beginning. There may be several.
func (l *Layout) Open() io.Reader { return io.NewSectionReader(l.file, 0, l.size) }

// Size returns the size of the archive in bytes.
func (l *Layout) Size() int64 { return l.size }

// Close frees what the archive takes.
func (l *Layout) Close() error { return l.file.Close() }

// Fetch reads the image. progress receives the bytes that are there and those of all; it
// may be nil.
func (m *Image) Fetch(ctx context.Context, progress func(done, total int64)) (*Layout, error) {
	f, err := os.CreateTemp("", "vsfleet-image-")
	if err != nil {
		return nil, fmt.Errorf("keep an image on its way: %w", err)
	}
	l := &Layout{file: f}
	if err = os.Remove(f.Name()); err == nil {
		err = m.fetch(ctx, l, progress)
	}
	if err != nil {
		f.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return l, nil
}

// minSpace is left free on the controller's filesystem.
const minSpace = 256 << 20

func (m *Image) fetch(ctx context.Context, l *Layout, progress func(done, total int64)) error {
	total, done := int64(0), int64(0)
	for _, b := range m.blobs {
		if b.Size < 0 || b.Size > 1<<50 {
			return fmt.Errorf("%s: a blob of %d bytes", canonical(m.ref), b.Size)
		}
		total += b.Size
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(l.file.Fd()), &st); err == nil && total+minSpace > int64(st.Bavail)*int64(st.Bsize) {
		return fmt.Errorf("%s: it has %d MiB, for which there is no room on this machine: TMPDIR=… chooses another filesystem: %w", canonical(m.ref), total>>20, unix.ENOSPC)
	}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{m.index}})
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index} {
		if err := l.add(name, content); err != nil {
			return err
		}
	}
	seen := map[v1.Hash]bool{}
	for _, b := range m.blobs {
		if !seen[b.Digest] { // an empty layer may be there several times
			err := m.blob(ctx, l, b, func(n int64) {
				if progress != nil {
					progress(done+n, total)
				}
			})
			if err != nil {
				return explain(m.ref, fmt.Errorf("%s: %w", b.Digest, err))
			}
		}
		seen[b.Digest] = true
		done += b.Size
	}
	return l.end()
}

// attempts is how often a blob is asked for.
const attempts = 3

// blob adds a blob. If the connection breaks, it asks for the rest.
func (m *Image) blob(ctx context.Context, l *Layout, b v1.Descriptor, progress func(int64)) error {
	pause := m.client.Pause
	if pause == 0 {
		pause = time.Second
	}
	at, w, err := l.size, &blobWriter{size: b.Size, sum: sha256.New(), progress: progress}, error(nil)
	if w.Writer, err = l.begin("blobs/sha256/"+b.Digest.Hex, b.Size); err != nil {
		return err
	}
	for i := 1; ; i++ {
		err := m.copyBlob(ctx, w, b)
		if err == nil && w.n == b.Size {
			if have := hex.EncodeToString(w.sum.Sum(nil)); have == b.Digest.Hex {
				return l.finish(w.Writer)
			}
			err = errors.New("its content is not that of its digest")
			if rerr := l.restart(at, w, b); rerr != nil {
				return rerr
			}
		} else if err == nil {
			err = fmt.Errorf("it has %d bytes, and its manifest says %d", w.n, b.Size)
		}
		if i == attempts || ctx.Err() != nil || final(err) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause *= 2
	}
}

// A blobWriter appends a blob to the archive.
type blobWriter struct {
	*tar.Writer
	size     int64
	n        int64 // bytes that are there
	sum      hash.Hash
	progress func(int64)
}

func (w *blobWriter) Write(p []byte) (int, error) {
	if w.n+int64(len(p)) > w.size {
		return 0, fmt.Errorf("it has more than the %d bytes of its manifest", w.size)
	}
	n, err := w.Writer.Write(p)
	w.sum.Write(p[:n])
	w.n += int64(n)
	w.progress(w.n)
	return n, err
}

// final reports whether asking again is of no use.
func final(err error) bool {
	var answer *transport.Error
	return errors.Is(err, unix.ENOSPC) || errors.As(err, &answer) && answer.StatusCode >= 400 && answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests
}

// copyBlob appends what is missing of a blob.
func (m *Image) copyBlob(ctx context.Context, w *blobWriter, b v1.Descriptor) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	stall := m.client.stall()
	watch := time.AfterFunc(stall, func() { giveUp(fmt.Errorf("the registry has sent nothing for %s", stall)) })
	defer watch.Stop()
	body, err := m.get(ctx, b, w.n)
	if err == nil {
		defer body.Close()
		_, err = io.Copy(w, readerFunc(func(p []byte) (int, error) {
			n, err := body.Read(p)
			watch.Reset(stall)
			return n, err
		}))
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// begin appends the head of a file to the archive, and finish its end.
func (l *Layout) begin(name string, size int64) (*tar.Writer, error) {
	w := tar.NewWriter(l.file)
	return w, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644})
}

func (l *Layout) finish(w *tar.Writer) (err error) {
	if err = w.Flush(); err == nil {
		l.size, err = l.file.Seek(0, io.SeekCurrent)
	}
	return err
}

// add appends a file to the archive.
func (l *Layout) add(name string, content []byte) error {
	w, err := l.begin(name, int64(len(content)))
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = l.finish(w)
	}
	return err
}

// restart begins a blob anew.
func (l *Layout) restart(at int64, w *blobWriter, b v1.Descriptor) (err error) {
	if err := l.back(at); err != nil {
		return err
	}
	w.n = 0
	w.sum.Reset()
	w.Writer, err = l.begin("blobs/sha256/"+b.Digest.Hex, b.Size)
	return err
}

// back removes what was appended last.
func (l *Layout) back(to int64) error {
	if err := l.file.Truncate(to); err != nil {
		return err
	}
	_, err := l.file.Seek(to, io.SeekStart)
	l.size = to
	return err
}

// end ends the archive.
func (l *Layout) end() (err error) {
	if err = tar.NewWriter(l.file).Close(); err == nil {
		l.size, err = l.file.Seek(0, io.SeekCurrent)
	}
	return err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
