package tree

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Receive reads a stream of [Pack], as Unpack does. It writes the manifest, and the
// contents of files into the directory, each to a file named by its sha256. They are not
// synced.
func Receive(ctx context.Context, dir string, r io.Reader, manifest *bufio.Writer) (Sum, error) {
	p, err := newPlacer(ctx, dir, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return Sum{}, err
	}
	defer p.close()
	at := int(p.root.Fd())
	const arriving = "arriving"
	return readStream(ctx, r, manifest, func(e *entry, content io.Reader, sum hash.Hash) error {
		if err := p.space.take(e.size); err != nil || e.kind != file || e.size == 0 {
			return err
		}
		err := p.file(at, arriving, &entry{kind: file, mode: objectMode, size: e.size}, content, func(b []byte) { sum.Write(b) })
		if err == nil {
			err = unix.Renameat(at, arriving, at, hex.EncodeToString(sum.Sum(nil)))
		}
		return p.space.explain(err)
	})
}

// objectMode is for all to read: who may reach an object is decided by the directory above.
const objectMode = 0o444

// Send writes the tree of a manifest as the stream that [Pack] would write of it. open
// opens the content of a file by its sha256; what it yields is compared with that.
func Send(ctx context.Context, manifest io.Reader, open func(object string) (*os.File, error), w io.Writer) (Sum, error) {
	tw := tar.NewWriter(w)
	buf := make([]byte, 1<<18)
	sum, err := ReadManifest(manifest, func(e *Entry) error {
		if err := tw.WriteHeader(e.header()); err != nil || e.object == "" {
			return err
		}
		f, err := open(e.object)
		if err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
		defer f.Close()
		content := sha256.New()
		n, err := copyBuffer(ctx, buf, f, func(b []byte) error {
			content.Write(b)
			_, err := tw.Write(b)
			return err
		})
		if err == nil && (n != e.size || hex.EncodeToString(content.Sum(nil)) != e.object) {
			err = fmt.Errorf("its content is damaged in the store")
		}
		if err != nil {
			return fmt.Errorf("pack %s: %w", e.path, err)
		}
		return nil
	})
	if err != nil {
		return Sum{}, err
	}
	return sum, tw.Close()
}
