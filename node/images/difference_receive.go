package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// readDifferenceHead reads the head of a difference: the records of the image and the ID
// of its base.
func readDifferenceHead(r io.Reader) (images []api.Image, base string, err error) {
	if images, err = readRecords(r, differenceMagic); err != nil {
		return nil, "", err
	}
	line, err := readLine(r, len("sha256:")+64+1)
	if err != nil {
		return nil, "", fmt.Errorf("read the base: %w", err)
	}
	return images, strings.TrimSuffix(string(line), "\n"), nil
}

// unpackDifference makes the manifest of an image, and a directory with the contents of
// its files, of a difference. Those that the host has become links to the objects, once they
// were compared with their names.
func (s *Store) unpackDifference(ctx context.Context, w *work, r io.Reader, baseID string, want api.Image) (tree.Sum, error) {
	if w.composed, w.arrived = s.composed(), true; !w.composed {
		return tree.Sum{}, errors.New("this host keeps plain trees, and takes whole images only")
	}
	from, err := s.base(baseID)
	if err != nil {
		return tree.Sum{}, err
	}
	contents, sum, err := s.receiveManifest(w, r, from, want)
	if err != nil {
		return sum, err
	}
	if sum.ID != want.ID {
		return sum, nil // the caller refuses it, before anything else is read
	}
	dir, err := tree.NewContents(ctx, w.tree)
	if err != nil {
		return sum, err
	}
	defer dir.Close()
	for _, c := range contents {
		if err := s.receiveContent(ctx, w, r, from, c, dir); err != nil {
			return sum, fmt.Errorf("object %s: %w", c.object, err)
		}
	}
	if n, err := r.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		return sum, errors.Join(errors.New("the stream goes on after its end"), err)
	}
	return sum, nil
}

// receiveManifest reads the manifest of a difference, and returns the contents that it names,
// each once.
func (s *Store) receiveManifest(w *work, r io.Reader, from *base, want api.Image) (contents []content, sum tree.Sum, err error) {
	known := map[string]int64{}
	var have tree.Sum
	visit := func(e *tree.Entry) error {
		have.Files++
		have.Bytes += e.Size()
		if have.Files > want.Files || have.Bytes > want.Bytes || have.Bytes < 0 {
			return fmt.Errorf("it is more than the %d files and %d bytes of its record", want.Files, want.Bytes)
		}
		object := e.Object()
		if object == "" {
			return nil
		}
		if size, twice := known[object]; twice && size != e.Size() {
			return fmt.Errorf("object %s has %d bytes and %d", object, size, e.Size())
		} else if twice {
			return nil
		}
		known[object] = e.Size()
		contents = append(contents, content{object, e.Size()})
		return nil
	}
	sum, err = writeManifest(w.path, func(manifest *bufio.Writer) (sum tree.Sum, err error) {
		dictionary := func(sum []byte) ([]byte, error) {
			if from.manifest == nil {
				return nil, errors.New("the stream wants a manifest that is too large as dictionary")
			}
			return from.manifest, objects.Compare(fmt.Sprintf("%x", sum), from.manifest)
		}
		err = readPart(r, dictionary, func(r io.Reader) error {
			sum, err = tree.ReadManifest(io.TeeReader(io.LimitReader(r, maxManifest), manifest), visit)
			return err
		})
		return sum, err
	})
	if err != nil {
		return nil, sum, fmt.Errorf("the manifest: %w", err)
	}
	return contents, sum, nil
}

// receiveContent brings a content into the directory: from this host, or from the stream,
// which has what the base has not.
func (s *Store) receiveContent(ctx context.Context, w *work, r io.Reader, from *base, c content, dir *tree.Contents) error {
	_, known := from.sizes[c.object]
	err := s.linkObject(ctx, w, c)
	switch {
	case err == nil && !known:
		return skipPart(r)
	case err == nil || known || ctx.Err() != nil:
		return err
	}
	dictionary := func(sum []byte) ([]byte, error) { return from.dictionary(sum, c.size) }
	return readPart(r, dictionary, func(r io.Reader) error { return dir.Put(c.object, c.size, r) })
}

// linkObject gives an object of the store another name where contents arrive, and compares
// it with its name.
func (s *Store) linkObject(ctx context.Context, w *work, c content) error {
	path := filepath.Join(s.objects.Dir(), objects.Place(c.object))
	st, err := os.Lstat(path)
	if err == nil && (!st.Mode().IsRegular() || st.Size() != c.size) {
		err = fmt.Errorf("it is damaged: it has not its %d bytes", c.size)
	}
	if err == nil {
		err = s.objects.Check(ctx, c.object)
	}
	if err != nil {
		return err
	}
	return os.Link(path, filepath.Join(w.tree, c.object))
}
