package images

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/images/tree"
)

// ExportDifference writes an image as the difference to another one, its base, for a host
// that has that. If this host does not have the base, or keeps one of the two as a plain
// tree, it writes the whole image.
func (s *Store) ExportDifference(ctx context.Context, id, base string, w io.Writer) error {
	from, err := s.base(base)
	composed := err == nil
	if composed {
		composed, err = s.hasManifest(id)
	}
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return fmt.Errorf("export image %s: %w", id, err)
	case !composed:
		return s.Export(ctx, id, w)
	}
	out := bufio.NewWriterSize(w, 1<<16)
	if err = s.exportDifference(ctx, id, base, from, out); err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("export image %s as the difference to %s: %w", id, base, err)
	}
	return nil
}

func (s *Store) exportDifference(ctx context.Context, id, name string, from *base, w io.Writer) error {
	record, err := s.recordLine(id)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s%s\n%s\n", differenceMagic, record, name); err != nil {
		return err
	}
	plain, err := zstd.NewWriter(nil, encoding(maxWindow)...)
	if err != nil {
		return err
	}
	d := &differ{ctx: ctx, w: w, base: from, plain: plain, buf: make([]byte, 1<<18)}
	if err := d.manifest(filepath.Join(s.path(id), manifestFile)); err != nil {
		return err
	}
	sent := map[string]bool{"": true}
	sum, err := readManifest(s.path(id), func(e *tree.Entry) error {
		if _, has := from.sizes[e.Object()]; has || sent[e.Object()] {
			return ctx.Err()
		}
		sent[e.Object()] = true
		if err := d.file(e); err != nil {
			return fmt.Errorf("pack %s: %w", e.Path(), err)
		}
		return nil
	})
	if err == nil && sum.ID != id {
		err = fmt.Errorf("its manifest was changed in the store and is that of %s; remove the image and build it again", sum.ID)
	}
	return err
}

// encoding returns the options of an encoder. Better is what pays: the next level takes
// seven times as long for a seventh less.
func encoding(window int) []zstd.EOption {
	return []zstd.EOption{
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(window), zstd.WithEncoderCRC(false), // digests find what is damaged
	}
}

// A differ writes the parts of a difference.
type differ struct {
	ctx   context.Context
	w     io.Writer
	base  *base
	plain *zstd.Encoder // without a dictionary
	buf   []byte
}

func (d *differ) manifest(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	old := d.base.manifest
	if st.Size() > maxDictionary/2 {
		old = nil
	}
	sum := sha256.Sum256(old)
	return d.part(sum[:], old, f, st.Size())
}

// file writes the content of a file, and compares it with its digest on the way.
func (d *differ) file(e *tree.Entry) error {
	var sum, old []byte
	if like := d.base.likeness(e.Path(), e.Size()); like.object != "" {
		var err error
		if sum, err = hex.DecodeString(like.object); err != nil {
			return err
		}
		if old, err = d.base.dictionary(sum, e.Size()); err != nil {
			return err
		}
	}
	f, err := d.base.store.objects.Open(e.Object())
	if err != nil {
		return err
	}
	defer f.Close()
	have := sha256.New()
	if err := d.part(sum, old, io.TeeReader(f, have), e.Size()); err != nil {
		return err
	}
	if hex.EncodeToString(have.Sum(nil)) != e.Object() {
		return errors.New("its content is damaged in the store")
	}
	return nil
}

// part writes a part; sum is that of old, its dictionary if there is one.
func (d *differ) part(sum, old []byte, r io.Reader, size int64) error {
	z, out := d.plain, pieces{d.w}
	if len(old) > 0 {
		options := append(encoding(window(int64(len(old))+size)), zstd.WithEncoderDictRaw(dictionaryID, old))
		var err error
		if z, err = zstd.NewWriter(out, options...); err != nil {
			return err
		}
	} else {
		sum = make([]byte, sha256.Size)
		z.Reset(out)
	}
	if _, err := d.w.Write(sum); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{z}, &whileWanted{d.ctx, io.LimitReader(r, size+1)}, d.buf)
	if err == nil && n != size {
		err = fmt.Errorf("it has not its %d bytes", size)
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	return out.end()
}

// whileWanted reads until its context ends.
type whileWanted struct {
	ctx context.Context
	r   io.Reader
}

func (r *whileWanted) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
