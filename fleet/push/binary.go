package push

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"sync"

	"github.com/klauspost/compress/zstd"
)

//go:embed all:binaries
var embedded embed.FS

// embeddedBinaries returns the vsnodes inside this program.
var embeddedBinaries = sync.OnceValues(func() ([]*binary, error) {
	files, err := fs.Sub(embedded, "binaries")
	if err != nil {
		return nil, err
	}
	return readBinaries(files)
})

// binary is a vsnode, compressed. Its content is read only where it is missing on a host.
type binary struct {
	arch string // GOARCH
	hash string // sha256 of the unpacked file, in hex
	size int64  // of the unpacked file
	zst  func() ([]byte, error)

	gzOnce sync.Once
	gz     []byte
	gzErr  error
}

var hashAndSize = regexp.MustCompile(`^[0-9a-f]{64} [1-9][0-9]*\n$`)

// readBinaries reads what the Makefile put into a directory: for each
// architecture vsnode-linux-ARCH.zst and .sha256, or neither.
func readBinaries(files fs.FS) ([]*binary, error) {
	var found []*binary
	for _, arch := range []string{"amd64", "arm64"} {
		b := &binary{arch: arch}
		name := "vsnode-linux-" + arch
		if _, err := fs.Stat(files, name+".zst"); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		b.zst = sync.OnceValues(func() ([]byte, error) { return fs.ReadFile(files, name+".zst") })
		sum, err := fs.ReadFile(files, name+".sha256")
		if err != nil {
			return nil, err
		}
		if !hashAndSize.Match(sum) {
			return nil, fmt.Errorf("%s.sha256 is not a hash and a size: build vsfleet again with make clean build", name)
		}
		if _, err := fmt.Sscan(string(sum), &b.hash, &b.size); err != nil {
			return nil, fmt.Errorf("%s.sha256: %w", name, err)
		}
		found = append(found, b)
	}
	return found, nil
}

// stream returns the binary in the form that a host can unpack: "zstd", "gzip" or,
// for anything else, as it is.
func (b *binary) stream(form string) (io.Reader, error) {
	zst, err := b.zst()
	if err != nil {
		return nil, err
	}
	switch form {
	case "zstd":
		return bytes.NewReader(zst), nil
	case "gzip":
		b.gzOnce.Do(func() { b.gz, b.gzErr = b.gzip() })
		return bytes.NewReader(b.gz), b.gzErr
	}
	dec, err := zstd.NewReader(bytes.NewReader(zst), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return dec.IOReadCloser(), nil // with one goroutine it holds none
}

// gzip compresses once for all hosts that have no zstd.
func (b *binary) gzip() ([]byte, error) {
	plain, err := b.stream("")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.Copy(w, plain); err != nil {
		return nil, fmt.Errorf("unpack vsnode for %s: %w", b.arch, err)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
