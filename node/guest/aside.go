package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// asideMark separates the name of a guest that was set aside from the time, as in
// util-vserver. No guest's name can contain it.
const asideMark = ".~"

// Replace sets a stopped guest aside and creates a new one of the same name. The old
// guest's configuration and files are renamed but otherwise unchanged; renaming them
// back restores the guest. Replace returns the new path of the old configuration.
func (h *Host) Replace(ctx context.Context, to api.Guest) (aside string, err error) {
	err = h.Hold(ctx, to.Name, "replace", func(g *Guest) (err error) {
		aside, err = g.replace(ctx, to)
		return err
	})
	return aside, err
}

func (g *Guest) replace(ctx context.Context, to api.Guest) (aside string, err error) {
	suffix, err := g.setAside(ctx)
	if err != nil {
		return "", err
	}
	if err := g.Create(ctx, to); err != nil {
		// Free again: what Create made has been removed.
		return "", errors.Join(err, g.rename(suffix, ""))
	}
	return g.host.config(g.name) + suffix, nil
}

// SetAside sets a stopped guest aside, and leaves nothing of that name.
func (h *Host) SetAside(ctx context.Context, name string) error {
	return h.Hold(ctx, name, "set aside", func(g *Guest) error {
		if err := h.exists(name); err != nil {
			return err
		}
		if _, err := g.setAside(ctx); err != nil {
			return err
		}
		h.index.invalidate()
		return g.forgetUnit(ctx)
	})
}

// setAside renames what a stopped guest has, and returns what its names end with then.
func (g *Guest) setAside(ctx context.Context) (suffix string, err error) {
	on, err := g.running()
	if err != nil {
		return "", err
	}
	if on {
		return "", errors.New("the old one runs: stop it first")
	}
	if err := g.release(ctx); err != nil {
		return "", err
	}
	if err := g.host.generations().RemoveAll(g.name); err != nil { // the new guest would get the old one's
		return "", err
	}
	suffix = fmt.Sprintf("%s%d~", asideMark, time.Now().Unix())
	if err := g.rename("", suffix); err != nil {
		return "", errors.Join(err, g.rename(suffix, ""))
	}
	return suffix, nil
}

// rename renames what a guest has. The configuration is renamed last: until then the same
// command can be repeated.
func (g *Guest) rename(from, to string) error {
	for _, path := range []string{g.host.data(g.name), g.host.config(g.name)} {
		if _, err := os.Lstat(path + from); errors.Is(err, os.ErrNotExist) {
			continue // its files are elsewhere
		}
		if err := os.Rename(path+from, path+to); err != nil {
			return err
		}
	}
	return nil
}

// Aside returns the guests that were set aside and the images they need.
func (h *Host) Aside() (images map[string]string, err error) {
	dirs, err := filepath.Glob(filepath.Join(h.ConfigDir, "*"+asideMark+"*~"))
	if err != nil {
		return nil, err
	}
	images = map[string]string{}
	for _, dir := range dirs {
		b, err := linux.ReadFile(filepath.Join(dir, "image"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		images[filepath.Base(dir)] = strings.TrimSpace(string(b))
	}
	return images, nil
}
