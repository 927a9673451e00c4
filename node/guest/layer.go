package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/generation"
	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
)

// keptAttr marks a copy of a guest's own files that was not put back. Putting it back
// exchanges two directories; the mark goes with the copy, so that a call which is
// repeated does not exchange them again.
const keptAttr = "trusted.vsfleet.kept"

// keepLayer adds a copy of the guest's own files to a generation. A running guest is
// frozen meanwhile.
func (g *Guest) keepLayer(ctx context.Context, store generation.Store, kept generation.Generation) error {
	layers, frozen, err := g.layers(ctx)
	if err != nil {
		return err
	}
	if layers.Image == "" {
		return errors.New("its files are not above an image: there is no layer to set aside; take a copy of it by other means")
	}
	own, err := os.Open(layers.Upper)
	if err != nil {
		return err
	}
	defer own.Close()
	// Beside the guest's own files: it will be renamed to them.
	dir := filepath.Join(filepath.Dir(layers.Upper), "."+filepath.Base(layers.Upper)+".kept-"+kept.Run)
	return store.AddLayer(g.name, kept, dir, func(dir string) error {
		if err := os.RemoveAll(dir); err != nil { // of a killed call
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := frozen(ctx, func() error { return imagetree.CopyLayer(ctx, own, dir) }); err != nil {
			return errors.Join(fmt.Errorf("set a copy of its files aside: %w", err), os.RemoveAll(dir))
		}
		if err := likeRoot(own, dir); err != nil {
			return err
		}
		return syncFS(dir)
	})
}

// likeRoot gives a copy the attributes of the directory that was copied, and the mark.
func likeRoot(from *os.File, to string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if err := errors.Join(unix.Lchown(to, int(st.Uid), int(st.Gid)), unix.Chmod(to, st.Mode&0o7777)); err != nil {
		return err
	}
	base, err := baseOf(from.Name())
	if err != nil {
		return err
	}
	if base != "" {
		if err := noteBase(to, base); err != nil {
			return err
		}
	}
	tree, err := ownOf(from.Name())
	if err == nil && tree.id != "" {
		err = tree.note(to)
	}
	if err != nil {
		return err
	}
	return unix.Setxattr(to, keptAttr, []byte{1}, 0)
}

// putLayer makes a kept copy the own files of a stopped guest, and reports whether it had
// to. What they were becomes the copy, which is removed with its generation.
func (g *Guest) putLayer(layer string) (changed bool, err error) {
	upper, err := g.host.vdir(g.name)
	if err != nil {
		return false, err
	}
	_, err = unix.Getxattr(layer, keptAttr, nil)
	switch {
	case err == nil:
		if err := unix.Renameat2(unix.AT_FDCWD, layer, unix.AT_FDCWD, upper, unix.RENAME_EXCHANGE); err != nil {
			return false, &os.LinkError{Op: "exchange", Old: layer, New: upper, Err: err}
		}
		changed = true
	case !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOENT):
		return false, &os.PathError{Op: "look at the attributes of", Path: layer, Err: err}
	}
	if err := unix.Removexattr(upper, keptAttr); err != nil && !errors.Is(err, unix.ENODATA) {
		return changed, &os.PathError{Op: "remove an attribute of", Path: upper, Err: err}
	}
	return changed, syncFS(filepath.Dir(upper))
}
