package unify

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/images/tree"
)

// A Plan is what is removed from an upper layer once the lower one has it.
type Plan struct {
	Files []Removal `json:"files"`
	Dirs  []Dir     `json:"dirs"` // those that files are removed from
	// Shown are directories that hid what was below the layer; of that the new lower
	// layer has nothing.
	Shown []string `json:"shown,omitempty"`
}

// A Removal is a file that is removed, if it is still that one.
type Removal struct {
	Path   string `json:"path"`
	Inode  Inode  `json:"inode"`
	Object string `json:"object"` // its content
}

// A Dir is a directory with its times, in nanoseconds.
type Dir struct {
	Path  string `json:"path"`
	Atime int64  `json:"atime"`
	Mtime int64  `json:"mtime"`
}

// Plan returns what is to do for files of the layer, and the entries that the lower layer
// needs for it.
func (l *Layer) Plan(files []File) (p Plan, own []*tree.Entry, err error) {
	dirs, timed := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		own = append(own, f.Entry)
		p.Files = append(p.Files, Removal{f.Path(), f.Inode, f.Object()})
		at := path.Dir(f.Path())
		if !timed[at] {
			timed[at] = true
			d, err := l.times(at)
			if err != nil {
				return p, nil, err
			}
			p.Dirs = append(p.Dirs, d)
		}
		for ; at != "."; at = path.Dir(at) {
			if dirs[at] {
				break
			}
			dirs[at] = true
			own = append(own, tree.OwnDirectory(at, l.opaque[at]))
			if l.opaque[at] {
				p.Shown = append(p.Shown, at)
			}
		}
	}
	return p, own, nil
}

// Unchanged returns the files of a plan of this layer that are still those that were read.
func (l *Layer) Unchanged(p Plan) (files []File) {
	was := map[string]Removal{}
	for _, f := range p.Files {
		was[f.Path] = f
	}
	for _, f := range l.Files {
		if r := was[f.Path()]; r.Inode == f.Inode {
			f.SetObject(r.Object)
			files = append(files, f)
		}
	}
	return files
}

func (l *Layer) times(name string) (Dir, error) {
	f, err := openBelow(l.dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if err != nil {
		return Dir{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return Dir{}, fmt.Errorf("stat %s: %w", name, err)
	}
	return Dir{name, st.Atim.Nano(), st.Mtim.Nano()}, nil
}

// Finish does it to the layer in dir, and returns when it is on the disk.
func (p *Plan) Finish(dir *os.File) error {
	// Shown first: a file that is removed must be seen below.
	for _, name := range p.Shown {
		if err := within(dir, name, func(fd int) error {
			if err := unix.Fremovexattr(fd, opaqueAttr); err != nil && !errors.Is(err, unix.ENODATA) {
				return err
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for _, f := range p.Files {
		if err := within(dir, path.Dir(f.Path), func(fd int) error {
			name := path.Base(f.Path)
			var st unix.Stat_t
			err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
			if err != nil || inodeOf(&st) != f.Inode {
				return unlessGone(err)
			}
			return unix.Unlinkat(fd, name, 0)
		}); err != nil {
			return fmt.Errorf("remove %s: %w", f.Path, err)
		}
	}
	for _, d := range p.Dirs {
		times := []unix.Timespec{unix.NsecToTimespec(d.Atime), unix.NsecToTimespec(d.Mtime)}
		if err := within(dir, d.Path, func(fd int) error { return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH) }); err != nil {
			return fmt.Errorf("set the times of %s: %w", d.Path, err)
		}
	}
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir.Name(), err)
	}
	return nil
}

// within calls f with a directory below dir.
func within(dir *os.File, name string, f func(fd int) error) error {
	if strings.HasPrefix(name, "/") {
		return fmt.Errorf("%q is not below a layer", name)
	}
	d, err := openBelow(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()))
}
