package shadow

import (
	"context"
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// An Index has the entries of an image by path, and for each name of a file with several
// the same entry.
type Index map[string]*tree.Entry

// Add adds the next entry of a manifest.
func (x Index) Add(e *tree.Entry) error {
	name := e.Path()
	if first, ok := e.HardLink(); ok {
		e = x[first]
	}
	x[name] = e
	return nil
}

const (
	opaqueAttr   = "trusted.overlay.opaque"
	redirectAttr = "trusted.overlay.redirect"
	metacopyAttr = "trusted.overlay.metacopy"
)

// A finder looks for files in an upper layer.
type finder struct {
	upper *os.File
	alone map[string]bool // directories in which nothing of an image is seen
	found []api.Shadow
}

// Find returns what a guest has of its own where two images differ: in its upper layer, or
// marked in own, the tree of its own if it has one. Times, and the attributes of
// directories, make no difference; and a file that has the size and the time of the one in
// the image to hides nothing. Databases of packages come first.
func Find(ctx context.Context, upper *os.File, from, to, own Index) ([]api.Shadow, error) {
	f := finder{upper: upper, alone: map[string]bool{".": false}}
	look := func(name string, is *tree.Entry) error {
		if err := f.look(name, is, own[name]); err != nil {
			return &os.PathError{Op: "look for", Path: name, Err: err}
		}
		return ctx.Err()
	}
	for name, is := range to {
		if was := from[name]; was == nil || !is.Same(was) && is.Mode()&was.Mode()&unix.S_IFDIR == 0 {
			if err := look(name, is); err != nil {
				return nil, err
			}
		}
	}
	for name := range from {
		if to[name] == nil {
			if err := look(name, nil); err != nil {
				return nil, err
			}
		}
	}
	order.Func(f.found, func(a, b api.Shadow) int { return strings.Compare(rank(a)+a.Path, rank(b)+b.Path) })
	return f.found, nil
}

// rank sorts databases of packages to the front, and what hides nothing to the end.
func rank(s api.Shadow) string {
	switch {
	case setting.PackageDatabase(s.Path) != "":
		return "0"
	case s.Kind == api.ShadowAttributes:
		return "2"
	}
	return "1"
}

// look finds what is at the path of an image's entry, nil if it is removed.
func (f *finder) look(name string, is, own *tree.Entry) error {
	var st unix.Stat_t
	file, err := openBelow(f.upper, name, unix.O_PATH)
	if err == nil {
		defer file.Close()
		err = unix.Fstat(int(file.Fd()), &st)
	}
	shadow := api.Shadow{Path: "/" + name, Kind: api.ShadowChanged}
	size, sec, nsec := st.Size, st.Mtim.Sec, uint32(st.Mtim.Nsec)
	switch kind := st.Mode & unix.S_IFMT; {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOENT) && f.isAlone(path.Dir(name)):
		shadow.Kind, shadow.Stays = api.ShadowRemoved, true // with its directory
	case errors.Is(err, unix.ENOENT) && own != nil && own.Own():
		shadow.Stays = true
		size, sec, nsec = own.Size(), own.Mtime(), own.Nsec()
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case kind == unix.S_IFCHR: // a whiteout: no guest can make device nodes
		shadow.Kind = api.ShadowRemoved
	case kind == unix.S_IFDIR:
		if is == nil || is.Mode()&unix.S_IFMT == kind {
			return nil
		}
		shadow.Stays = true
	case has(file, metacopyAttr):
		shadow.Kind = api.ShadowAttributes
	default:
		shadow.Stays = f.isAlone(path.Dir(name))
	}
	switch {
	case is == nil && shadow.Kind == api.ShadowRemoved:
		return nil
	case is != nil && shadow.Kind == api.ShadowChanged && is.Mtime() == sec && nsec == 0: // as archives have it
		target, _ := is.Symlink()
		if is.Size()+int64(len(target)) == size {
			return nil // the guest has upgraded to the same
		}
	}
	f.found = append(f.found, shadow)
	return nil
}

// isAlone reports whether nothing of an image is seen in a directory, because the guest
// made it anew or renamed it.
func (f *finder) isAlone(dir string) bool {
	alone, known := f.alone[dir]
	if !known {
		alone = f.isAlone(path.Dir(dir))
		if file, err := openBelow(f.upper, dir, unix.O_PATH); err == nil {
			alone = alone || has(file, opaqueAttr) || has(file, redirectAttr)
			file.Close()
		}
		f.alone[dir] = alone
	}
	return alone
}

// has reports whether an open file has an attribute. Those of overlayfs the guest cannot
// set itself.
func has(f *os.File, attribute string) bool {
	_, err := unix.Getxattr("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), attribute, nil)
	return err == nil
}

// openBelow opens what is below dir through no link.
func openBelow(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
