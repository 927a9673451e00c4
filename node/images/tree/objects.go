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
	c, err := NewContents(ctx, dir)
	if err != nil {
		return Sum{}, err
	}
	defer c.Close()
	return readStream(ctx, r, manifest, func(e *entry, content io.Reader, sum hash.Hash) error {
		if err := c.p.count(); err != nil {
			return err
		}
		if e.kind != file || e.size == 0 {
			return c.p.space.take(e.size)
		}
		_, err := c.put(e.size, content, sum)
		return err
	})
}

// Contents is a directory that contents of files arrive in, each named by its sha256. They
// are not synced.
type Contents struct{ p *placer }

// NewContents returns the Contents of a directory.
func NewContents(ctx context.Context, dir string) (*Contents, error) {
	p, err := newPlacer(ctx, dir, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	return &Contents{p}, err
}

// Close releases the directory.
func (c *Contents) Close() { c.p.close() }

// Put reads a content, which must be the object and have that size.
func (c *Contents) Put(object string, size int64, r io.Reader) error {
	name, err := c.put(size, io.LimitReader(r, size+1), sha256.New())
	if err == nil && name != object {
		err = fmt.Errorf("what came is %s", name)
	}
	return err
}

func (c *Contents) put(size int64, r io.Reader, sum hash.Hash) (name string, err error) {
	if err := c.p.space.take(size); err != nil {
		return "", err
	}
	at := int(c.p.root.Fd())
	const arriving = "arriving"
	err = c.p.file(at, arriving, &entry{kind: file, mode: objectMode, size: size}, r, func(b []byte) { sum.Write(b) })
	if err == nil {
		name = hex.EncodeToString(sum.Sum(nil))
		err = unix.Renameat(at, arriving, at, name)
	}
	return name, c.p.space.explain(err)
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
