package fleet

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/remote"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Copied is the result of a copy to one guest.
type Copied = fanout.Result[inventory.Instance, struct{}]

// CopyTo copies a local file or directory to a path in guests. The files belong to
// owner ("user:group" in the guest). If owner is empty, a file keeps the owner of the
// file that it replaces, and new files belong to root. note is called for each file
// that is left out.
func (a *Access) CopyTo(ctx context.Context, local string, guests []inventory.Instance, to, owner string, forks int, note func(string), watch fanout.Watch[inventory.Instance, struct{}]) []Copied {
	names := make([]string, len(guests))
	for i, g := range guests {
		names[i] = g.Host.Name + "/" + g.Guest.Name
	}
	record := a.Record("guest cp", names)
	defer record.End()
	return fanout.Each(ctx, guests, fanout.Limits{Forks: forks, Timeout: a.Timeout}, func(ctx context.Context, g inventory.Instance) (none struct{}, _ error) {
		return none, a.on(ctx, g.Host, func(host *remote.Host) error {
			return piped(ctx,
				func(ctx context.Context, w io.Writer) error { return pack(ctx, local, w, note) },
				func(ctx context.Context, r io.Reader) error {
					return host.PutFiles(ctx, api.PutFiles{Guest: g.Guest.Name, Path: to, Owner: owner}, r)
				})
		})
	}, recorded(record, watch, copiedHost))
}

// CopyFrom copies a file or directory of a guest to a local path, or into it if it is a
// directory. Nothing that the guest sends is written elsewhere. note is called for each
// file that is left out.
func (a *Access) CopyFrom(ctx context.Context, g inventory.Instance, from, local string, note func(string)) error {
	within, cancel := fanout.WithTimeout(ctx, a.Timeout)
	defer cancel()
	return fanout.TimeoutOr(within, a.on(within, g.Host, func(host *remote.Host) error {
		return piped(within,
			func(ctx context.Context, w io.Writer) error {
				return host.GetFiles(ctx, api.GetFiles{Guest: g.Guest.Name, Path: from}, w, notes(note))
			},
			func(ctx context.Context, r io.Reader) error { return unpack(ctx, r, local, note) })
	}))
}

func (a *Access) on(ctx context.Context, h *inventory.Host, do func(*remote.Host) error) error {
	conn, err := a.Dial(ctx, h)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(remote.New(conn))
}

// piped connects a writer with a reader. It returns the error of the one that failed
// first, which causes that of the other.
func piped(ctx context.Context, write func(context.Context, io.Writer) error, read func(context.Context, io.Reader) error) error {
	g, ctx := errgroup.WithContext(ctx)
	r, w := io.Pipe()
	g.Go(func() error {
		err := write(ctx, w)
		w.CloseWithError(err) // nil: the end
		return err
	})
	g.Go(func() error {
		err := read(ctx, r)
		r.CloseWithError(err)
		return err
	})
	return g.Wait()
}

// notes is a writer that calls a function for each line.
type notes func(string)

func (n notes) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		n(strings.TrimSuffix(line, "\n"))
	}
	return len(b), nil
}

// pack writes a local file or directory as a tar stream.
func pack(ctx context.Context, local string, w io.Writer, note func(string)) error {
	local, err := filepath.Abs(local)
	if err == nil {
		local, err = filepath.EvalSymlinks(local)
	}
	if err != nil {
		return &localError{err}
	}
	out := tar.NewWriter(w)
	top := filepath.Base(local)
	if top == "/" {
		top = "root"
	}
	err = filepath.WalkDir(local, func(at string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return &localError{err}
		}
		rel, err := filepath.Rel(local, at)
		if err != nil {
			return &localError{err}
		}
		return packOne(out, at, path.Join(top, filepath.ToSlash(rel)), d, note)
	})
	if err != nil {
		return err
	}
	return out.Close()
}

func packOne(out *tar.Writer, at, name string, d fs.DirEntry, note func(string)) error {
	info, err := d.Info()
	if err != nil {
		return &localError{err}
	}
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Microsecond), Format: tar.FormatPAX}
	switch {
	case info.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return out.WriteHeader(h)
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(at); err != nil {
			return &localError{err}
		}
		return out.WriteHeader(h)
	case !info.Mode().IsRegular():
		note(at + ": neither a file nor a directory nor a link, left out")
		return nil
	}
	f, err := os.Open(at)
	if err != nil {
		return &localError{err}
	}
	defer f.Close()
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = &localError{fmt.Errorf("%s became shorter while it was read", at)}
	}
	return err
}

// unpack writes a tar stream of a guest to a local path. The guest may send anything.
func unpack(ctx context.Context, r io.Reader, local string, note func(string)) error {
	in := tar.NewReader(r)
	var u unpacker
	for first := true; ; first = false {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := in.Next()
		if err == io.EOF && !first {
			_, err = io.Copy(io.Discard, r) // what follows the end, so that the sender ends
			return err
		}
		if err != nil {
			return fmt.Errorf("read the guest's files: %w", err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		top, rest, _ := strings.Cut(name, "/")
		if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." || !first && (top != u.top || rest == "") {
			return fmt.Errorf("the guest sent the name %q", h.Name)
		}
		if first {
			u.top, u.note = top, note
			if err := u.open(local, h.Typeflag == tar.TypeDir, fs.FileMode(h.Mode&0o777)); err != nil {
				return &localError{err}
			}
			defer u.root.Close()
			if h.Typeflag == tar.TypeDir {
				continue
			}
			rest = u.name
		}
		if err := u.put(rest, h, in); err != nil {
			return &localError{err}
		}
	}
}

// unpacker writes below one local directory: the copied directory, or the parent of the
// copied file. os.Root confines it there, whatever links the guest sends.
type unpacker struct {
	root *os.Root
	name string // of a file that is copied
	top  string // the first name in the stream
	note func(string)
}

// open makes the directory that is copied, if it is one, and opens the root.
func (u *unpacker) open(local string, isDir bool, mode fs.FileMode) (err error) {
	switch info, err := os.Stat(local); {
	case err == nil && info.IsDir():
		local = filepath.Join(local, u.top)
	case err == nil && isDir:
		return fmt.Errorf("%s is a file, so a directory cannot be copied there", local)
	case errors.Is(err, fs.ErrNotExist) && !isDir && strings.HasSuffix(local, "/"):
		return fmt.Errorf("%s is not a directory: make it first", local)
	}
	if !isDir {
		u.name = filepath.Base(local)
		u.root, err = os.OpenRoot(filepath.Dir(local))
		return err
	}
	if err := os.Mkdir(local, mode|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	u.root, err = os.OpenRoot(local)
	return err
}

func (u *unpacker) put(name string, h *tar.Header, content io.Reader) error {
	mode := fs.FileMode(h.Mode & 0o777)
	switch h.Typeflag {
	case tar.TypeDir:
		err := u.root.Mkdir(name, mode|0o700) // or its files could not be written
		if errors.Is(err, fs.ErrExist) {
			if info, statErr := u.root.Lstat(name); statErr == nil && info.IsDir() {
				return nil
			}
		}
		return err
	case tar.TypeSymlink:
		if !filepath.IsLocal(path.Join(path.Dir(name), h.Linkname)) || path.IsAbs(h.Linkname) {
			u.note(name + ": a link to " + h.Linkname + ", which is outside, left out")
			return nil
		}
		if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		return u.file(name, mode, h.ModTime, content)
	}
	u.note(fmt.Sprintf("%s: an entry of kind %q, left out", name, h.Typeflag))
	return nil
}

// file writes a file beside its place, and renames it.
func (u *unpacker) file(name string, mode fs.FileMode, when time.Time, content io.Reader) (err error) {
	beside := path.Join(path.Dir(name), "."+path.Base(name)+".vsfleet~")
	if err := u.root.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := u.root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = u.root.Remove(beside)
		}
	}()
	_, err = io.Copy(f, content)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = u.root.Chtimes(beside, when, when)
	}
	if err != nil {
		return err
	}
	return u.root.Rename(beside, name)
}

// CopiedHosts returns the results of copies as hosts of a report.
func CopiedHosts(results []Copied) []report.Host {
	list := make([]report.Host, len(results))
	for i, r := range results {
		list[i] = copiedHost(r)
	}
	return list
}

func copiedHost(r Copied) report.Host {
	o := r.Outcome
	if o == outcome.OK {
		o = outcome.Changed
	}
	return report.HostOf(r.Host.Host.Name+"/"+r.Host.Guest.Name, r.Host.Host.Address, o, r.Err)
}
