package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Listed is a backup of a list.
type Listed struct {
	Name string
	Head
	Err error // why it cannot be read
}

// All returns the backups of the directory, those of each guest from the oldest on. match may
// be nil; it reports whether those of a guest are wanted.
func (s *Store) All(ctx context.Context, match func(host, guest string) bool) (all []Listed, err error) {
	hosts, err := s.dirs("")
	for _, host := range hosts {
		guests, derr := s.dirs(host)
		err = errors.Join(err, derr)
		for _, guest := range guests {
			if match != nil && !match(host, guest) {
				continue
			}
			names, derr := s.names(path.Join(host, guest))
			err = errors.Join(err, derr)
			for _, name := range names {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				head, herr := s.head(name)
				all = append(all, Listed{name, head, herr})
			}
		}
	}
	return all, err
}

// dirs returns the directories of one, but for those of the store itself.
func (s *Store) dirs(name string) (names []string, err error) {
	list, err := s.place.List(name)
	for _, info := range list {
		if info.IsDir() && !strings.HasPrefix(info.Name(), ".") {
			names = append(names, info.Name())
		}
	}
	return names, err
}

func (s *Store) head(name string) (Head, error) {
	f, err := s.place.Open(name)
	if err != nil {
		return Head{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Head{}, err
	}
	return readHead(f, info.Size())
}

// Checked is the result of Check.
type Checked struct {
	Backups, Objects int
	Bytes            int64    // that the objects take
	Unused           int      // objects that no backup has
	Damaged          []string // what is damaged or missing, and what it is of
}

// Check compares each backup with its digest and looks whether its objects are there; with
// contents, it reads them too.
func (s *Store) Check(ctx context.Context, contents bool) (c Checked, err error) {
	objects, err := s.objects(ctx)
	if err != nil {
		return c, err
	}
	all, err := s.All(ctx, nil)
	if err != nil {
		return c, err
	}
	users := map[string]string{} // of objects
	sizes := map[string]int64{}
	for _, one := range all {
		b, err := s.Backup(ctx, one.Name)
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		if err != nil {
			c.Damaged = append(c.Damaged, err.Error())
			continue
		}
		c.Backups++
		missing := 0
		for _, f := range b.files.list {
			if f.object == "" {
				continue
			}
			if _, there := objects[f.object]; !there {
				missing++
			} else if users[f.object] == "" {
				users[f.object], sizes[f.object] = one.Name+": "+f.Header.Name, f.size
			}
		}
		if missing > 0 {
			c.Damaged = append(c.Damaged, fmt.Sprintf("%s: %d objects are missing", one.Name, missing))
		}
	}
	c.Objects, c.Unused = len(objects), len(objects)-len(users)
	for _, size := range objects {
		c.Bytes += size
	}
	if !contents {
		return c, nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	found := make(chan []string, 1)
	found <- c.Damaged
	for object, user := range users {
		g.Go(func() error {
			err := s.content(ctx, object, sizes[object], func(io.Reader) error { return nil })
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				found <- append(<-found, fmt.Sprintf("%v (%s)", err, user))
			}
			return nil
		})
	}
	err = g.Wait()
	c.Damaged = <-found
	return c, err
}

// objects returns the sizes of all objects on the disk.
func (s *Store) objects(ctx context.Context) (map[string]int64, error) {
	dirs, err := s.place.List(objectsDir)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	all := make(chan map[string]int64, 1)
	all <- map[string]int64{}
	for _, dir := range dirs {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			list, err := s.place.List(path.Join(objectsDir, dir.Name()))
			m := <-all
			for _, info := range list {
				m[dir.Name()+info.Name()] = info.Size()
			}
			all <- m
			return err
		})
	}
	err = g.Wait()
	return <-all, err
}

// Keep has the backups of each guest that are kept: the last ones, and the last one of each of the
// last days, weeks and months that have any.
type Keep struct{ Last, Daily, Weekly, Monthly int }

// Pruned is the result of Prune: what was removed, or would be.
type Pruned struct {
	Backups []Listed
	Objects int
	Bytes   int64
}

// Prune removes the backups that are not kept, of guests that match, and the objects that no
// backup has then. With dry, it removes nothing.
func (s *Store) Prune(ctx context.Context, keep Keep, match func(host, guest string) bool, dry bool) (p Pruned, err error) {
	all, err := s.All(ctx, nil)
	if err != nil {
		return p, err
	}
	objects, err := s.objects(ctx)
	if err != nil {
		return p, err
	}
	byGuest := map[string][]Listed{}
	for _, one := range all {
		byGuest[path.Dir(one.Name)] = append(byGuest[path.Dir(one.Name)], one)
	}
	gone := map[string]bool{}
	for guest, list := range byGuest {
		host, name := path.Split(guest)
		if match != nil && !match(strings.TrimSuffix(host, "/"), name) {
			continue
		}
		for i, stays := range keep.choose(list) {
			gone[list[i].Name] = !stays
		}
	}
	for _, one := range all {
		if gone[one.Name] {
			p.Backups = append(p.Backups, one)
			continue
		}
		// One that cannot be read names nothing: nothing is removed then.
		b, err := s.Backup(ctx, one.Name)
		if err != nil {
			return Pruned{}, fmt.Errorf("nothing was removed: %w; remove that file if nobody can mend it", err)
		}
		for _, f := range b.files.list {
			delete(objects, f.object)
		}
	}
	p.Objects = len(objects)
	for _, size := range objects {
		p.Bytes += size
	}
	if dry {
		return p, nil
	}
	return p, s.remove(ctx, p.Backups, objects)
}

// remove removes backups, then objects, then what killed ones have left.
func (s *Store) remove(ctx context.Context, backups []Listed, objects map[string]int64) error {
	for _, one := range backups {
		if err := s.lock.held(); err != nil {
			return err
		}
		if err := s.place.Remove(one.Name); err != nil {
			return err
		}
	}
	if err := s.place.Sync(); err != nil {
		return err
	}
	left, err := s.place.List(newDir)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	remove := func(name string) {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := s.lock.held(); err != nil {
				return err
			}
			if err := s.place.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
	}
	for object := range objects {
		remove(path.Join(objectsDir, object[:2], object[2:]))
	}
	for _, info := range left {
		remove(path.Join(newDir, info.Name()))
	}
	return g.Wait()
}

// choose returns for each backup of a guest, from the oldest on, whether it is kept. One whose head
// cannot be read is.
func (k Keep) choose(list []Listed) []bool {
	stays := make([]bool, len(list))
	last := k.Last
	periods := []struct {
		left int
		name func(time.Time) string
		seen string
	}{
		{k.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }, ""},
		{k.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, w) }, ""},
		{k.Monthly, func(t time.Time) string { return t.Format("2006-01") }, ""},
	}
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Err != nil {
			stays[i] = true
			continue
		}
		if last > 0 {
			stays[i] = true
			last--
		}
		for j := range periods {
			p := &periods[j]
			if name := p.name(list[i].Taken.Local()); p.left > 0 && name != p.seen {
				stays[i], p.seen = true, name
				p.left--
			}
		}
	}
	return stays
}
