package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images"
	"github.com/vsfleet/vsfleet/node/unify"
)

// hashify is one call of Hashify.
type hashify struct {
	*Host
	store   *images.Store // of the guests' trust domain
	dry     bool
	begun   int64                  // nanoseconds
	objects map[string]int64       // sizes of what the store has, by name
	sizes   map[int64]int          // how many objects and files have that size
	hashes  map[unify.Inode]string // of what was read
	copies  map[string]int         // how many files of guests have that content
	taken   map[string]bool        // objects that a dry run would have made
}

// Hashify finds files that guests have in their upper layers with a content that the store
// has, or several of them. They become one object again, of running guests at their next start.
func (h *Host) Hashify(ctx context.Context, req api.Hashify) (answer api.Hashified, err error) {
	all, err := h.Guests.Names()
	if err != nil {
		return answer, err
	}
	if len(req.Guests) == 0 {
		req.Guests = all
	}
	for _, name := range req.Guests {
		if _, err := h.Guests.Running(name); err != nil {
			return answer, err
		}
	}
	if !req.Dry {
		if by, held := h.leased(); held {
			h.log.begin(by)
		}
	}
	domains := map[string]string{} // by the names of guests
	for _, name := range all {
		c, _ := h.Guests.Read(name) // the guest's own turn says what is wrong with it
		domains[name] = c.TrustDomain
	}
	in, begun := map[string]*hashify{}, time.Now().UnixNano()
	for _, name := range req.Guests {
		domain := domains[name]
		u := in[domain]
		if u == nil {
			u = &hashify{
				Host: h, store: h.Images.In(domain), dry: req.Dry, begun: begun, sizes: map[int64]int{}, hashes: map[unify.Inode]string{}, copies: map[string]int{}, taken: map[string]bool{},
			}
			in[domain] = u
			if err := u.read(ctx, all, func(name string) bool { return domains[name] == domain }); err != nil {
				return answer, err
			}
		}
		g := api.HashifiedGuest{Name: name}
		if err := u.guest(ctx, &g); err != nil {
			if ctx.Err() != nil {
				return answer, err
			}
			g.Problem = err.Error()
		}
		answer.Guests = append(answer.Guests, g)
	}
	return answer, nil
}

// read finds which contents are there more than once, in the store and among guests.
func (u *hashify) read(ctx context.Context, names []string, among func(name string) bool) (err error) {
	if !u.dry {
		if err := u.store.Prepare(ctx); err != nil {
			return err
		}
	}
	if u.objects, err = u.store.Objects(ctx); err != nil {
		return err
	}
	for _, size := range u.objects {
		u.sizes[size] += 2 // a file of that size is worth reading
	}
	layers := map[string]*unify.Layer{}
	for _, name := range names {
		if !among(name) {
			continue
		}
		l, upper, err := u.scan(ctx, name)
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			continue // the guest's own turn says so
		}
		defer upper.Close()
		layers[name] = l
		for _, f := range l.Files {
			u.sizes[f.Size()]++
		}
	}
	for _, name := range names {
		l := layers[name]
		if l == nil {
			continue
		}
		for _, f := range l.Files {
			object, err := u.hash(ctx, l, f)
			if ctx.Err() != nil {
				return err
			}
			if err == nil && object != "" {
				u.copies[object]++
			}
		}
	}
	return nil
}

// scan reads the upper layer of a guest, which the caller closes.
func (u *hashify) scan(ctx context.Context, name string) (*unify.Layer, *os.File, error) {
	root, err := u.Guests.Root(name)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.OpenFile(root, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, nil, err
	}
	l, err := u.layer(ctx, name, dir)
	if err != nil {
		dir.Close()
	}
	return l, dir, err
}

func (u *hashify) layer(ctx context.Context, name string, dir *os.File) (*unify.Layer, error) {
	list := unify.Builtin
	for _, config := range []string{u.Guests.Dir(name), u.Guests.Dir(".defaults")} {
		path := filepath.Join(config, "apps", "vunify", "exclude")
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err = unify.ReadExcludes(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		break
	}
	return unify.Scan(ctx, dir, list)
}

// hash returns the object that a file's content is or would be, "" if no other has its size.
func (u *hashify) hash(ctx context.Context, l *unify.Layer, f unify.File) (string, error) {
	if u.sizes[f.Size()] < 2 {
		return "", nil
	}
	if object := u.hashes[f.Inode]; object != "" {
		return object, nil
	}
	file, err := l.Open(f)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum, buf := sha256.New(), make([]byte, 1<<18)
	for n := 0; err == nil; n, err = file.Read(buf) {
		sum.Write(buf[:n])
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
	if err != io.EOF {
		return "", err
	}
	object := hex.EncodeToString(sum.Sum(nil))
	u.hashes[f.Inode] = object
	return object, nil
}

// guest does what there is to do for one guest, or finds what that would be.
func (u *hashify) guest(ctx context.Context, g *api.HashifiedGuest) error {
	if u.dry {
		l, dir, err := u.scan(ctx, g.Name)
		if err != nil {
			return err
		}
		defer dir.Close()
		_, err = u.choose(ctx, l, false, g)
		return err
	}
	var chosen []unify.File
	later, err := u.Guests.Unify(ctx, g.Name, func(upper *os.File, from string, running bool) (l *unify.Layer, files []unify.File, err error) {
		if l, err = u.layer(ctx, g.Name, upper); err == nil {
			files, err = u.choose(ctx, l, running, g)
		}
		if err != nil || len(files) == 0 {
			return l, nil, err
		}
		if cost, err := u.store.Description(from); err != nil || cost > g.Bytes {
			g.Files, g.Bytes, g.Added = 0, 0, 0
			return l, nil, err // a description of its own would take more
		}
		chosen = files
		return l, files, nil
	})
	g.Later = later && len(chosen) > 0 && err == nil
	if err == nil {
		for _, f := range chosen {
			u.objects[f.Object()] = f.Size()
		}
	}
	return err
}

// settled is how long ago a file of a running guest has changed last, at least: so that its
// next change, after it was read, has another time (see package unify). Tests shorten it.
var settled = 2 * time.Second

// choose returns the files whose content others have too, and counts them.
func (u *hashify) choose(ctx context.Context, l *unify.Layer, running bool, g *api.HashifiedGuest) ([]unify.File, error) {
	var chosen []unify.File
	fresh := map[string]bool{}
	for _, f := range l.Files {
		if running && f.Inode.Ctime > u.begun-int64(settled) {
			continue
		}
		object, err := u.hash(ctx, l, f)
		if err != nil {
			return nil, err
		}
		_, there := u.objects[object]
		if object == "" || !there && u.copies[object] < 2 {
			continue
		}
		f.SetObject(object)
		chosen = append(chosen, f)
		g.Files++
		g.Bytes += f.Bytes
		if !there && !u.taken[object] && !fresh[object] {
			fresh[object] = true
			g.Added += f.Bytes
		}
	}
	if u.dry {
		for object := range fresh {
			u.taken[object] = true
		}
	}
	order.Func(chosen, func(a, b unify.File) int { return slices.Compare([]byte(a.Path()), []byte(b.Path())) })
	return chosen, nil
}
