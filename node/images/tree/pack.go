package tree

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// Digest reads a whole tree and returns its digest and size.
func Digest(ctx context.Context, dir string) (Sum, error) {
	return pack(ctx, dir, nil, nil)
}

// Record is Digest that also writes the manifest.
func Record(ctx context.Context, dir string, manifest *bufio.Writer) (Sum, error) {
	return pack(ctx, dir, nil, manifest)
}

// Pack writes a tree as a tar stream that [Unpack] reads: equal trees give
// equal streams. The returned digest is that of the data written.
func Pack(ctx context.Context, dir string, w io.Writer) (Sum, error) {
	tw := tar.NewWriter(w)
	sum, err := pack(ctx, dir, tw, nil)
	if err != nil {
		return Sum{}, err
	}
	return sum, tw.Close()
}

func pack(ctx context.Context, dir string, tw *tar.Writer, manifest *bufio.Writer) (Sum, error) {
	s := newSummer(manifest)
	buf := make([]byte, 1<<18)
	content := sha256.New()
	err := walk(ctx, dir, func(e *entry, r io.Reader) error {
		if tw != nil {
			if err := tw.WriteHeader(e.header()); err != nil {
				return fmt.Errorf("pack %s: %w", e.path, err)
			}
		}
		if r == nil {
			s.add(e, nil)
			return nil
		}
		content.Reset()
		n, err := copyBuffer(ctx, buf, r, func(p []byte) error {
			content.Write(p)
			if tw == nil {
				return nil
			}
			_, err := tw.Write(p)
			return err
		})
		if err == nil && n != e.size {
			err = fmt.Errorf("its size changed from %d to %d bytes while it was read", e.size, n)
		}
		if err != nil {
			return fmt.Errorf("pack %s: %w", e.path, err)
		}
		s.add(e, content.Sum(nil))
		return nil
	})
	if err != nil {
		return Sum{}, err
	}
	return s.done(), nil
}

// copyBuffer passes all of r to write, piece by piece, until ctx ends.
func copyBuffer(ctx context.Context, buf []byte, r io.Reader, write func([]byte) error) (int64, error) {
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if err := write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
