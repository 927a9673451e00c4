package builder

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// A template stacks archives and directories.
type template []string

func parseTemplate(spec api.ImageSpec) (source, error) {
	// -d chose how to adapt the tree, which we see from the tree itself.
	values, err := arguments(spec.Args, "td")
	if err != nil {
		return nil, err
	}
	if len(values['t']) == 0 {
		return nil, errors.New("want -t FILE|DIRECTORY [-t …]")
	}
	return template(values['t']), nil
}

func (files template) fill(ctx context.Context, req Request) error {
	onto := tree.Empty
	for _, name := range files {
		if err := extract(ctx, req, name, onto); err != nil {
			return err
		}
		onto = tree.Archives
	}
	return nil
}

// extract unpacks one archive, or copies one directory, over the previous ones.
func extract(ctx context.Context, req Request, name string, onto tree.Onto) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return missingf("no archive %s on this host; copy it there first", name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return copyTree(ctx, req, name, tree.Copy{From: f, Onto: onto})
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file nor a directory", name)
	}
	counted := &counter{r: contextReader{ctx, f}, report: func(done int64) { req.Progress.Report("unpacking "+name, done, info.Size()) }}
	r, closeArchive, err := decompress(counted)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer closeArchive()
	x, err := tree.Extract(ctx, req.Dir, r, onto)
	if err == nil && x.Entries == 0 {
		err = errors.New("the archive is empty")
	}
	if err == nil {
		// Read what follows the archive's end as well: the checksum of the compressed
		// stream is at its very end.
		err = afterEnd(r)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(req.Log, "%s: %d entries, %d bytes; %d device nodes left out, a guest gets its /dev at start\n", name, x.Entries, x.Bytes, x.Nodes)
	return nil
}

// maxPadding is the number of bytes that may follow the end of an archive: tar pads
// its last record, of 10 KiB by default.
const maxPadding = 64 << 20

// afterEnd reads what follows an archive's end. A second archive there (cat a b,
// tar -A of compressed archives) would otherwise be ignored silently.
func afterEnd(r io.Reader) error {
	b := bufio.NewReaderSize(r, 512)
	for n := 0; n < maxPadding; n += 512 {
		block, err := b.Peek(512)
		if isTar(block) {
			return errors.New("another archive follows its end: give each a -t of its own")
		}
		if err == io.EOF {
			_, err = io.Copy(io.Discard, b)
			return err
		}
		if err != nil {
			return err
		}
		if _, err := b.Discard(512); err != nil {
			return err
		}
	}
	return errors.New("the archive goes on after its end")
}

// A contextReader is a reader that ends with ctx.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// A counter reports how far a file has been read, once per MiB.
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
