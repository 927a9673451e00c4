package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// CheckSpec refuses a spec that no host can build.
func (s *Store) CheckSpec(spec api.ImageSpec) error { return builder.Check(spec) }

// Build makes the image of a spec, or finds the one that was made from it; changed
// reports whether it made one. If another vsnode builds the same, Build waits for it.
func (s *Store) Build(ctx context.Context, spec api.ImageSpec, progress builder.Progress) (img api.Image, changed bool, err error) {
	return s.build(ctx, spec, false, Input{}, progress)
}

// BuildAnew is Build for the next version of an image: it makes one even if there is one of
// the spec. changed is false if it became one that was there.
func (s *Store) BuildAnew(ctx context.Context, spec api.ImageSpec, progress builder.Progress) (img api.Image, changed bool, err error) {
	return s.build(ctx, spec, true, Input{}, progress)
}

// An Input is used in a build beside the spec.
type Input struct {
	Archive io.Reader // read once, if there is something to build
	Source  string    // where the controller got it: [api.Image.Source]
	Upgrade string    // the ID of the image whose packages are upgraded in a copy of it, instead
}

// BuildFrom is Build, or BuildAnew, from more than the spec.
func (s *Store) BuildFrom(ctx context.Context, spec api.ImageSpec, anew bool, in Input, progress builder.Progress) (img api.Image, changed bool, err error) {
	return s.build(ctx, spec, anew, in, progress)
}

func (s *Store) build(ctx context.Context, spec api.ImageSpec, anew bool, in Input, progress builder.Progress) (img api.Image, changed bool, err error) {
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
	sum, err := s.fill(ctx, w, spec, in, progress)
	if errors.Is(err, builder.ErrNothingNewer) {
		if err = w.discard(ctx); err == nil {
			img, err = s.Get(ctx, in.Upgrade)
		}
		return img, false, err
	}
	if err != nil {
		return api.Image{}, false, fmt.Errorf("build image %s: %w", spec.Name, err)
	}
	img = api.Image{
		ID: sum.ID, Spec: spec.Record(), Key: key, Bytes: sum.Bytes, Files: sum.Files,
		Created: time.Now().UTC().Truncate(time.Second), Source: in.Source,
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
func (s *Store) fill(ctx context.Context, w *work, spec api.ImageSpec, in Input, progress builder.Progress) (tree.Sum, error) {
	if err := w.makeTree(); err != nil {
		return tree.Sum{}, err
	}
	log, err := os.OpenFile(filepath.Join(w.path, "build.log"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return tree.Sum{}, err
	}
	defer log.Close()
	req := builder.Request{Spec: spec, Dir: w.tree, Log: log, Progress: progress, Guests: s.Guests}
	if in.Archive != nil {
		req.Input = filepath.Join(w.path, "input")
		if err := keep(in.Archive, req.Input); err != nil {
			return tree.Sum{}, err
		}
		if in.Source != "" {
			fmt.Fprintln(log, "from "+in.Source)
		}
	}
	if in.Upgrade != "" {
		req.Last = func(ctx context.Context, dir string) error { return s.unpackImage(ctx, in.Upgrade, dir) }
	}
	if err := builder.Run(ctx, req); err != nil {
		return tree.Sum{}, err
	}
	if req.Input != "" {
		if err := os.Remove(req.Input); err != nil {
			return tree.Sum{}, err
		}
	}
	progress.Report("reading it for its digest", 0, 0)
	if w.composed = s.composed(); !w.composed {
		return tree.Digest(ctx, w.tree)
	}
	return writeManifest(w.path, func(manifest *bufio.Writer) (tree.Sum, error) { return tree.Record(ctx, w.tree, manifest) })
}

// unpackImage makes a plain tree of an image in an empty directory.
func (s *Store) unpackImage(ctx context.Context, id, dir string) error {
	r, w := io.Pipe()
	go func() {
		_, err := s.pack(ctx, id, w)
		w.CloseWithError(err)
	}()
	sum, err := tree.Unpack(ctx, dir, r)
	r.CloseWithError(err)
	if err == nil && sum.ID != id {
		err = fmt.Errorf("image %s is damaged: it is %s now", id, sum.ID)
	}
	return err
}

// keep writes what the controller sends to a file, if that leaves the disk enough space.
func keep(r io.Reader, name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	free, err := tree.Free(filepath.Dir(name))
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, free+1))
	if err == nil && n > free {
		err = fmt.Errorf("it has more than the %d MiB that are free: %w", free>>20, unix.ENOSPC)
	}
	if err != nil {
		return fmt.Errorf("keep what the controller sends: %w", err)
	}
	return f.Close()
}
