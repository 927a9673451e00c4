package build

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/vsfleet/vsfleet/node/image/tree"
)

func template(ctx context.Context, req Request) error {
	values, rest, err := options(req.Spec.Args, "t")
	if err != nil {
		return err
	}
	files := values['t']
	if len(files) == 0 || len(rest) > 0 {
		return fmt.Errorf("want -t FILE [-t FILE]… and nothing else")
	}
	if len(req.Spec.Packages) > 0 {
		return fmt.Errorf("a template takes no packages: put them into the archive, or use debootstrap")
	}
	for i, name := range files {
		if err := extract(ctx, req, name, i > 0); err != nil {
			return err
		}
	}
	return nil
}

// extract unpacks one archive, over those before it.
func extract(ctx context.Context, req Request, name string, over bool) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return lack("no archive %s on this host; copy it there first", name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", name)
	}
	counted := &counter{r: reading{ctx, f}, report: func(done int64) { req.Progress("unpacking "+name, done, info.Size()) }}
	r, closeArchive, err := decompress(counted)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer closeArchive()
	x, err := tree.Extract(ctx, req.Dir, r, over)
	if err == nil && x.Entries == 0 {
		err = errors.New("the archive is empty")
	}
	if err == nil {
		// What follows the archive's end is read as well: the check sum of the
		// compressed stream is at its very end.
		var n int64
		if n, err = io.Copy(io.Discard, io.LimitReader(r, mostPadding)); err == nil && n == mostPadding {
			err = errors.New("the archive goes on after its end")
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(req.Log, "%s: %d entries, %d bytes; %d device nodes left out, a guest gets its /dev at start\n", name, x.Entries, x.Bytes, x.Nodes)
	return nil
}

// mostPadding is what may follow the end of an archive: tar fills its last block,
// of 10 KiB by default.
const mostPadding = 64 << 20

// reading ends with ctx.
type reading struct {
	ctx context.Context
	r   io.Reader
}

func (r reading) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// decompress tells the kind of an archive by its first bytes, as file(1) does.
func decompress(f io.Reader) (r io.Reader, done func(), err error) {
	b := bufio.NewReaderSize(f, 1<<18)
	magic, err := b.Peek(262)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	done = func() {}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		r, err = gzip.NewReader(b)
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		r, err = xz.NewReader(b)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// The window is what zstd --long=27 needs, and no more: it is memory.
		var d *zstd.Decoder
		if d, err = zstd.NewReader(b, zstd.WithDecoderMaxWindow(128<<20)); err == nil {
			r, done = d, d.Close
		}
	case len(magic) >= 262 && bytes.Equal(magic[257:262], []byte("ustar")):
		r = b
	default:
		err = errors.New("neither tar nor a tar packed by gzip, xz or zstd")
	}
	if err != nil {
		return nil, nil, err
	}
	return r, done, nil
}

// A counter reports how far a file has been read, once a MiB.
type counter struct {
	r              io.Reader
	read, reported int64
	report         func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.read += int64(n)
	if c.read-c.reported >= 1<<20 || err == io.EOF && c.read > c.reported {
		c.reported = c.read
		c.report(c.read)
	}
	return n, err
}
