package images

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// A stream is one zstd frame with a checksum: the line magic, one line with
// the image's record as JSON, and its tree as tree.Pack writes it.
const (
	magic      = "vsfleet-image-1\n"
	maxRecords = 1 << 20
	maxWindow  = 8 << 20 // zstd's window: the memory that reading takes
)

// Export writes an image as a stream for Import. Equal images give equal
// streams. The tree is hashed on the way: one that no longer matches its ID makes
// Export fail.
func (s *Store) Export(ctx context.Context, id string, w io.Writer) error {
	if err := s.export(ctx, id, w); err != nil {
		return fmt.Errorf("export image %s: %w", id, err)
	}
	return nil
}

func (s *Store) export(ctx context.Context, id string, w io.Writer) error {
	here, err := s.Has(id)
	if err != nil {
		return err
	}
	if !here {
		return fmt.Errorf("%w on this host", ErrNotFound)
	}
	record, err := s.recordLine(id)
	if err != nil {
		return err
	}
	z, err := newEncoder(w)
	if err != nil {
		return err
	}
	if _, err := z.Write(append(append([]byte(magic), record...), '\n')); err != nil {
		return errors.Join(err, z.Close())
	}
	sum, err := s.pack(ctx, id, z)
	if err == nil && sum.ID != id {
		err = fmt.Errorf("its tree was changed in the store and is now %s; remove the image and build it again", sum.ID)
	}
	if err != nil {
		// Closing would end the frame as if the image were complete.
		return err
	}
	return z.Close()
}

// newEncoder returns the encoder of what is read once, with a checksum.
func newEncoder(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(maxWindow/2), zstd.WithEncoderCRC(true))
}

// recordLine returns the records of an image as JSON, for who gets the image.
func (s *Store) recordLine(id string) ([]byte, error) {
	records, err := s.records(id)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("its record is missing; remove the image and build it again")
	}
	for i := range records {
		records[i].Description = "" // who gets it makes one of its own
	}
	return json.Marshal(records)
}

// pack writes the tree of an image as a stream.
func (s *Store) pack(ctx context.Context, id string, w io.Writer) (tree.Sum, error) {
	manifest, err := os.Open(filepath.Join(s.path(id), manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return tree.Pack(ctx, filepath.Join(s.path(id), plainTree), w)
	}
	if err != nil {
		return tree.Sum{}, err
	}
	defer manifest.Close()
	return tree.Send(ctx, manifest, s.objects.Open, w)
}

// Import stores an image from a stream, which must be the image that is wanted. If
// the store has it already, only missing records are added and the rest of the
// stream is discarded; changed is false if none was missing.
func (s *Store) Import(ctx context.Context, r io.Reader, want string) (img api.Image, changed bool, err error) {
	if img, changed, err = s.receive(ctx, r, want); err != nil {
		return api.Image{}, false, fmt.Errorf("import image %s: %w", want, err)
	}
	return img, changed, nil
}

func (s *Store) receive(ctx context.Context, r io.Reader, want string) (img api.Image, changed bool, err error) {
	if !validID(want) {
		return img, false, fmt.Errorf("want sha256: and 64 hexadecimal digits")
	}
	if err := s.prepare(ctx); err != nil {
		return img, false, err
	}
	in := bufio.NewReaderSize(r, 1<<16)
	if isDifference(in) {
		head, err := readDifferenceHead(in)
		if err != nil {
			return img, false, err
		}
		return s.store(ctx, in, want, head.images, s.lockPart, func(w *work) (tree.Sum, error) {
			return s.unpackDifference(ctx, w, in, head)
		})
	}
	z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return img, false, err
	}
	defer z.Close()
	images, err := readRecords(z, magic)
	if err != nil {
		return img, false, err
	}
	lock := func(ctx context.Context, id string) (*work, error) {
		return s.lockWork(ctx, "import-"+id[len("sha256:"):])
	}
	return s.store(ctx, in, want, images, lock, func(w *work) (tree.Sum, error) {
		if err := w.makeTree(); err != nil {
			return tree.Sum{}, err
		}
		if err := s.checkSpace(images[0]); err != nil {
			return tree.Sum{}, err
		}
		return s.unpackTree(ctx, w, z)
	})
}

// A lockFunc locks the work directory that an image arrives in.
type lockFunc func(ctx context.Context, id string) (*work, error)

// store stores the image of a stream whose head was read; unpack reads the rest.
func (s *Store) store(ctx context.Context, r io.Reader, want string, images []api.Image, lock lockFunc, unpack func(*work) (tree.Sum, error)) (img api.Image, changed bool, err error) {
	img = images[0]
	if img.ID != want {
		return img, false, fmt.Errorf("the stream holds another image, %s", img.ID)
	}
	if here, err := s.Has(want); err != nil {
		return img, false, err
	} else if !here {
		changed, err = s.unpack(ctx, images, lock, unpack)
		if changed || err != nil {
			return img, changed, err
		}
	}
	if changed, err = s.addRecords(images); err != nil {
		return img, false, err
	}
	// The sender needs a reader until its end; the data need not be unpacked.
	_, err = io.Copy(io.Discard, r)
	return img, changed, err
}

// unpack makes an image of the rest of a stream. changed is false if another
// vsnode stored the same image meanwhile.
func (s *Store) unpack(ctx context.Context, images []api.Image, lock lockFunc, unpack func(*work) (tree.Sum, error)) (changed bool, err error) {
	want := images[0]
	w, err := lock(ctx, want.ID)
	if err != nil {
		return false, err
	}
	defer w.abandon(&err)
	if here, err := s.Has(want.ID); here || err != nil {
		w.resumable = false
		return false, err
	}
	sum, err := unpack(w)
	if err != nil {
		return false, err
	}
	if sum.ID != want.ID || sum.Bytes != want.Bytes || sum.Files != want.Files {
		return false, fmt.Errorf("what came is not that image but %s (%d files, %d bytes)", sum.ID, sum.Files, sum.Bytes)
	}
	return true, s.commit(ctx, w, images...)
}

// unpackTree reads the tree of a whole image, to the end of the stream.
func (s *Store) unpackTree(ctx context.Context, w *work, z io.Reader) (sum tree.Sum, err error) {
	if w.composed, w.arrived = s.composed(), true; !w.composed {
		sum, err = tree.Unpack(ctx, w.tree, z)
	} else {
		sum, err = writeManifest(w.path, func(manifest *bufio.Writer) (tree.Sum, error) { return tree.Receive(ctx, w.tree, z, manifest) })
	}
	if err != nil {
		return sum, err
	}
	// Read to the end of the frame, where zstd verifies its checksum.
	if n, err := io.Copy(io.Discard, io.LimitReader(z, tarPadding+1)); err != nil {
		return sum, fmt.Errorf("read the stream: %w", err)
	} else if n > tarPadding {
		return sum, errors.New("the stream goes on after its end")
	}
	return sum, nil
}

// tarPadding is the number of bytes that may follow the end of a tar archive.
const tarPadding = 1 << 16

// readRecords reads the head of a stream: the magic line and the records.
func readRecords(r io.Reader, magic string) ([]api.Image, error) {
	line, err := readLine(r, len(magic))
	if err != nil {
		return nil, fmt.Errorf("read the stream's head: %w", err)
	}
	if !bytes.Equal(line, []byte(magic)) {
		return nil, errors.New("this is no image stream of this version of vsnode")
	}
	if line, err = readLine(r, maxRecords); err != nil {
		return nil, fmt.Errorf("read the records: %w", err)
	}
	var images []api.Image
	if err := json.Unmarshal(line, &images); err != nil {
		return nil, fmt.Errorf("read the records: %w", err)
	}
	if len(images) == 0 {
		return nil, errors.New("the stream has no record")
	}
	first := images[0]
	for _, img := range images {
		if !validID(img.ID) || img.Key != img.Spec.Key() || img.ID != first.ID || img.Bytes != first.Bytes || img.Files != first.Files {
			return nil, fmt.Errorf("the records of %q contradict each other", img.ID)
		}
	}
	return images, nil
}

// readLine reads up to a newline and not a byte further: the tar archive begins there.
func readLine(r io.Reader, limit int) ([]byte, error) {
	var line []byte
	for one := make([]byte, 1); len(line) < limit; {
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, err
		}
		line = append(line, one[0])
		if one[0] == '\n' {
			return line, nil
		}
	}
	return nil, fmt.Errorf("a line of more than %d bytes", limit)
}
