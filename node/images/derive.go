package images

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Derive describes an image with a guest's own files in place of what it has there, for
// that guest alone, and returns the ID of what guests are then mounted over: an image
// without a record, which Collect removes once no guest has it. open opens a file whose
// content is not in the store, or damaged there. Until release is called nothing of it is
// removed.
func (s *Store) Derive(ctx context.Context, domain, from string, own []*tree.Entry, open func(*tree.Entry) (*os.File, error)) (id string, release func(), err error) {
	s = s.In(domain)
	if !s.composed() {
		return "", nil, errors.New("images are plain trees here: the kernel has no EROFS, or /etc/vservers keeps it from being used (see vsnode check)")
	}
	if composed, err := s.hasManifest(from); err != nil || !composed {
		return "", nil, errors.Join(err, fmt.Errorf("image %s is a plain tree that could not be taken over: see vsnode image check", from))
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return "", nil, err
	}
	lock, err := s.objects.Share(ctx)
	if err != nil {
		return "", nil, err
	}
	id, err = s.compile(ctx, "derive-"+strings.TrimPrefix(from, "sha256:"), own, open, nil, func(manifest *bufio.Writer) (tree.Sum, error) {
		base, err := os.ReadFile(filepath.Join(s.path(from), manifestFile))
		if err != nil {
			return tree.Sum{}, err
		}
		return tree.Derive(bytes.NewReader(base), own, manifest)
	})
	if err != nil {
		lock.Unlock()
		return "", nil, err
	}
	return id, lock.Unlock, nil
}

// compile makes an image, in the work directory of that name, of a manifest and of files that
// open opens, as far as the store does not have their contents. The caller shares the objects.
func (s *Store) compile(ctx context.Context, name string, files []*tree.Entry, open func(*tree.Entry) (*os.File, error), records []api.Image,
	write func(*bufio.Writer) (tree.Sum, error),
) (id string, err error) {
	w, err := s.lockWork(ctx, name)
	if err != nil {
		return "", err
	}
	defer w.abandon(&err)
	if err := s.takeContents(ctx, w, files, open); err != nil {
		return "", err
	}
	sum, err := writeManifest(w.path, write)
	if err == nil {
		err = s.describe(ctx, w.path)
	}
	for _, img := range records {
		if err == nil {
			err = record(w.path, img)
		}
	}
	if err == nil {
		err = s.sync(w)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", err
	}
	err = unix.Renameat2(unix.AT_FDCWD, w.path, unix.AT_FDCWD, s.path(sum.ID), unix.RENAME_NOREPLACE)
	if err != nil && err != unix.EEXIST { // made for another guest, or by another vsnode
		return "", &os.LinkError{Op: "rename", Old: w.path, New: s.path(sum.ID), Err: err}
	}
	return sum.ID, linux.SyncDir(s.dir)
}

// takeContents puts the contents of files into the store that it does not have undamaged.
func (s *Store) takeContents(ctx context.Context, w *work, files []*tree.Entry, open func(*tree.Entry) (*os.File, error)) error {
	dir, err := os.Open(w.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	missing, seen := []*tree.Entry{}, map[string]bool{"": true}
	var need api.Image
	for _, e := range files {
		object := e.Object()
		if seen[object] {
			continue
		}
		seen[object] = true
		if err := s.objects.CheckOnce(ctx, object); err == nil {
			continue
		} else if ctx.Err() != nil {
			return err
		}
		missing = append(missing, e)
		need.Files, need.Bytes = need.Files+1, need.Bytes+e.Size()
	}
	if len(missing) == 0 {
		return nil
	}
	if err := s.checkSpace(need); err != nil {
		return err
	}
	const prefix = "new-"
	for _, e := range missing {
		if err := copyContent(ctx, e, open, filepath.Join(w.path, prefix+e.Object())); err != nil {
			return fmt.Errorf("%s: %w", e.Path(), err)
		}
	}
	// An object under its name is on the disk.
	if err := unix.Syncfs(int(w.lock.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", w.path, err)
	}
	for _, e := range missing {
		if _, err := s.objects.Take(e.Object(), dir, prefix+e.Object()); err != nil {
			return err
		}
	}
	return nil
}

func copyContent(ctx context.Context, e *tree.Entry, open func(*tree.Entry) (*os.File, error), to string) error {
	from, err := open(e)
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), contextReader{ctx, from})
	if err == nil && (n != e.Size() || hex.EncodeToString(sum.Sum(nil)) != e.Object()) {
		err = errors.New("its content is another one by now: it was changed, or is damaged")
	}
	return errors.Join(err, f.Close())
}

type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// Rederive describes another image with the own files of what Derive returned before, in a
// trust domain that has both.
func (s *Store) Rederive(ctx context.Context, domain, own, image string) (id string, release func(), err error) {
	s = s.In(domain)
	f, err := os.Open(filepath.Join(s.path(own), manifestFile))
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	entries, err := tree.OwnEntries(f)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s.Derive(ctx, "", image, entries, func(e *tree.Entry) (*os.File, error) { return s.objects.Open(e.Object()) })
}

// Own returns what a tree that Derive has made has in place of its image.
func (s *Store) Own(domain, id, image string) (*tree.Own, error) {
	s = s.In(domain)
	o := tree.NewOwn(s.holder(id).objects.Open)
	err := s.holder(id).manifest(id, o.Add)
	if err == nil {
		err = s.holder(image).manifest(image, o.AddImage)
	}
	return o, err
}

// holder returns the store of this host that has an image, which is the same wherever it
// is; this one, if none has it.
func (s *Store) holder(id string) *Store {
	if stores, err := s.all(); err == nil {
		for _, s := range stores {
			if here, _ := s.Has(id); here {
				return s
			}
		}
	}
	return s
}

// derived reports whether an image is one that Derive made.
func (s *Store) derived(id string) (bool, error) {
	records, err := s.records(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && len(records) == 0, err
}

// Prepare takes over images that are plain trees, before guests' files are compared with
// objects.
func (s *Store) Prepare(ctx context.Context) error { return s.prepare(ctx) }

// Objects returns the sizes of all objects, by name.
func (s *Store) Objects(ctx context.Context) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := s.objects.Walk(ctx, func(name, _ string, st *unix.Stat_t) error {
		if name != "" {
			sizes[name] = st.Size
		}
		return nil
	})
	return sizes, err
}

// Description returns what another description like that of an image would take: nothing in
// place of one that Derive made.
func (s *Store) Description(id string) (int64, error) {
	if derived, err := s.derived(id); derived || err != nil {
		return 0, err
	}
	info, err := os.Lstat(filepath.Join(s.path(id), procctx.DescriptionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // a plain tree: Derive refuses it
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
