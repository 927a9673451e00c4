package images

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// CheckSpec refuses a spec that no host can build.
func (s *Store) CheckSpec(spec api.ImageSpec) error { return builder.Check(spec) }

// Build makes the image of a spec, or finds the one that was made from it; changed
// reports whether it made one. If another vsnode builds the same, Build waits for it.
func (s *Store) Build(ctx context.Context, spec api.ImageSpec, progress builder.Progress) (img api.Image, changed bool, err error) {
	return s.build(ctx, spec, false, progress)
}

// BuildAnew is Build for the next version of an image: it makes one even if there is one of
// the spec. changed is false if it became one that was there.
func (s *Store) BuildAnew(ctx context.Context, spec api.ImageSpec, progress builder.Progress) (img api.Image, changed bool, err error) {
	return s.build(ctx, spec, true, progress)
}

func (s *Store) build(ctx context.Context, spec api.ImageSpec, anew bool, progress builder.Progress) (img api.Image, changed bool, err error) {
	if err := s.prepare(ctx); err != nil {
		return api.Image{}, false, err
	}
	key := spec.Key()
	if img, found, err := s.byKey(ctx, key); found && !anew || err != nil {
		return img, false, err
	}
	w, err := s.lockWork(ctx, "build-"+key)
	if err != nil {
		return api.Image{}, false, fmt.Errorf("build image %s: %w", spec.Name, err)
	}
	defer w.abandon(&err)
	// Another one may have built it while we waited.
	if img, found, err := s.byKey(ctx, key); found && !anew || err != nil {
		return img, false, err
	}
	sum, err := s.fill(ctx, w, spec, progress)
	if err != nil {
		return api.Image{}, false, fmt.Errorf("build image %s: %w", spec.Name, err)
	}
	img = api.Image{
		ID: sum.ID, Spec: spec.Record(), Key: key, Bytes: sum.Bytes, Files: sum.Files,
		Created: time.Now().UTC().Truncate(time.Second),
	}
	progress.Report("writing to the disk", 0, 0)
	had, err := s.Has(img.ID)
	if err == nil {
		err = s.commit(ctx, w, img)
	}
	if err != nil {
		return api.Image{}, false, fmt.Errorf("build image %s: %w", spec.Name, err)
	}
	return img, !had || !anew, nil
}

// fill builds the tree in the work directory and returns its digest and size.
func (s *Store) fill(ctx context.Context, w *work, spec api.ImageSpec, progress builder.Progress) (tree.Sum, error) {
	if err := w.makeTree(); err != nil {
		return tree.Sum{}, err
	}
	log, err := os.OpenFile(filepath.Join(w.path, "build.log"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return tree.Sum{}, err
	}
	defer log.Close()
	if err := builder.Run(ctx, builder.Request{Spec: spec, Dir: w.tree, Log: log, Progress: progress, Guests: s.Guests}); err != nil {
		return tree.Sum{}, err
	}
	progress.Report("reading it for its digest", 0, 0)
	if w.composed = s.composed(); !w.composed {
		return tree.Digest(ctx, w.tree)
	}
	return writeManifest(w.path, func(manifest *bufio.Writer) (tree.Sum, error) { return tree.Record(ctx, w.tree, manifest) })
}
