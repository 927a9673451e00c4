package tree

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Unpack unpacks a stream of [Pack] into an empty directory, and returns the tree's
// digest and size without reading it again. It refuses what Pack would not write: an
// order other than the walk's, a duplicate name, a missing directory.
func Unpack(ctx context.Context, dir string, r io.Reader) (Sum, error) {
	p, err := newPlacer(ctx, dir, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return Sum{}, err
	}
	defer p.close()
	sum, err := readStream(ctx, r, nil, func(e *entry, content io.Reader, hash hash.Hash) error {
		return p.place(e, content, func(b []byte) { hash.Write(b) })
	})
	if err != nil {
		return Sum{}, err
	}
	return sum, p.finish()
}

// readStream calls place for each entry of a stream. place reads the content of a file
// and writes it to the hash.
func readStream(ctx context.Context, r io.Reader, manifest *bufio.Writer, place func(e *entry, content io.Reader, hash hash.Hash) error) (Sum, error) {
	s, order := newSummer(manifest), newRules()
	content := sha256.New()
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return Sum{}, err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return s.done(), nil
		}
		if err != nil {
			return Sum{}, fmt.Errorf("read the stream: %w", err)
		}
		e, err := fromHeader(h)
		if err != nil {
			return Sum{}, err
		}
		if err := order.check(e); err != nil {
			return Sum{}, err
		}
		content.Reset()
		if err := place(e, tr, content); err != nil {
			return Sum{}, fmt.Errorf("unpack %s: %w", e.path, err)
		}
		if e.kind == file {
			s.add(e, content.Sum(nil))
		} else {
			s.add(e, nil)
		}
	}
}

// follows reports whether a walk visits path b after path a.
func follows(a, b string) bool {
	for a != "" && b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, "/")
		y, b, _ = strings.Cut(b, "/")
		if x != y {
			return x < y
		}
	}
	return b != ""
}

// Extracted describes the contents of an archive.
type Extracted struct {
	Entries int64
	Bytes   int64
	Nodes   int64 // device nodes, which were left out
}

// Onto is what the directory holds that an archive is unpacked into.
type Onto int

const (
	// Empty means nothing. An entry that goes through a link is refused.
	Empty Onto = iota
	// Archives means the contents of other archives. Links are followed within the directory:
	// "bin/tool" lands in usr/bin of a tree whose /bin is a link.
	Archives
	// Layers means the layers below this one. Parents are followed as with Archives, but an
	// entry replaces what has its name, be it a directory with files in it or a link.
	Layers
)

// Extract unpacks a tar archive of any origin. Of several entries of one name, the
// last one wins.
func Extract(ctx context.Context, dir string, r io.Reader, onto Onto) (Extracted, error) {
	resolve := uint64(unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS)
	if onto != Empty {
		resolve = unix.RESOLVE_IN_ROOT
	}
	p, err := newPlacer(ctx, dir, resolve)
	if err != nil {
		return Extracted{}, err
	}
	defer p.close()
	p.makeParents, p.replace, p.layers = true, true, onto == Layers
	var x Extracted
	nodes := map[string]bool{} // names of skipped device nodes: tar links to the first name of each
	end := &lastBlock{r: r}
	tr := tar.NewReader(end)
	for {
		if err := ctx.Err(); err != nil {
			return x, err
		}
		h, err := tr.Next()
		if err == io.EOF && !end.zero() && onto != Layers { // which are known by their digests
			return x, errors.New("the archive has no end: it was cut off; copy it again")
		}
		if err == io.EOF {
			return x, p.finish()
		}
		if err != nil {
			return x, fmt.Errorf("read the archive: %w", err)
		}
		e, err := fromHeader(h)
		if err != nil {
			return x, err
		}
		switch {
		case e.kind == 0 && e.path != "", e.kind == hardlink && nodes[e.link]:
			if err := p.count(); err != nil {
				return x, err
			}
			nodes[e.path] = true
			x.Nodes++
			continue
		case p.layers && isMarker(e.path): // ReadMarkers has seen it
			continue
		case e.kind == 0 || e.path == "": // the root's own entry: a tree's root is always the same
			continue
		}
		if err := p.place(e, tr, nil); err != nil {
			return x, fmt.Errorf("unpack %s: %w", e.path, err)
		}
		delete(nodes, e.path)
		x.Entries++
		x.Bytes += e.size
	}
}

// A lastBlock keeps the end of what was read. An archive ends with blocks of zeros;
// one that was cut off between two files looks complete to package tar.
type lastBlock struct {
	r    io.Reader
	tail []byte
}

const blockSize = 512

func (l *lastBlock) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.tail = append(l.tail, p[max(0, n-blockSize):n]...)
	l.tail = append(l.tail[:0], l.tail[max(0, len(l.tail)-blockSize):]...)
	return n, err
}

func (l *lastBlock) zero() bool {
	return len(l.tail) == blockSize && len(bytes.Trim(l.tail, "\x00")) == 0
}
