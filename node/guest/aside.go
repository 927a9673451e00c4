package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// asideMark is between the name of a guest that was set aside and the time, as
// util-vserver has it. No guest can have such a name.
const asideMark = ".~"

// Replace sets a stopped guest aside and creates one of its name. The old one's
// configuration and files are renamed and otherwise left as they are: renamed
// back they are the guest again. It gives where the old configuration is now.
func (h *Host) Replace(ctx context.Context, g api.Guest) (aside string, err error) {
	suffix := fmt.Sprintf("%s%d~", asideMark, time.Now().Unix())
	var done []string // what was renamed
	undo := func() (err error) {
		for _, path := range done {
			err = errors.Join(err, os.Rename(path+suffix, path))
		}
		return err
	}
	err = h.locked(ctx, g.Name, "replace", func() error {
		on, err := h.running(g.Name)
		if err != nil {
			return err
		}
		if on {
			return errors.New("the old one runs: stop it first")
		}
		if err := h.release(ctx, g.Name); err != nil {
			return err
		}
		// The configuration last: until then the same command can be given again.
		for _, path := range []string{h.data(g.Name), h.config(g.Name)} {
			if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
				continue // its files lie elsewhere
			}
			if err := os.Rename(path, path+suffix); err != nil {
				return errors.Join(err, undo())
			}
			done = append(done, path)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if err := h.Create(ctx, g); err != nil { // what it made is gone again
		return "", errors.Join(err, h.locked(context.WithoutCancel(ctx), g.Name, "bring back", undo))
	}
	return h.config(g.Name) + suffix, nil
}

// Aside names the guests that were set aside, and the images that they need.
func (h *Host) Aside() (images map[string]string, err error) {
	dirs, err := filepath.Glob(filepath.Join(h.ConfigDir, "*"+asideMark+"*~"))
	if err != nil {
		return nil, err
	}
	images = map[string]string{}
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "image"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		images[filepath.Base(dir)] = strings.TrimSpace(string(b))
	}
	return images, nil
}
