package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// prepare does what precedes every call that makes an image: it removes what killed calls
// left, and takes over what is a plain tree. An image that cannot be taken over is in
// nobody's way: Collect and Check name it.
func (s *Store) prepare(ctx context.Context) error {
	if err := s.sweep(ctx); err != nil {
		return err
	}
	_ = s.adoptAll(ctx)
	return ctx.Err()
}

// adoptAll takes over images that are plain trees, and removes the trees of those that
// were taken over. One that cannot be taken over stays as it is; the first error is
// returned, for whom it concerns.
func (s *Store) adoptAll(ctx context.Context) (failed error) {
	if !s.composed() {
		return nil
	}
	ids, err := s.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		composed, err := s.hasManifest(id)
		if err == nil && !composed {
			err = s.adopt(ctx, id)
		} else if err == nil {
			err = s.dropTree(ctx, id)
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("take over image %s: %w", id, err)
		}
	}
	return failed
}

// adopt makes manifest, objects and description of a plain tree. The objects are the files
// of the tree themselves, which keep their names, owners and modes: guests run on them. The
// manifest comes last: from then on guests start on the description.
func (s *Store) adopt(ctx context.Context, id string) (err error) {
	w, err := s.lockWork(ctx, "adopt-"+id[len("sha256:"):])
	if err != nil {
		return err
	}
	defer w.abandon(&err)
	if composed, err := s.hasManifest(id); composed || err != nil {
		return err
	}
	plain := filepath.Join(s.path(id), plainTree)
	sum, err := writeManifest(w.path, func(manifest *bufio.Writer) (tree.Sum, error) { return tree.Record(ctx, plain, manifest) })
	if err != nil {
		return err
	}
	if sum.ID != id {
		return fmt.Errorf("its tree was changed in the store and is now %s; remove the image and build it again", sum.ID)
	}
	lock, err := s.objects.Share(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if err := s.compose(ctx, w.path, plain, (*tree.Entry).Path, s.objects.Adopt); err != nil {
		return err
	}
	if err := s.sync(w); err != nil {
		return err
	}
	for _, name := range []string{procctx.DescriptionFile, digestFile, procctx.ObjectsLink, procctx.InitLink, manifestFile} {
		err := os.Rename(filepath.Join(w.path, name), filepath.Join(s.path(id), name))
		if err != nil && (name != procctx.InitLink || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
		if name == procctx.InitLink {
			if err := linux.SyncDir(s.path(id)); err != nil {
				return err
			}
		}
	}
	return linux.SyncDir(s.path(id))
}

// grace is how long the tree of an image that was taken over stays: who found it before
// has mounted it by then, and noted that.
const grace = time.Hour

// dropTree removes the plain tree of an image that was taken over, once no guest can have
// it below itself.
func (s *Store) dropTree(ctx context.Context, id string) (err error) {
	plain := filepath.Join(s.path(id), plainTree)
	if _, err := os.Lstat(plain); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	since, err := os.Lstat(filepath.Join(s.path(id), manifestFile))
	if err != nil || s.OnPlainTree == nil {
		return err
	}
	switch now := time.Now(); {
	case since.ModTime().After(now): // the clock has gone back: the hour begins now
		return os.Chtimes(filepath.Join(s.path(id), manifestFile), now, now)
	case now.Sub(since.ModTime()) < grace:
		return nil
	}
	if used, err := s.OnPlainTree(id); used || err != nil {
		return err
	}
	w, err := s.lockWork(ctx, "adopted-"+id[len("sha256:"):])
	if err != nil {
		return err
	}
	defer w.abandon(&err)
	return unix.Renameat2(unix.AT_FDCWD, plain, unix.AT_FDCWD, filepath.Join(w.path, plainTree), unix.RENAME_NOREPLACE)
}

// ids returns the IDs of all images.
func (s *Store) ids() (all []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if id := "sha256:" + e.Name(); validID(id) {
			all = append(all, id)
		}
	}
	return all, err
}
