package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/procctx"
)

const (
	// baseAttr is the attribute of a guest's own directory that names the image that was
	// below it when it was last mounted. A guest can neither read nor set it.
	baseAttr = "trusted.vsfleet.image"
	// metacopyAttr marks files of which the guest changed the owner, mode or times: their
	// data are still in the image (overlayfs.rst, "Metadata only copy up").
	metacopyAttr = "trusted.overlay.metacopy"
)

// rebase makes the guest's own files fit the image that they are about to be mounted
// over, if another one was below them before. Of files of which the guest changed only
// the attributes, those that the new image has too get its data; the others get the old
// image's data as their own, without which nobody could open or remove them. Files that
// hide what the image changes are taken or merged first (moveShadows). The guest does not
// run, and its lock is held. At last it takes what was prepared for it.
func (g *Guest) rebase(ctx context.Context, domain, image string, root *procctx.Root) error {
	if image == "" {
		return nil
	}
	if err := g.rebaseFiles(ctx, domain, image, root); err != nil {
		return err
	}
	return g.takeNext(ctx, domain, image, root)
}

func (g *Guest) rebaseFiles(ctx context.Context, domain, image string, root *procctx.Root) error {
	own, err := g.finishOwn(root.Upper)
	if err != nil {
		return err
	}
	was, err := baseOf(root.Upper)
	if err != nil {
		return err
	}
	var left string
	if was != "" {
		if left, err = g.moveShadows(ctx, was, image, root.Upper); err != nil {
			return fmt.Errorf("its own files that hide what image %s changes: %w", image, err)
		}
	}
	if own.id != "" && own.image != image {
		if err := g.rebaseOwn(ctx, own, domain, image, root); err != nil {
			return fmt.Errorf("put its files on another image than %s: %w", own.image, err)
		}
	}
	if was == image {
		return nil
	}
	if was != "" && own.id == "" {
		if err := g.moveData(ctx, domain, was, *root); err != nil {
			return fmt.Errorf("put its files on another image than %s: %w", was, err)
		}
	}
	err = noteBase(root.Upper, image)
	if was == "" && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) {
		return nil // a guest of an older vsnode starts on a full disk, too
	}
	if err == nil && left != "" {
		err = os.RemoveAll(left)
	}
	return err
}

// noteBase notes the image that is below a guest's own files. Where they lie on a
// filesystem without attributes, overlayfs does not work either.
func noteBase(upper, image string) error {
	if err := unix.Setxattr(upper, baseAttr, []byte(image), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("set %s of %s: %w", baseAttr, upper, err)
	}
	return nil
}

// baseOf returns the image that was last below the files of a guest, "" if there was
// none or an older vsnode mounted it.
func baseOf(upper string) (string, error) {
	value := make([]byte, 128)
	n, err := unix.Getxattr(upper, baseAttr, value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTSUP):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read %s of %s: %w", baseAttr, upper, err)
	}
	return string(value[:n]), nil
}

func (g *Guest) moveData(ctx context.Context, domain, was string, root procctx.Root) error {
	upper, err := os.OpenFile(root.Upper, unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer upper.Close()
	var names []string
	if err := metacopies(upper, "", &names); err != nil || len(names) == 0 {
		return err
	}
	missing, err := takeNewData(ctx, root, upper, names)
	if err != nil || len(missing) == 0 {
		return err
	}
	old := root
	if old.Image, err = g.host.Tree(ctx, domain, was); err != nil {
		return fmt.Errorf("%d files have their data there, as %s: %w", len(missing), missing[0], err)
	}
	return keepOldData(ctx, old, upper, missing)
}

// metacopies adds the names of all files below dir that have only attributes of their own.
func metacopies(dir *os.File, at string, names *[]string) error {
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() && !e.Type().IsRegular() {
			continue
		}
		flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
		fd, err := unix.Openat(int(dir.Fd()), e.Name(), flags, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", path.Join(at, e.Name()), err)
		}
		f := os.NewFile(uintptr(fd), e.Name())
		name := path.Join(at, e.Name())
		if e.IsDir() {
			err = metacopies(f, name, names)
		} else if _, aerr := unix.Fgetxattr(fd, metacopyAttr, nil); aerr == nil {
			*names = append(*names, name)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// takeNewData gives the files the length of their data in the image of root, and returns
// those that it does not have.
func takeNewData(ctx context.Context, root procctx.Root, upper *os.File, names []string) (missing []string, err error) {
	dir, err := root.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	for _, name := range names {
		f, err := openBelow(dir, name, unix.O_RDONLY)
		if err != nil {
			missing = append(missing, name)
			continue
		}
		size, err := f.Seek(0, io.SeekEnd) // of the data; stat would give the length that was noted
		f.Close()
		if err == nil {
			err = keepingTimes(upper, name, func(f *os.File) error { return f.Truncate(size) })
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return missing, nil
}

// keepOldData makes the data of the files the guest's own.
func keepOldData(ctx context.Context, old procctx.Root, upper *os.File, names []string) error {
	dir, err := old.Open(ctx)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range names {
		err := keepingTimes(upper, name, func(*os.File) error {
			f, err := openBelow(dir, name, unix.O_WRONLY) // overlayfs copies the data for it
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			return fmt.Errorf("copy the data of %s: %w", name, err)
		}
	}
	return nil
}

// keepingTimes calls change with a file, which then gets its times back.
func keepingTimes(dir *os.File, name string, change func(*os.File) error) error {
	f, err := openBelow(dir, name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	err = change(f)
	times := []unix.Timespec{st.Atim, st.Mtim}
	return errors.Join(err, unix.UtimesNanoAt(int(f.Fd()), "", times, unix.AT_EMPTY_PATH))
}

// openBelow opens a file below dir, following no link that the guest made.
func openBelow(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Bases returns the images that guests' files were last mounted over, with the guest, where
// that is another one than the configuration names: the next start still needs it.
func (h *Host) Bases() (map[string]string, error) {
	names, err := h.Names()
	if err != nil {
		return nil, err
	}
	images := map[string]string{}
	for _, name := range names {
		c, _ := h.Read(name) // of a damaged configuration, what could be read
		upper, err := filepath.EvalSymlinks(c.Root)
		if err != nil {
			continue // it has no files yet
		}
		was, err := baseOf(upper)
		if err != nil {
			return nil, err
		}
		if was != "" && was != c.Image {
			images[was] = name + " (until its next start)"
		}
	}
	return images, nil
}
