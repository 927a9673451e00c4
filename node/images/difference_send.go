package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// ExportDifference writes an image as the difference to another one, its base, for a host
// that has that, or to none ("") for a host that may have been cut off. from is the number of
// contents that have arrived there before. If this host does not have the base, or keeps one
// of the two as a plain tree, it writes the whole image as Export does.
//
// A difference to a base is made once, and kept until the host has one of the two no longer
// (kept.go).
func (s *Store) ExportDifference(ctx context.Context, id, base string, from int, w io.Writer) error {
	if base == "" {
		base = noBase
	}
	old, err := s.base(base)
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
	if err := s.exportDifference(ctx, id, base, old, from, w); err != nil {
		return fmt.Errorf("export image %s as the difference to %s: %w", id, base, err)
	}
	return nil
}

func (s *Store) exportDifference(ctx context.Context, id, name string, old *base, from int, w io.Writer) error {
	record, err := s.recordLine(id)
	if err != nil {
		return err
	}
	out := &sender{head: fmt.Sprintf("%s%s\n%s\n", differenceMagic, record, name), w: w, from: from, next: from}
	if name != noBase {
		err = s.sendKept(ctx, id, name, old, out)
	} else {
		// Parts that were sent before need not be made: the first one begins there.
		err = s.makeDifference(ctx, id, old, from, out.part)
	}
	if err != nil {
		return err
	}
	return out.end()
}

// A sender writes the parts that a receiver lacks.
type sender struct {
	head string // but its last line
	w    io.Writer
	from int // contents that the receiver has
	next int // content
	sent bool
}

// part returns what the bytes of a part are written to. Its first content may be one that
// the receiver has.
func (s *sender) part(head partHead, first int) (io.Writer, error) {
	s.next = first + head.contents()
	if s.from > 0 && s.next <= s.from {
		return io.Discard, nil
	}
	return s.w, s.begin(first)
}

func (s *sender) begin(first int) error {
	if s.sent {
		return nil
	}
	s.sent = true
	_, err := fmt.Fprintf(s.w, "%s%d\n", s.head, first)
	return err
}

// end writes the head if the receiver lacks no part.
func (s *sender) end() error { return s.begin(s.next) }

// parts is called for each part, and returns what its bytes are written to. first is the
// number of its first content.
type parts func(head partHead, first int) (io.Writer, error)

// makeDifference makes the parts of a difference, from one that begins with a content on.
func (s *Store) makeDifference(ctx context.Context, id string, old *base, from int, out parts) error {
	d := &differ{ctx: ctx, base: old, out: out, next: from}
	err := d.contents(filepath.Join(s.path(id), manifestFile), from)
	for len(d.queue) > 0 {
		err = errors.Join(err, d.write(err == nil))
	}
	return err
}

// A differ compresses parts on all processors, and writes them in their order.
type differ struct {
	ctx   context.Context
	base  *base
	out   parts
	next  int // content that is written
	group part
	queue []*part // under way
	bytes int64   // of them and their dictionaries
}

// A part of a difference.
type part struct {
	head    partHead
	entries []*tree.Entry
	path    string // of the manifest, which has no entries
	size    int64  // of the contents
	dict    int64  // of the dictionaries

	made  chan error
	frame bytes.Buffer
}

// contents reads the manifest, and queues it and the contents that the base does not have.
func (d *differ) contents(manifest string, from int) error {
	if from == 0 {
		if err := d.manifest(manifest); err != nil {
			return err
		}
	}
	sent, number := map[string]bool{"": true}, 0
	f, err := os.Open(manifest)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = tree.ReadManifest(f, func(e *tree.Entry) error {
		if _, has := d.base.sizes[e.Object()]; has || sent[e.Object()] {
			return d.ctx.Err()
		}
		sent[e.Object()] = true
		if number++; number <= from {
			return d.ctx.Err()
		}
		return d.add(e)
	})
	if err == nil && from > number {
		err = fmt.Errorf("it has %d such contents, and %d have arrived", number, from)
	}
	if err == nil {
		err = d.flush()
	}
	return err
}

// manifest queues the part that is the manifest, which is compared with the image's ID.
func (d *differ) manifest(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	p := part{path: path, size: st.Size(), head: make(partHead, 4)}
	if old := d.base.manifest; old != nil && st.Size() <= maxDictionary/2 {
		sum := sha256.Sum256(old)
		p.head, p.dict = append(partHead{0, 0, 0, 1}, sum[:]...), int64(len(old))
	}
	d.group = p
	return d.flush()
}

// add adds a content to the group that becomes the next part.
func (d *differ) add(e *tree.Entry) error {
	like := d.base.likeness(e.Path(), e.Size())
	size := like.size + e.Size()
	if g := &d.group; len(g.entries) > 0 && (g.size+g.dict+size > maxGroup || len(g.entries) == maxCount) {
		if err := d.flush(); err != nil {
			return err
		}
	}
	g := &d.group
	g.entries = append(g.entries, e)
	g.size += e.Size()
	if like.object != "" {
		g.dict += like.size
	}
	return g.name(like.object)
}

// name counts the last entry in the head, and its dictionary if it has one.
func (p *part) name(dictionary string) (err error) {
	if p.head == nil {
		p.head = make(partHead, 4)
	}
	contents, dictionaries := len(p.entries), p.head.dictionaries()
	if dictionary != "" {
		dictionaries++
		p.head, err = hex.AppendDecode(p.head, []byte(dictionary))
	}
	binary.BigEndian.PutUint16(p.head, uint16(contents))
	binary.BigEndian.PutUint16(p.head[2:], uint16(dictionaries))
	return err
}

// flush has the group compressed, once there is memory for it.
func (d *differ) flush() error {
	p := d.group
	d.group = part{}
	if p.head == nil {
		return nil
	}
	need := p.size + p.dict
	for len(d.queue) > 0 && (len(d.queue) >= 2*runtime.GOMAXPROCS(0) || d.bytes+need > maxDictionary) {
		if err := d.write(true); err != nil {
			return err
		}
	}
	if need > maxDictionary { // alone, and not in memory
		out, err := d.begin(&p)
		if err != nil {
			return err
		}
		return d.encode(&p, out)
	}
	p.made = make(chan error, 1)
	d.queue, d.bytes = append(d.queue, &p), d.bytes+need
	go func() { p.made <- d.encode(&p, &p.frame) }()
	return nil
}

// write waits for the first part of the queue, and writes it if it is wanted.
func (d *differ) write(wanted bool) error {
	p := d.queue[0]
	d.queue, d.bytes = d.queue[1:], d.bytes-p.size-p.dict
	err := <-p.made
	if err != nil || !wanted {
		return err
	}
	out, err := d.begin(p)
	if err == nil {
		_, err = out.Write(p.frame.Bytes())
	}
	return err
}

// begin writes the head of a part.
func (d *differ) begin(p *part) (io.Writer, error) {
	out, err := d.out(p.head, d.next)
	if err == nil {
		d.next += len(p.entries)
		_, err = out.Write(p.head)
	}
	return out, err
}

// encode writes the frame of a part.
func (d *differ) encode(p *part, w io.Writer) error {
	options := []zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false)} // digests find what is damaged
	dict, window := d.base.manifest, maxWindow/2
	if p.path == "" {
		var err error
		if dict, err = d.base.dictionary(p.head, p.size); err != nil {
			return err
		}
	}
	if p.dict > 0 {
		options = append(options, zstd.WithEncoderDictRaw(dictionaryID, dict))
		window = windowFor(p.size + p.dict)
	}
	level := zstd.SpeedFastest // as Export
	if len(d.base.sizes) > 0 {
		// The level after better takes seven times as long for a seventh less.
		level = zstd.SpeedBetterCompression
	}
	out := pieces{w}
	z, err := zstd.NewWriter(out, append(options, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window))...)
	if err != nil {
		return err
	}
	if err = errors.Join(d.read(p, z), z.Close()); err != nil {
		return err
	}
	return out.end()
}

// read writes what a part is made of to w, and compares it with its digests.
func (d *differ) read(p *part, w io.Writer) error {
	if p.path != "" {
		f, err := os.Open(p.path)
		if err != nil {
			return err
		}
		return d.copy(w, f, filepath.Base(filepath.Dir(p.path)), "its manifest was changed in the store; remove the image and build it again")
	}
	for _, e := range p.entries {
		f, err := d.base.store.objects.Open(e.Object())
		if err == nil {
			err = d.copy(w, f, e.Object(), "its content is damaged in the store")
		}
		if err != nil {
			return fmt.Errorf("pack %s: %w", e.Path(), err)
		}
	}
	return nil
}

// copy copies a file and closes it.
func (d *differ) copy(w io.Writer, f *os.File, want, otherwise string) error {
	defer f.Close()
	have, _, err := objects.Copy(d.ctx, w, f)
	if err == nil && have != want {
		err = errors.New(otherwise)
	}
	return err
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
