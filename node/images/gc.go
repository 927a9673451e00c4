package images

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/composefs"
	"github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Collect removes the images that nothing uses, and the objects that no image has. users
// returns who uses an image. The newest image of each name stays, unless all is set. With
// dry nothing is removed.
func (s *Store) Collect(ctx context.Context, all, dry bool, users func(id string) ([]string, error)) (done api.Collected, err error) {
	if !dry {
		if err := s.sweep(ctx); err != nil {
			return done, err
		}
		if err := s.adoptAll(ctx); err != nil {
			done.Notes = append(done.Notes, err.Error())
		}
	}
	images, err := s.List(ctx)
	if err != nil {
		return done, err
	}
	unused, err := s.unused(images, all, users)
	if err != nil {
		return done, err
	}
	for _, img := range unused {
		if !dry {
			if err := s.remove(ctx, img.ID, users); err != nil {
				return done, err
			}
		}
		done.Images = append(done.Images, img)
	}
	if !dry {
		if err := s.dropUnused(ctx, images, all); err != nil {
			return done, err
		}
	}
	gone := func(id string) bool {
		return slices.ContainsFunc(unused, func(img api.Image) bool { return img.ID == id })
	}
	done.Objects, done.Bytes, err = s.collectAll(ctx, gone, dry, users)
	return done, err
}

// collectAll is collectObjects for the host's store and those of trust domains.
func (s *Store) collectAll(ctx context.Context, gone func(id string) bool, dry bool, users func(id string) ([]string, error)) (removed int, space int64, err error) {
	stores, err := s.all()
	for _, in := range stores {
		if in != s {
			gone = func(string) bool { return false } // leftBehind finds them
		}
		if in != s && !dry && err == nil {
			err = in.prepare(ctx)
		}
		if err != nil {
			return removed, space, err
		}
		var n int
		var size int64
		n, size, err = in.collectObjects(ctx, gone, dry, users)
		removed, space = removed+n, space+size
	}
	return removed, space, err
}

// unused returns one record of each image that can go.
func (s *Store) unused(images []api.Image, all bool, users func(id string) ([]string, error)) (unused []api.Image, err error) {
	keep, seen := map[string]bool{}, map[string]bool{}
	for _, img := range images { // the newest of a name comes first
		if !all && !seen[img.Spec.Name] {
			keep[img.ID] = true
		}
		seen[img.Spec.Name] = true
	}
	for _, img := range images {
		if keep[img.ID] {
			continue
		}
		keep[img.ID] = true // once
		names, err := users(img.ID)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			unused = append(unused, img)
		}
	}
	return unused, nil
}

// collectObjects removes the objects that no image has, besides those that are gone, and
// what was derived for guests that have it no more.
func (s *Store) collectObjects(ctx context.Context, gone func(id string) bool, dry bool, users func(id string) ([]string, error)) (removed int, space int64, err error) {
	lock, err := s.objects.Alone(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer lock.Unlock()
	ids, err := s.ids()
	if err != nil {
		return 0, 0, err
	}
	keep := map[string]bool{}
	for _, id := range ids {
		if gone(id) {
			continue
		}
		if left, err := s.leftBehind(ctx, id, dry, users); err != nil {
			return 0, 0, err
		} else if left {
			continue
		}
		// A manifest that cannot be read names nothing: nothing is removed then.
		if err := s.manifest(id, func(e *tree.Entry) { keep[e.Object()] = true }); err != nil {
			return 0, 0, err
		}
	}
	delete(keep, "")
	return s.objects.Sweep(ctx, keep, dry)
}

// leftBehind removes what was derived for guests and none has any more, and copies that no
// guest of a trust domain is on. The store is locked: a guest has what is derived for it
// before that lock is free.
func (s *Store) leftBehind(ctx context.Context, id string, dry bool, users func(id string) ([]string, error)) (bool, error) {
	derived, err := s.derived(id)
	if err != nil || !derived && s.host == nil {
		return false, err
	}
	if !derived {
		users = s.usersHere(ctx)
	}
	names, err := users(id)
	if err != nil || len(names) > 0 {
		return false, err
	}
	if dry {
		return true, nil
	}
	return true, s.remove(ctx, id, users)
}

// usersHere returns the guests of a trust domain that use an image.
func (s *Store) usersHere(ctx context.Context) func(id string) ([]string, error) {
	return func(id string) ([]string, error) { return s.UsedIn(ctx, s.domain, id) }
}

// manifest calls visit for each entry of an image's manifest, if it has one, and compares
// it with the image's ID.
func (s *Store) manifest(id string, visit func(*tree.Entry)) error {
	sum, err := readManifest(s.path(id), func(e *tree.Entry) error {
		visit(e)
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && sum.ID != id:
		err = fmt.Errorf("%s is that of %s now", filepath.Join(s.path(id), manifestFile), sum.ID)
	}
	if err != nil {
		return fmt.Errorf("image %s is damaged: %w; remove it, and have it built or copied again", id, err)
	}
	return nil
}

// Check reads all images and objects, and compares them with what they should be. users
// returns who uses an image.
func (s *Store) Check(ctx context.Context, users func(id string) ([]string, error)) (c api.StoreCheck, err error) {
	stores, err := s.all()
	if err != nil {
		return c, err
	}
	for _, in := range stores {
		before := len(c.Damaged)
		if err := in.check(ctx, &c); err != nil {
			return c, err
		}
		who := users
		if in != s {
			who = in.usersHere(ctx)
		}
		for i := before; i < len(c.Damaged); i++ {
			d := &c.Damaged[i]
			for _, id := range d.Images {
				names, err := who(id)
				if err != nil {
					return c, err
				}
				d.Users = append(d.Users, names...)
			}
			slices.Sort(d.Users)
			d.Users = slices.Compact(d.Users)
			if in != s {
				d.What = "trust domain " + in.domain + ": " + d.What
			}
		}
	}
	return c, nil
}

// check adds what the store has, and what is damaged there.
func (s *Store) check(ctx context.Context, c *api.StoreCheck) error {
	ids, err := s.ids()
	if err != nil {
		return err
	}
	holders := map[string][]string{} // IDs of images, by object
	for _, id := range ids {
		c.Images++
		var mine []string
		err := s.checkImage(ctx, id, func(object string) { mine = append(mine, object) })
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		if err != nil {
			c.Damaged = append(c.Damaged, api.Damage{What: err.Error(), Images: []string{id}})
		}
		for _, object := range mine {
			if list := holders[object]; len(list) == 0 || list[len(list)-1] != id {
				holders[object] = append(list, id)
			}
		}
	}
	names := make([]string, 0, len(holders))
	for object := range holders {
		names = append(names, object)
	}
	slices.Sort(names)
	for _, object := range names {
		c.Objects++
		err := s.objects.Check(ctx, object)
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		if err != nil {
			c.Damaged = append(c.Damaged, api.Damage{What: err.Error(), Images: holders[object]})
		}
	}
	return nil
}

// checkImage compares an image's tree, or manifest and description, with its ID, and calls
// object for each that it has.
func (s *Store) checkImage(ctx context.Context, id string, object func(string)) error {
	composed, err := s.hasManifest(id)
	if err != nil {
		return err
	}
	if !composed {
		sum, err := tree.Digest(ctx, filepath.Join(s.path(id), plainTree))
		if err == nil && sum.ID != id {
			err = fmt.Errorf("its tree was changed and is %s now", sum.ID)
		}
		return err
	}
	if err := s.manifest(id, func(e *tree.Entry) {
		if e.Object() != "" {
			object(e.Object())
		}
	}); err != nil {
		return err
	}
	t, _, err := s.composeTree(ctx, s.path(id))
	if err != nil {
		return nil // an object is damaged, which is found by itself
	}
	return compareDescription(t, filepath.Join(s.path(id), procctx.DescriptionFile))
}

// compareDescription compares a file with the description that the tree has.
func compareDescription(t *composefs.Tree, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	have, want := sha256.New(), sha256.New()
	if _, err := io.Copy(have, f); err != nil {
		return err
	}
	w := bufio.NewWriterSize(want, 1<<18)
	if _, err := t.Write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if string(have.Sum(nil)) != string(want.Sum(nil)) {
		return fmt.Errorf("%s is not the description of its manifest", path)
	}
	return nil
}
