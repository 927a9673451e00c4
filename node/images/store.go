package images

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// ErrNotFound means that the store has no such image.
var ErrNotFound = errors.New("no such image")

// Store is the directory of a host's images, and that of their files' contents.
type Store struct {
	Guests builder.Guests // of this host; nil: none
	// Plain: images that come are kept as plain trees, as where the kernel has no EROFS.
	Plain bool
	// OnPlainTree reports whether a running guest has an image's plain tree below it.
	OnPlainTree func(id string) (bool, error)
	// UsedIn returns the guests of a trust domain that use an image.
	UsedIn func(ctx context.Context, domain, id string) ([]string, error)

	dir     string
	objects *objects.Store
	domain  string // "": the host's
	host    *Store // the host's store, of that of a trust domain
}

// Open returns the store in dir, such as /var/lib/vservers/.images; the contents of files
// are in .store beside it. Nothing is created there before the first image.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &Store{dir: dir, objects: objects.At(filepath.Join(filepath.Dir(dir), ".store"))}, nil
}

// List returns the images sorted by name, the newest first. An image that was built
// from several specs is listed once for each.
func (s *Store) List(ctx context.Context) ([]api.Image, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var images []api.Image
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		records, err := s.records(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed while we look
		}
		if err != nil {
			return nil, err
		}
		images = append(images, records...)
	}
	order.Func(images, func(a, b api.Image) int {
		return cmp.Or(
			cmp.Compare(a.Spec.Name, b.Spec.Name), b.Created.Compare(a.Created),
			cmp.Compare(a.ID, b.ID), cmp.Compare(a.Key, b.Key))
	})
	return images, nil
}

// records returns the records of the specs that an image was built from, the oldest
// first.
func (s *Store) records(id string) ([]api.Image, error) {
	entries, err := os.ReadDir(s.path(id))
	if err != nil {
		return nil, err
	}
	description, err := os.ReadFile(filepath.Join(s.path(id), digestFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var images []api.Image
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) {
			continue
		}
		name := filepath.Join(s.path(id), e.Name())
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var img api.Image
		if err := json.Unmarshal(b, &img); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if img.ID != id || img.Key != img.Spec.Key() || e.Name() != img.Key+recordSuffix {
			return nil, fmt.Errorf("read %s: it speaks of another image, %s", name, img.ID)
		}
		img.Description = strings.TrimSpace(string(description))
		images = append(images, img)
	}
	order.Func(images, func(a, b api.Image) int { return a.Created.Compare(b.Created) })
	return images, nil
}

// Get finds an image by its ID, by a unique prefix of its digest of at least 8
// digits, or by its name; of several with that name it returns the newest.
func (s *Store) Get(ctx context.Context, ref string) (api.Image, error) {
	images, err := s.List(ctx)
	if err != nil {
		return api.Image{}, err
	}
	prefix := strings.TrimPrefix(ref, "sha256:")
	var found api.Image
	for _, img := range images {
		digest := strings.TrimPrefix(img.ID, "sha256:")
		switch {
		case img.Spec.Name == ref, img.ID == ref:
			return img, nil
		case len(prefix) < 8 || !strings.HasPrefix(digest, prefix):
		case found.ID != "" && found.ID != img.ID:
			return api.Image{}, fmt.Errorf("image %s: several begin so, %s and %s", ref, found.ID, img.ID)
		default:
			found = img
		}
	}
	if found.ID == "" {
		return api.Image{}, fmt.Errorf("image %s: %w on this host", ref, ErrNotFound)
	}
	return found, nil
}

// byKey finds the newest image that was built from a spec.
func (s *Store) byKey(ctx context.Context, key string) (found api.Image, ok bool, err error) {
	images, err := s.List(ctx)
	for _, img := range images {
		if img.Key == key && (!ok || img.Created.After(found.Created)) {
			found, ok = img, true
		}
	}
	return found, ok, err
}

// Root returns the path of an image's root filesystem, the lower layer of guests, as
// procctx.Root has it: a description, or a plain tree. It exists if the image does.
func (s *Store) Root(id string) (string, error) {
	here, err := s.Has(id)
	if err == nil && !here {
		err = fmt.Errorf("image %s is not on this host: vsfleet apply brings it", id)
	}
	if err != nil {
		return "", err
	}
	composed, err := s.hasManifest(id)
	if composed {
		return filepath.Join(s.path(id), procctx.DescriptionFile), err
	}
	return filepath.Join(s.path(id), plainTree), err
}

func (s *Store) path(id string) string {
	return filepath.Join(s.dir, strings.TrimPrefix(id, "sha256:"))
}

// Has reports whether the store has the image, complete.
func (s *Store) Has(id string) (bool, error) {
	if !validID(id) {
		return false, fmt.Errorf("image %q: want sha256: and 64 hexadecimal digits", id)
	}
	_, err := os.Lstat(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func validID(id string) bool {
	digest, ok := strings.CutPrefix(id, "sha256:")
	return ok && len(digest) == 64 && strings.Trim(digest, "0123456789abcdef") == ""
}

// Remove deletes an image with all its records, unless a guest uses it, and the objects that
// only it has. users returns the guests that use an image.
func (s *Store) Remove(ctx context.Context, id string, users func(id string) ([]string, error)) error {
	if err := s.sweep(ctx); err != nil {
		return err
	}
	err := s.remove(ctx, id, users)
	if err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	// The image is gone. If another one is damaged, no object can go: Collect says so.
	_, _, _ = s.collectAll(ctx, func(string) bool { return false }, false, users)
	return ctx.Err()
}

func (s *Store) remove(ctx context.Context, id string, users func(id string) ([]string, error)) error {
	here, err := s.Has(id)
	if err != nil {
		return err
	}
	if !here {
		return ErrNotFound
	}
	names, err := users(id)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("used by %s; delete the guests first", strings.Join(names, ", "))
	}
	// Rename it first: a removal that is killed leaves no incomplete image, and its
	// remains are swept like those of a build.
	w, err := s.lockWork(ctx, "removed-"+strings.TrimPrefix(id, "sha256:"))
	if err != nil {
		return err
	}
	defer w.close()
	if err := os.Rename(s.path(id), filepath.Join(w.path, "image")); err != nil {
		return err
	}
	return w.discard(ctx)
}

// commit turns the work directory into an image of the store with the given records.
// If the store has an image with the same tree, it adds the records to that one.
func (s *Store) commit(ctx context.Context, w *work, images ...api.Image) error {
	id := images[0].ID
	release, err := s.keep(ctx, w)
	if err != nil {
		return err
	}
	defer release()
	for _, img := range images {
		if err := record(w.path, img); err != nil {
			return err
		}
	}
	// An image under its final name is on the disk as a whole.
	if err := s.sync(w); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, w.path, unix.AT_FDCWD, s.path(id), unix.RENAME_NOREPLACE)
	if err == unix.EEXIST {
		_, err := s.addRecords(images)
		return errors.Join(err, w.discard(ctx))
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: w.path, New: s.path(id), Err: err}
	}
	return linux.SyncDir(s.dir)
}

// sync writes all of a work, and of the objects, to the disk.
func (s *Store) sync(w *work) error {
	if err := unix.Syncfs(int(w.lock.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", w.path, err)
	}
	return s.objects.Sync()
}

// addRecords adds records to an image and reports whether one was new.
func (s *Store) addRecords(images []api.Image) (changed bool, err error) {
	for _, img := range images {
		_, err := os.Lstat(filepath.Join(s.path(img.ID), img.Key+recordSuffix))
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return changed, err
		}
		if err := record(s.path(img.ID), img); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}
