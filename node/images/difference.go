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

// A difference is the stream of an image for a host that has another one, its base, or none:
// the line differenceMagic, one line with the image's records as JSON, one with the ID of the
// base (noBase: none), one with the number of the first content that comes, and parts. The
// first part is the manifest, unless contents came with an earlier stream. The others have
// the contents that the base does not have, each once, in the order of the manifest.
//
// A part is its number of contents and of dictionaries, each in two bytes, the sha256 of
// each dictionary, and one zstd frame: the contents, one after the other, compressed with
// contents of the base, one after the other, as the dictionary. The manifest counts as no
// content; its dictionary is the base's. The frame comes in pieces, each after its length in
// four bytes; an empty piece ends it.
//
// The manifest is checked against the image's ID, and each content against the manifest:
// the dictionaries need not be trusted. The same two images give the same parts: a receiver
// that was cut off continues with any source.
const (
	differenceMagic = "vsfleet-delta-2\n" // as long as magic
	noBase          = "-"
	maxManifest     = 256 << 20
	// maxDictionary bounds the dictionary and the contents of a part together, and so the
	// memory of both sides. Larger files come without a dictionary.
	maxDictionary = 64 << 20
	// maxGroup bounds the same of a part with several contents. What was cut off comes again
	// from the beginning of its part.
	maxGroup     = 4 << 20
	maxCount     = 1<<16 - 1
	dictionaryID = 1
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

// A base is the image that both sides of a difference have, or an empty one.
type base struct {
	store    *Store
	manifest []byte           // nil: too large
	sizes    map[string]int64 // of its contents, by object
	paths    map[string]content
}

// base reads the manifest of an image that is to be the base of a difference.
func (s *Store) base(id string) (*base, error) {
	b := &base{store: s, sizes: map[string]int64{}, paths: map[string]content{}}
	if id == noBase {
		return b, nil
	}
	if !validID(id) {
		return nil, fmt.Errorf("base %q: want sha256: and 64 hexadecimal digits", id)
	}
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

func (b *base) has(c content) bool {
	_, ok := b.sizes[c.object]
	return ok
}

// dictionary returns contents of the base, one after the other, for a part with contents of
// a size.
func (b *base) dictionary(head partHead, size int64) ([]byte, error) {
	var all bytes.Buffer
	for i := range head.dictionaries() {
		object := head.dictionary(i)
		length, ok := b.sizes[object]
		if !ok {
			return nil, fmt.Errorf("the stream wants object %s, which the base does not have", object)
		}
		if size += length; size > maxDictionary {
			return nil, fmt.Errorf("the stream wants dictionaries for more than the %d bytes that are possible", maxDictionary)
		}
		f, err := b.store.objects.Open(object)
		if err != nil {
			return nil, err
		}
		n, err := all.ReadFrom(io.LimitReader(f, length+1))
		f.Close()
		if err == nil && n != length {
			err = fmt.Errorf("object %s is damaged: it has not its %d bytes", object, length)
		}
		if err != nil {
			return nil, err
		}
	}
	return all.Bytes(), nil
}

// windowFor returns the size of a zstd window that is large enough for a number of bytes.
func windowFor(size int64) int {
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

// A partHead is what a part begins with: its number of contents, and of dictionaries, in two
// bytes each, and the sha256 of these.
type partHead []byte

func (h partHead) contents() int { return int(h[0])<<8 + int(h[1]) }

func (h partHead) dictionaries() int { return int(h[2])<<8 + int(h[3]) }

// dictionary returns the name of a dictionary.
func (h partHead) dictionary(i int) string { return hex.EncodeToString(h[4+32*i:][:32]) }

// readPartHead returns io.EOF where there are no more parts.
func readPartHead(r io.Reader) (partHead, error) {
	h := make(partHead, 4)
	if _, err := io.ReadFull(r, h); err != nil {
		return nil, err
	}
	h = append(h, make([]byte, 32*h.dictionaries())...)
	_, err := io.ReadFull(r, h[4:])
	return h, cut(err)
}

// readFrame calls read with what the frame of a part decodes to, and reads it to its end.
func readFrame(r io.Reader, dictionary []byte, read func(io.Reader) error) error {
	options := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary)}
	if len(dictionary) > 0 {
		options = append(options, zstd.WithDecoderDictRaw(dictionaryID, dictionary))
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

// skipFrame reads a frame that is not needed.
func skipFrame(r io.Reader) error {
	_, err := io.Copy(io.Discard, &frame{r: r})
	return err
}
