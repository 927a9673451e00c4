package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
)

// Delete stops a guest and removes it completely. The data is removed first: as long as
// the configuration exists the same command can be repeated.
func (h *Host) Delete(ctx context.Context, name string) error {
	return h.Hold(ctx, name, "delete", func(g *Guest) error { return g.Delete(ctx) })
}

// Delete is like Host.Delete; the guest's lock is already held.
func (g *Guest) Delete(ctx context.Context) error {
	h := g.host
	if err := h.exists(g.name); err != nil {
		return err
	}
	root := g.knownConfig().Root
	users, err := h.sharers(g.name, h.data(g.name), root)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("its files are those of guest %s as well: nothing was deleted; to keep them, vserver %s stop and rm -r %s", strings.Join(users, ", "), g.name, h.config(g.name))
	}
	// Otherwise the guest would be stopped but would still exist.
	if err := errors.Join(writable(h.DataDir), writable(h.ConfigDir)); err != nil {
		return err
	}
	if err := g.end(ctx); err != nil {
		return err
	}
	// Of util-vserver's layout the data directory itself is the guest's root.
	if root != "" && root != h.rootDir(g.name) && !within(resolved(root), filepath.Join(resolved(h.DataDir), g.name)) {
		return fmt.Errorf("its files are at %s, outside %s: delete them and %s by hand", root, h.data(g.name), h.config(g.name))
	}
	// By descriptors: links the guest left are not followed, and no depth is too deep.
	if err := imagetree.Remove(h.data(g.name)); err != nil {
		return err
	}
	if err := os.RemoveAll(h.config(g.name)); err != nil {
		return err
	}
	h.index.invalidate()
	return errors.Join(g.forgetUnit(ctx), h.generations().RemoveAll(g.name), remove(h.consoleLog(g.name)), remove(h.consoleLog(g.name)+".1"), remove(h.endFile(g.name)))
}
