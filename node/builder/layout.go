package builder

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
)

// A layout is a directory, or a tar archive of one, in the OCI image layout: index.json,
// and blobs that are named by their digests.
type layout struct {
	name string
	// open opens a file of the layout. The caller closes it.
	open  func(name string) (io.ReadCloser, error)
	close func() error
}

// openLayout opens a layout of this host.
func openLayout(name string) (*layout, error) {
	f, err := openSource(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		f.Close()
		return layoutDir(name)
	}
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is neither a file nor a directory")
	}
	if err == nil {
		var l *layout
		if l, err = layoutTar(f); err == nil {
			return l, nil
		}
	}
	f.Close()
	return nil, fmt.Errorf("%s: %w", name, err)
}

func layoutDir(name string) (*layout, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	open := func(file string) (io.ReadCloser, error) {
		if info, err := root.Stat(file); err == nil && !info.Mode().IsRegular() {
			return nil, errors.New(file + " is not a file")
		}
		return root.Open(file)
	}
	return &layout{name: name, open: open, close: root.Close}, nil
}

// maxLayoutFiles bounds the memory for the list of an archive's files.
const maxLayoutFiles = 100_000

// layoutTar reads the list of files of an archive, in which blobs are then read in place.
func layoutTar(f *os.File) (*layout, error) {
	magic := make([]byte, 512)
	if _, err := io.ReadFull(f, magic); err != nil || !isTar(magic) {
		return nil, errors.New("want a directory or a plain tar archive in OCI's layout; unpack it first if it is compressed")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	type place struct{ at, size int64 }
	files := map[string]place{}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		at, err := f.Seek(0, io.SeekCurrent) // tar reads no further than the header
		if err != nil {
			return nil, err
		}
		files[strings.TrimPrefix(h.Name, "./")] = place{at, h.Size}
		if len(files) > maxLayoutFiles {
			return nil, fmt.Errorf("the archive holds more than %d files: it is no layout", maxLayoutFiles)
		}
	}
	open := func(file string) (io.ReadCloser, error) {
		p, ok := files[file]
		if !ok {
			return nil, &os.PathError{Op: "open", Path: file, Err: os.ErrNotExist}
		}
		return io.NopCloser(io.NewSectionReader(f, p.at, p.size)), nil
	}
	return &layout{name: f.Name(), open: open, close: f.Close}, nil
}

// A descriptor names a blob (image-spec, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

func (p platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// file returns the name of the blob's file.
func (d descriptor) file() (string, error) {
	digest, ok := strings.CutPrefix(d.Digest, "sha256:")
	if !ok || len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" {
		return "", fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", d.Digest)
	}
	return "blobs/sha256/" + digest, nil
}

// maxDocument bounds an index, a manifest or a configuration; registries take 4 MiB.
const maxDocument = 8 << 20

// document reads a JSON file of the layout.
func (l *layout) document(name string) ([]byte, error) {
	f, err := l.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("%s has more than %d MiB", name, maxDocument>>20)
	}
	return b, err
}

// index reads index.json, and explains what is no layout.
func (l *layout) index() ([]descriptor, error) {
	b, err := l.document("index.json")
	if errors.Is(err, os.ErrNotExist) {
		if f, e := l.open("manifest.json"); e == nil {
			f.Close()
			return nil, errors.New("it is an archive of docker save's older kind: skopeo copy docker-archive:FILE oci:DIRECTORY makes a layout of it")
		}
		return nil, errors.New("it has no index.json: it is not in OCI's layout")
	}
	if err != nil {
		return nil, err
	}
	return readIndex(b)
}

func readIndex(b []byte) ([]descriptor, error) {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return index.Manifests, nil
}

// read returns the content of a small blob, which is compared with its digest.
func (l *layout) read(d descriptor) ([]byte, error) {
	file, err := d.file()
	if err != nil {
		return nil, err
	}
	b, err := l.document(file)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != d.Digest || int64(len(b)) != d.Size {
		return nil, fmt.Errorf("%s is damaged: it has %d bytes and the digest %s, want %d", file, len(b), got, d.Size)
	}
	return b, nil
}

// A blob is a large blob that is being read.
type blob struct {
	io.Reader
	file   io.Closer
	name   string
	want   descriptor
	n      int64
	digest hash.Hash
}

// stream opens a blob; report receives how much of it has been read.
func (l *layout) stream(ctx context.Context, d descriptor, report func(int64)) (*blob, error) {
	file, err := d.file()
	if err != nil {
		return nil, err
	}
	f, err := l.open(file)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	b := &blob{file: f, name: file, want: d, digest: h}
	counted := &counter{r: contextReader{ctx, io.LimitReader(f, d.Size+1)}, report: report}
	b.Reader = io.TeeReader(counted, io.MultiWriter(h, writerFunc(func(p []byte) { b.n += int64(len(p)) })))
	return b, nil
}

// finish reads the rest of the blob and compares it with its digest.
func (b *blob) finish() error {
	if _, err := io.Copy(io.Discard, b.Reader); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(b.digest.Sum(nil)); got != b.want.Digest || b.n != b.want.Size {
		return fmt.Errorf("%s is damaged: it has the digest %s", b.name, got)
	}
	return nil
}

func (b *blob) Close() error { return b.file.Close() }

// A writerFunc is called with what is written.
type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }
