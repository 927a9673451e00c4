package registry

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// A fileLayer is a layer in a file without a name.
type fileLayer struct {
	file   *os.File
	size   int64
	digest v1.Hash
	diff   v1.Hash // of the archive, unpacked
}

// Digest, DiffID, Compressed, Uncompressed, Size and MediaType make it a v1.Layer.
func (l *fileLayer) Digest() (v1.Hash, error) { return l.digest, nil }
func (l *fileLayer) DiffID() (v1.Hash, error) { return l.diff, nil }
func (l *fileLayer) Size() (int64, error)     { return l.size, nil }

// MediaType returns that of a packed layer.
func (l *fileLayer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

// Compressed returns the layer as it is in the registry.
func (l *fileLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(l.file, 0, l.size)), nil
}

// Uncompressed returns its archive.
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) {
	return gzip.NewReader(io.NewSectionReader(l.file, 0, l.size))
}

// Close frees what it takes.
func (l *fileLayer) Close() error { return l.file.Close() }

// unnamed makes a file that is gone when it is closed, or this process ends.
func unnamed() (*os.File, error) {
	f, err := os.CreateTemp("", "vsfleet-image-")
	if err != nil {
		return nil, fmt.Errorf("keep an image on its way: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// packLayer makes a layer of the archive that fill writes. Equal archives give equal layers.
func packLayer(fill func(io.Writer) error) (_ *fileLayer, err error) {
	f, err := unnamed()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	l := &fileLayer{file: f}
	packed, plain := sha256.New(), sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, packed))
	if err := fill(io.MultiWriter(z, plain)); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("keep an image on its way (TMPDIR=… chooses where): %w", err)
	}
	l.digest, l.diff = hashOf(packed), hashOf(plain)
	l.size, err = f.Seek(0, io.SeekCurrent)
	return l, err
}

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

// layer returns the layer that makes the content of the tree of base; "": of nothing.
func (c Content) layer(ctx context.Context, base string) (*fileLayer, error) {
	if base == "" {
		return packLayer(func(w io.Writer) error {
			return c.read(ctx, c.ID, func(r io.Reader) error {
				_, err := indexArchive(io.TeeReader(r, w))
				return err
			})
		})
	}
	old, err := c.index(ctx, base, nil)
	if err != nil {
		return nil, err
	}
	f, err := unnamed()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	now, err := c.index(ctx, c.ID, f)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return packLayer(func(w io.Writer) error { return writeDelta(w, bufio.NewReaderSize(f, 1<<18), old, now) })
}

// index returns what is in an image, and writes its archive to w, which may be nil.
func (c Content) index(ctx context.Context, id string, w io.Writer) (list archiveIndex, err error) {
	err = c.read(ctx, id, func(r io.Reader) error {
		if w != nil {
			r = io.TeeReader(r, w)
		}
		list, err = indexArchive(r)
		return err
	})
	return list, err
}

// The head of a stream, as node/images writes it: a line, and one with records.
const (
	streamMagic = "vsfleet-image-1\n"
	maxRecords  = 1 << 20
)

// read has the host export an image, and passes its archive to use.
func (c Content) read(ctx context.Context, id string, use func(io.Reader) error) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	pr, pw := io.Pipe()
	var exported error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		exported = c.Export(ctx, id, pw)
		pw.CloseWithError(exported)
	}()
	err := readStream(pr, id, c.Most(id), use)
	if err != nil {
		giveUp(err)
		pr.CloseWithError(err) // the export's error is that, or the reader has seen it
		<-ended
		return err
	}
	<-ended
	return exported
}

func readStream(r io.Reader, id string, most int64, use func(io.Reader) error) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	bounded := &io.LimitedReader{R: z, N: most}
	b := bufio.NewReaderSize(bounded, maxRecords)
	head, err := b.Peek(len(streamMagic))
	if err == nil && string(head) != streamMagic {
		err = errors.New("the host sends no image stream of this version of vsnode")
	}
	if err != nil {
		return err
	}
	if _, err := b.Discard(len(streamMagic)); err != nil {
		return err
	}
	line, err := b.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read the records: %w", err)
	}
	var records []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(line, &records); err != nil || len(records) == 0 || records[0].ID != id {
		return errors.New("the host sends another image")
	}
	if err := use(b); err != nil {
		if bounded.N <= 0 {
			err = fmt.Errorf("it is more than the %d MiB that such an image can be", most>>20)
		}
		return err
	}
	return nil
}

// archiveIndex has a digest of each entry of an archive, by its path.
type archiveIndex map[string]archived

type archived struct {
	sum    [sha256.Size]byte // of header and content
	target string            // of a hard link
}

// maxEntries bounds an index's memory; no image has more.
const maxEntries = 2_000_000

// indexArchive reads an archive to its end.
func indexArchive(r io.Reader) (archiveIndex, error) {
	list := archiveIndex{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, r) // what fills the last block
			return list, err
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(h.Name, "/")
		if strings.HasPrefix(path.Base(name), whiteout) {
			return nil, fmt.Errorf("%q: no layer can hold a file whose name begins with %s, which means that one is removed", name, whiteout)
		}
		sum := sha256.New()
		fmt.Fprintf(sum, "%c %o %d %d %d %d %q %q\n", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.Unix(), h.Linkname, attributes(h))
		if _, err := io.Copy(sum, tr); err != nil {
			return nil, err
		}
		e := archived{}
		sum.Sum(e.sum[:0])
		if h.Typeflag == tar.TypeLink {
			e.target = h.Linkname
		}
		if list[name] = e; len(list) > maxEntries {
			return nil, fmt.Errorf("it has more than %d files", maxEntries)
		}
	}
}

// attributes returns the extended attributes of an entry, in order.
func attributes(h *tar.Header) []string {
	var list []string
	for name, value := range h.PAXRecords {
		if strings.HasPrefix(name, "SCHILY.xattr.") {
			list = append(list, name+"="+value)
		}
	}
	slices.Sort(list)
	return list
}

const whiteout = ".wh."

// changed returns the paths that a layer on old must have to become now, and those that it
// removes, in order.
func changed(old, now archiveIndex) (write map[string]bool, remove []string) {
	write = map[string]bool{}
	links := map[string]bool{} // files of which a name has changed
	for name, e := range now {
		if was, there := old[name]; there && was == e {
			continue
		}
		write[name] = true
		if e.target != "" {
			links[e.target] = true
		} else {
			links[name] = true
		}
	}
	for name, e := range now { // all names of a file, or none
		if links[name] || e.target != "" && links[e.target] {
			write[name] = true
		}
	}
	for name := range old {
		if _, there := now[name]; there {
			continue
		}
		if _, parent := old[path.Dir(name)]; parent {
			if _, there := now[path.Dir(name)]; !there {
				continue // it goes with its directory
			}
		}
		remove = append(remove, name)
	}
	slices.Sort(remove)
	// A directory gets another time when something in it changes.
	for _, name := range append(slices.Collect(maps.Keys(write)), remove...) {
		write[path.Dir(name)] = true
	}
	return write, remove
}

// writeDelta writes the layer that makes now of old; archive is that of now.
func writeDelta(w io.Writer, archive io.Reader, old, now archiveIndex) error {
	write, remove := changed(old, now)
	tw := tar.NewWriter(w)
	for _, name := range remove {
		marker := path.Join(path.Dir(name), whiteout+path.Base(name))
		if err := tw.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: marker}); err != nil {
			return err
		}
	}
	tr := tar.NewReader(archive)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		if !write[strings.TrimSuffix(h.Name, "/")] {
			continue
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}
