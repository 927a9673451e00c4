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
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Derive describes an image with a guest's own files in place of what it has there, for
// that guest alone, and returns the ID of what guests are then mounted over: an image
// without a record, which Collect removes once no guest has it. open opens a file whose
// content is not in the store, or damaged there. Until release is called nothing of it is
// removed.
func (s *Store) Derive(ctx context.Context, from string, own []*tree.Entry, open func(*tree.Entry) (*os.File, error)) (id string, release func(), err error) {
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
	if id, err = s.derive(ctx, from, own, open); err != nil {
		lock.Unlock()
		return "", nil, err
	}
	return id, lock.Unlock, nil
}

func (s *Store) derive(ctx context.Context, from string, own []*tree.Entry, open func(*tree.Entry) (*os.File, error)) (id string, err error) {
	w, err := s.lockWork(ctx, "derive-"+strings.TrimPrefix(from, "sha256:"))
	if err != nil {
		return "", err
	}
	defer w.abandon(&err)
	if err := s.takeContents(ctx, w, own, open); err != nil {
		return "", err
	}
	base, err := os.ReadFile(filepath.Join(s.path(from), manifestFile))
	if err != nil {
		return "", err
	}
	sum, err := writeManifest(w.path, func(manifest *bufio.Writer) (tree.Sum, error) {
		return tree.Derive(bytes.NewReader(base), own, manifest)
	})
	if err == nil {
		err = s.describe(ctx, w.path)
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
	if err != nil && err != unix.EEXIST { // another guest has the same
		return "", &os.LinkError{Op: "rename", Old: w.path, New: s.path(sum.ID), Err: err}
	}
	return sum.ID, linux.SyncDir(s.dir)
}

// takeContents puts the contents of files into the store that it does not have undamaged.
func (s *Store) takeContents(ctx context.Context, w *work, own []*tree.Entry, open func(*tree.Entry) (*os.File, error)) error {
	dir, err := os.Open(w.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	copies := map[string]string{} // names in dir, by object
	seen := map[string]bool{}
	for _, e := range own {
		object := e.Object()
		if object == "" || seen[object] {
			continue
		}
		seen[object] = true
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.objects.Check(ctx, object) == nil {
			continue
		}
		name := "new-" + strconv.Itoa(len(copies))
		if err := copyContent(ctx, e, open, filepath.Join(w.path, name)); err != nil {
			return fmt.Errorf("%s: %w", e.Path(), err)
		}
		copies[object] = name
	}
	if len(copies) == 0 {
		return nil
	}
	// An object under its name is on the disk.
	if err := unix.Syncfs(int(w.lock.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", w.path, err)
	}
	for object, name := range copies {
		if _, err := s.objects.Take(object, dir, name); err != nil {
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
		err = errors.New("it has changed meanwhile")
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

// Rederive describes another image with the own files of what Derive returned before.
func (s *Store) Rederive(ctx context.Context, own, image string) (id string, release func(), err error) {
	f, err := os.Open(filepath.Join(s.path(own), manifestFile))
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	entries, err := tree.OwnEntries(f)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s.Derive(ctx, image, entries, func(e *tree.Entry) (*os.File, error) { return s.objects.Open(e.Object()) })
}

// Own returns what a tree that Derive has made has in place of its image.
func (s *Store) Own(id, image string) (*tree.Own, error) {
	o := tree.NewOwn(s.objects.Open)
	err := s.manifest(id, o.Add)
	if err == nil {
		err = s.manifest(image, o.AddImage)
	}
	return o, err
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
