package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// In returns the store of a trust domain; that of "" is the host's own. Images come to the
// host's store, and guests have them copied from there: see Tree.
func (s *Store) In(domain string) *Store {
	if domain == "" {
		return s
	}
	dir := filepath.Join(s.domains(), domain)
	return &Store{
		Plain: s.Plain, OnPlainTree: s.OnPlainTree, UsedIn: s.UsedIn,
		dir: filepath.Join(dir, ".images"), objects: objects.At(filepath.Join(dir, ".store")), domain: domain, host: s,
	}
}

func (s *Store) domains() string { return filepath.Join(filepath.Dir(s.dir), ".domains") }

// all returns the host's store and those of trust domains.
func (s *Store) all() ([]*Store, error) {
	stores := []*Store{s}
	dirs, err := os.ReadDir(s.domains())
	if errors.Is(err, fs.ErrNotExist) {
		return stores, nil
	}
	for _, d := range dirs {
		stores = append(stores, s.In(d.Name()))
	}
	return stores, err
}

// Tree returns the Root of an image for guests of a trust domain. If that does not have the
// image and another one does, it gets a copy first.
func (s *Store) Tree(ctx context.Context, domain, id string) (string, error) {
	in := s.In(domain)
	here, err := in.Has(id)
	if err == nil && !here {
		err = in.copy(ctx, s, id)
	}
	if err != nil {
		return "", err
	}
	return in.Root(id)
}

// copy copies an image from another store of the host, if one has it.
func (s *Store) copy(ctx context.Context, host *Store, id string) error {
	stores, err := host.all()
	if err != nil {
		return err
	}
	for _, from := range stores {
		if here, _ := from.Has(id); !here {
			continue
		}
		if err = s.copyFrom(ctx, from, id); err == nil {
			return nil
		}
		err = fmt.Errorf("copy image %s for the trust domain %q: %w", id, s.domain, err) // another one's may be sound
	}
	return err // nil: Root says that it is nowhere
}

func (s *Store) copyFrom(ctx context.Context, from *Store, id string) error {
	if composed, err := from.hasManifest(id); err != nil {
		return err
	} else if !composed {
		r, w := io.Pipe()
		defer r.Close() // ends the export
		go func() { w.CloseWithError(from.Export(ctx, id, w)) }()
		_, _, err := s.Import(ctx, r, id)
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	records, err := from.records(id) // none, of what was derived for a guest
	if err != nil {
		return err
	}
	var files []*tree.Entry
	if err := from.manifest(id, func(e *tree.Entry) { files = append(files, e) }); err != nil {
		return err
	}
	lock, err := s.objects.Share(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	open := func(e *tree.Entry) (*os.File, error) { return from.objects.Open(e.Object()) }
	_, err = s.compile(ctx, "copy-"+id[len("sha256:"):], files, open, records, func(manifest *bufio.Writer) (sum tree.Sum, err error) {
		f, err := os.Open(filepath.Join(from.path(id), manifestFile))
		if err == nil {
			defer f.Close()
			_, err = io.Copy(manifest, f)
		}
		return tree.Sum{ID: id}, err
	})
	return err
}
