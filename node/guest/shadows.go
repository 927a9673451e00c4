package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/packages"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/shadow"
)

// Images reads the images of a host.
type Images interface {
	// ReadEntries calls visit for each entry of an image.
	ReadEntries(ctx context.Context, id string, visit func(*imagetree.Entry) error) error
	// ReadFile returns a file of an image, of limit bytes at most; the name has no slash at
	// its front.
	ReadFile(id, name string, limit int64) ([]byte, error)
}

// Trees has the entries of images, by ID.
type Trees map[string]shadow.Index

// Shadows returns what a guest has of its own where another image differs from the one
// that is below its files, which is from: "" if that is not known. trees keeps what was read
// of images for the next guest.
func (h *Host) Shadows(ctx context.Context, name, image string, trees Trees) (from string, files []api.Shadow, err error) {
	c, err := h.Read(name)
	if err != nil {
		return "", nil, err
	}
	path, err := filepath.EvalSymlinks(c.Root)
	if err == nil {
		from, err = baseOf(path)
	}
	if err != nil || from == "" || from == image {
		return from, nil, err
	}
	upper, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return from, nil, err
	}
	defer upper.Close()
	files, err = h.shadows(ctx, upper, from, image, trees)
	return from, files, err
}

func (h *Host) shadows(ctx context.Context, upper *os.File, from, to string, trees Trees) ([]api.Shadow, error) {
	o, err := ownOf(upper.Name())
	if err != nil {
		return nil, err
	}
	var of [3]shadow.Index
	for i, id := range []string{from, to, o.id} {
		if of[i] = trees[id]; of[i] != nil || id == "" {
			continue
		}
		of[i] = shadow.Index{}
		if err := h.Images.ReadEntries(ctx, id, of[i].Add); err != nil {
			return nil, fmt.Errorf("read what is in image %s: %w", id, err)
		}
		if id != o.id {
			trees[id] = of[i]
		}
	}
	return shadow.Find(ctx, upper, of[0], of[1], of[2])
}

// moveShadows takes or merges files of the guest's own that hide what an image changes, as
// its rules say, and puts back what it gave up when it left that image. was is the image
// below its files. left is a directory to remove once the guest is on the new image.
func (g *Guest) moveShadows(ctx context.Context, was, image, path string) (left string, err error) {
	upper, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	defer upper.Close()
	store := shadow.Store{Dir: filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".shadowed"), Upper: upper, Merge: g.host.mergePackages}
	m, err := store.Last()
	if err != nil {
		return "", err
	}
	back := m.From == image && m.To == was
	if back || m.From == was && m.To != image { // the latter of a call that was killed, or reverted
		err := store.Undo(ctx, m, func(name string) {
			warn(ctx, fmt.Sprintf("/%s was written since image %s was left, and stays", name, m.From))
		})
		if err != nil || back {
			return store.Dir, err
		}
		m = shadow.Move{}
		if err := os.RemoveAll(store.Dir); err != nil {
			return "", err
		}
	}
	if was == image {
		return "", nil
	}
	if m.From != was {
		if m, err = g.planMove(ctx, store, was, image); err == nil && len(m.Files) > 0 {
			err = store.Begin(m)
		}
	}
	if err != nil || len(m.Files) == 0 {
		return "", err
	}
	return "", store.Do(ctx, m)
}

// planMove returns what the guest gives up for another image.
func (g *Guest) planMove(ctx context.Context, store shadow.Store, was, image string) (shadow.Move, error) {
	m := shadow.Move{From: was, To: image, Files: map[string]string{}}
	c, err := g.Config()
	if err != nil {
		return m, err
	}
	if c.Shadowed == "" && !slices.ContainsFunc(setting.RebasedFiles, func(name string) bool { _, err := store.Read(name[1:]); return err == nil }) {
		return m, nil // the images need not be read
	}
	files, err := g.host.shadows(ctx, store.Upper, was, image, Trees{})
	if err != nil {
		if ctx.Err() == nil {
			warn(ctx, fmt.Sprintf("its own files that hide what image %s changes stay: %v", image, err))
			err = nil
		}
		return m, err
	}
	for _, f := range files {
		name := f.Path[1:]
		do := setting.ShadowAction(c.Shadowed, f.Path)
		switch {
		case f.Stays:
		case do == setting.ShadowReset:
			m.Files[name] = ""
		case do == setting.ShadowRebase && f.Kind == api.ShadowChanged:
			var merged []byte
			data, err := store.Read(name)
			if err == nil {
				merged, err = store.Merge(was, image, name, data)
			}
			if err != nil {
				warn(ctx, fmt.Sprintf("%s stays as it is: %v", f.Path, err))
			} else if !bytes.Equal(merged, data) {
				m.Files[name] = shadow.Sum(merged)
			}
		}
	}
	return m, nil
}

// mergePackages returns the database of a guest's packages for another image.
func (h *Host) mergePackages(from, to, name string, guest []byte) ([]byte, error) {
	before, err := h.Images.ReadFile(from, name, packages.MaxDatabase)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	after, err := h.Images.ReadFile(to, name, packages.MaxDatabase)
	if errors.Is(err, fs.ErrNotExist) {
		return guest, nil // it has another package manager
	}
	return packages.Merge(before, guest, after), err
}
