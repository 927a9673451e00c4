package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// A differenceHead is the beginning of a difference.
type differenceHead struct {
	images []api.Image // the records of the image
	base   string
	first  int // content that comes
}

func readDifferenceHead(r io.Reader) (h differenceHead, err error) {
	if h.images, err = readRecords(r, differenceMagic); err != nil {
		return h, err
	}
	line, err := readLine(r, len("sha256:")+64+1)
	if err != nil {
		return h, fmt.Errorf("read the base: %w", err)
	}
	h.base = strings.TrimSuffix(string(line), "\n")
	if line, err = readLine(r, 16); err == nil {
		h.first, err = strconv.Atoi(strings.TrimSuffix(string(line), "\n"))
	}
	if err == nil && h.first < 0 {
		err = strconv.ErrRange
	}
	if err != nil {
		return h, fmt.Errorf("read the number of the first content: %w", err)
	}
	return h, nil
}

// Arrived returns what this host has of an image that it was sent as the difference to a
// base ("": none), and lost the connection.
func (s *Store) Arrived(id, baseID string) (a api.Arrived, err error) {
	if !validID(id) {
		return a, fmt.Errorf("image %q: want sha256: and 64 hexadecimal digits", id)
	}
	if !s.composed() {
		return a, nil
	}
	a.Parts = true
	part := s.partPath(id)
	if _, err := os.Lstat(filepath.Join(part, manifestFile)); err != nil {
		return a, nil // nothing has
	}
	if baseID == "" {
		baseID = noBase
	}
	from, err := s.base(baseID)
	if errors.Is(err, ErrNotFound) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	r := receiver{store: s, from: from}
	sum, err := readManifest(part, r.visit)
	if err != nil || sum.ID != id {
		return a, nil // it comes again
	}
	for _, c := range r.contents {
		if from.has(c) {
			continue
		}
		if st, err := os.Lstat(filepath.Join(part, partContents, c.object)); err != nil || st.Size() != c.size {
			break
		}
		a.Contents++
	}
	return a, nil
}

// A receiver makes the manifest of an image, and a directory with the contents of its files,
// of a difference. Those that the host has become links to the objects, once they were compared
// with their names.
type receiver struct {
	ctx   context.Context
	store *Store
	work  *work
	in    io.Reader
	from  *base
	want  api.Image // its record

	known    map[string]int64 // sizes of contents
	contents []content        // of the image, each once
	have     tree.Sum
	lack     []content // those that the base does not have, which come in this order
	here     []bool    // those of them that need not come
	dir      *tree.Contents
}

// unpackDifference reads the parts of a difference.
func (s *Store) unpackDifference(ctx context.Context, w *work, in io.Reader, head differenceHead) (tree.Sum, error) {
	if w.composed, w.arrived = s.composed(), true; !w.composed {
		return tree.Sum{}, errors.New("this host keeps plain trees, and takes whole images only")
	}
	from, err := s.base(head.base)
	if err != nil {
		return tree.Sum{}, err
	}
	if head.base == noBase && head.first == 0 {
		if err := s.checkSpace(head.images[0]); err != nil {
			return tree.Sum{}, err
		}
	}
	r := &receiver{ctx: ctx, store: s, work: w, in: in, from: from, want: head.images[0]}
	sum, err := r.manifest(head.first)
	if err != nil {
		return sum, fmt.Errorf("the manifest: %w", err)
	}
	if sum.ID != r.want.ID {
		return sum, nil // the caller refuses it, before anything else is read
	}
	w.resumable = true
	if r.dir, err = tree.NewContents(ctx, w.tree); err != nil {
		return sum, err
	}
	defer r.dir.Close()
	if err := r.look(head.first); err != nil {
		return sum, err
	}
	return sum, r.parts(head.first)
}

// visit notes an entry of the manifest.
func (r *receiver) visit(e *tree.Entry) error {
	r.have.Files++
	r.have.Bytes += e.Size()
	if w := r.want; w.ID != "" && (r.have.Files > w.Files || r.have.Bytes > w.Bytes || r.have.Bytes < 0) {
		return fmt.Errorf("it is more than the %d files and %d bytes of its record", w.Files, w.Bytes)
	}
	object := e.Object()
	if object == "" {
		return nil
	}
	if size, twice := r.known[object]; twice && size != e.Size() {
		return fmt.Errorf("object %s has %d bytes and %d", object, size, e.Size())
	} else if twice {
		return nil
	}
	if r.known == nil {
		r.known = map[string]int64{}
	}
	r.known[object] = e.Size()
	r.contents = append(r.contents, content{object, e.Size()})
	return nil
}

// manifest reads the manifest: the one that came before if contents did, too.
func (r *receiver) manifest(first int) (tree.Sum, error) {
	if first > 0 {
		return readManifest(r.work.path, r.visit)
	}
	head, err := readPartHead(r.in)
	if err != nil {
		return tree.Sum{}, cut(err)
	}
	var dictionary []byte
	switch n := head.dictionaries(); {
	case head.contents() > 0 || n > 1:
		return tree.Sum{}, errors.New("the stream does not begin with it")
	case n == 1:
		dictionary = r.from.manifest
		if err := objects.Compare(head.dictionary(0), dictionary); err != nil {
			return tree.Sum{}, err
		}
	}
	return writeManifest(r.work.path, func(manifest *bufio.Writer) (sum tree.Sum, err error) {
		err = readFrame(r.in, dictionary, func(in io.Reader) error {
			sum, err = tree.ReadManifest(io.TeeReader(io.LimitReader(in, maxManifest), manifest), r.visit)
			return err
		})
		return sum, err
	})
}

// look finds the contents that need not come: those of the base, which have to be whole,
// those of other images, and those that came before.
func (r *receiver) look(first int) error {
	for _, c := range r.contents {
		if r.from.has(c) {
			if err := r.link(c); err != nil {
				return fmt.Errorf("object %s: %w", c.object, err)
			}
			continue
		}
		here := r.cameBefore(c)
		if !here && len(r.lack) >= first {
			here = r.link(c) == nil
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		r.lack, r.here = append(r.lack, c), append(r.here, here)
	}
	if n := slices.Index(r.here, false); first > len(r.lack) || n >= 0 && n < first {
		return fmt.Errorf("the stream begins with content %d, and an earlier one is missing or damaged here", first)
	}
	return nil
}

// cameBefore reports whether a content came before, whole. Another one is removed.
func (r *receiver) cameBefore(c content) bool {
	path := filepath.Join(r.work.tree, c.object)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	have, size, err := objects.Copy(r.ctx, io.Discard, f)
	if err == nil && (have != c.object || size != c.size) {
		os.Remove(path)
	}
	return err == nil && have == c.object && size == c.size
}

// link gives an object of the store another name where contents arrive, and compares it with
// its name.
func (r *receiver) link(c content) error {
	s := r.store
	path := filepath.Join(s.objects.Dir(), objects.Place(c.object))
	st, err := os.Lstat(path)
	if err == nil && (!st.Mode().IsRegular() || st.Size() != c.size) {
		err = fmt.Errorf("it is damaged: it has not its %d bytes", c.size)
	}
	if err == nil {
		err = s.objects.Check(r.ctx, c.object)
	}
	if err != nil {
		return err
	}
	to := filepath.Join(r.work.tree, c.object)
	_ = os.Remove(to) // of an earlier stream
	return os.Link(path, to)
}

// parts reads all parts but the manifest.
func (r *receiver) parts(next int) error {
	for {
		head, err := readPartHead(r.in)
		if err == io.EOF && next == len(r.lack) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the stream: %w", cut(err))
		}
		end := next + head.contents()
		if end == next || end > len(r.lack) {
			return errors.New("the stream goes on after its end")
		}
		if err := r.part(head, r.lack[next:end], r.here[next:end]); err != nil {
			return fmt.Errorf("contents from object %s on: %w", r.lack[next].object, err)
		}
		next = end
	}
}

// part reads a part.
func (r *receiver) part(head partHead, contents []content, here []bool) error {
	if !slices.Contains(here, false) {
		return skipFrame(r.in)
	}
	var size int64
	for _, c := range contents {
		if size += c.size; head.dictionaries() > 0 && size > maxDictionary {
			return errors.New("the stream wants a dictionary for more than may have one")
		}
	}
	dictionary, err := r.from.dictionary(head, size)
	if err != nil {
		return err
	}
	return readFrame(r.in, dictionary, func(in io.Reader) error {
		for i, c := range contents {
			if here[i] {
				if _, err := io.CopyN(io.Discard, in, c.size); err != nil {
					return cut(err)
				}
			} else if err := r.dir.Put(c.object, c.size, io.LimitReader(in, c.size)); err != nil {
				return err
			}
		}
		return nil
	})
}
