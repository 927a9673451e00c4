package images

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/images/tree"
)

// A difference is the stream of an image for a host that has another one, its base: the line
// differenceMagic, one line with the image's records as JSON, one with the ID of the base,
// and parts, the manifest first and then each content that the base does not have, in the
// order of the manifest. A part is the sha256 of a content of the base (zeros: none) and one
// zstd frame that was compressed with that content as its dictionary. The frame comes in
// pieces, each after its length in four bytes; an empty piece ends it.
//
// The manifest is checked against the image's ID, and each content against the manifest:
// the dictionaries need not be trusted.
const (
	differenceMagic = "vsfleet-delta-1\n" // as long as magic
	maxManifest     = 256 << 20
	// maxDictionary bounds a dictionary and what is compressed with it together, and so the
	// memory of both sides. Larger files come whole.
	maxDictionary = 64 << 20
	dictionaryID  = 1
)

// isDifference reports whether a stream begins as a difference does.
func isDifference(r *bufio.Reader) bool {
	head, _ := r.Peek(len(differenceMagic)) // whatever is shorter is neither
	return bytes.Equal(head, []byte(differenceMagic))
}

// A content is that of a file.
type content struct {
	object string
	size   int64
}

// A base is the image that both sides of a difference have.
type base struct {
	store    *Store
	manifest []byte           // nil: too large
	sizes    map[string]int64 // of its contents, by object
	paths    map[string]content
}

// base reads the manifest of an image that is to be the base of a difference.
func (s *Store) base(id string) (*base, error) {
	if !validID(id) {
		return nil, fmt.Errorf("base %q: want sha256: and 64 hexadecimal digits", id)
	}
	b := &base{store: s, sizes: map[string]int64{}, paths: map[string]content{}}
	composed, err := s.hasManifest(id)
	if err == nil && !composed {
		err = fmt.Errorf("base %s: %w with a manifest on this host", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	err = s.manifest(id, func(e *tree.Entry) {
		if e.Object() == "" {
			return
		}
		c := content{e.Object(), e.Size()}
		b.sizes[c.object] = c.size
		b.paths[e.Path()] = c
		if like := unnumbered(e.Path()); b.paths[like].object == "" {
			b.paths[like] = c
		}
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(s.path(id), manifestFile)
	if st, err := os.Stat(file); err != nil || st.Size() > maxDictionary/2 {
		return b, err
	}
	b.manifest, err = os.ReadFile(file)
	return b, err
}

// unnumbered returns a path without its digits, which is that of the same file in another
// version: libdns-9.18.24.so.
func unnumbered(path string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, path)
}

// likeness returns the content of the base that a file is most likely a new version of, or
// none.
func (b *base) likeness(path string, size int64) content {
	c, ok := b.paths[path]
	if !ok {
		c = b.paths[unnumbered(path)]
	}
	if c.size+size > maxDictionary {
		return content{}
	}
	return c
}

// dictionary returns a content of the base by the sha256 of it, for a part of a size.
func (b *base) dictionary(sum []byte, size int64) ([]byte, error) {
	object := hex.EncodeToString(sum)
	length, ok := b.sizes[object]
	switch {
	case !ok:
		return nil, fmt.Errorf("the stream wants object %s, which the base does not have", object)
	case length+size > maxDictionary:
		return nil, fmt.Errorf("the stream wants an object of %d bytes for one of %d, and %d together is the most", length, size, maxDictionary)
	}
	f, err := b.store.objects.Open(object)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	old, err := io.ReadAll(io.LimitReader(f, length+1))
	if err == nil && int64(len(old)) != length {
		err = fmt.Errorf("object %s is damaged: it has not its %d bytes", object, length)
	}
	return old, err
}

// window returns the size of a zstd window that is large enough for a number of bytes.
func window(size int64) int {
	return 1 << max(17, bits.Len64(uint64(size)-1))
}

// pieces writes a frame in pieces.
type pieces struct{ w io.Writer }

func (p pieces) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil // it would be the end
	}
	if err := p.length(len(b)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}

func (p pieces) end() error { return p.length(0) }

func (p pieces) length(n int) error {
	_, err := p.w.Write(binary.BigEndian.AppendUint32(nil, uint32(n)))
	return err
}

// frame reads a frame that came in pieces, to its end.
type frame struct {
	r    io.Reader
	left uint32 // of the piece
	end  bool
}

func (f *frame) Read(b []byte) (int, error) {
	for f.left == 0 {
		if f.end {
			return 0, io.EOF
		}
		var length [4]byte
		if _, err := io.ReadFull(f.r, length[:]); err != nil {
			return 0, cut(err)
		}
		f.left = binary.BigEndian.Uint32(length[:])
		f.end = f.left == 0
	}
	n, err := f.r.Read(b[:min(len(b), int(f.left))])
	f.left -= uint32(n)
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, cut(err)
}

// cut makes an end where none may be an error.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readPart reads a part: it calls read with what it decodes to, and reads it to its end.
// dictionary returns the content that has a sha256.
func readPart(r io.Reader, dictionary func(sum []byte) ([]byte, error), read func(io.Reader) error) error {
	var sum [32]byte
	if _, err := io.ReadFull(r, sum[:]); err != nil {
		return fmt.Errorf("read the stream: %w", cut(err))
	}
	options := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary)}
	if sum != [32]byte{} {
		old, err := dictionary(sum[:])
		if err != nil {
			return err
		}
		options = append(options, zstd.WithDecoderDictRaw(dictionaryID, old))
	}
	in := &frame{r: r}
	z, err := zstd.NewReader(in, options...)
	if err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	defer z.Close()
	if err := read(z); err != nil {
		return err
	}
	// What read left is more than there may be. zstd takes a frame that was cut off behind
	// its last block for a whole one.
	for _, rest := range []io.Reader{z, in} {
		if n, err := rest.Read(make([]byte, 1)); n > 0 || err == nil {
			return errors.New("a part of the stream goes on after its end")
		} else if err != io.EOF {
			return fmt.Errorf("read the stream: %w", err)
		}
	}
	return nil
}

// skipPart reads a part that is not needed.
func skipPart(r io.Reader) error {
	if _, err := io.CopyN(io.Discard, r, 32); err != nil {
		return cut(err)
	}
	_, err := io.Copy(io.Discard, &frame{r: r})
	return err
}
