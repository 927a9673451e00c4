package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// A clone copies the root of another guest, or a directory that held one.
type clone struct {
	from string // a guest, or a path
	omit paths
}

func parseClone(spec api.ImageSpec) (source, error) {
	values, err := arguments(spec.Args, "dsx") // -d: nothing
	if err != nil {
		return nil, err
	}
	var c clone
	if c.from, err = once(values, 's'); err != nil {
		return nil, err
	}
	if c.from == "" {
		return nil, errors.New("which guest? want -s GUEST, or -s DIRECTORY")
	}
	c.omit, err = parsePaths(values['x'])
	return c, err
}

func (c clone) fill(ctx context.Context, req Request) error {
	if filepath.IsAbs(c.from) {
		root, err := openSource(c.from)
		if err != nil {
			return err
		}
		defer root.Close()
		if err := copyTree(ctx, req, c.from, tree.Copy{From: root, Omit: c.omit.has}); err != nil {
			return err
		}
		return forgetIdentity(req.Dir)
	}
	if req.Guests == nil {
		return missingf("there are no guests on this host")
	}
	// In the tree itself: whoever removes what a killed build left removes it too.
	snapshot := filepath.Join(req.Dir, ".snapshot")
	if err := os.Mkdir(snapshot, 0o700); err != nil {
		return err
	}
	req.Progress.Report("copying guest "+c.from, 0, 0)
	err := req.Guests.Snapshot(ctx, c.from, snapshot, func(root *os.File) error {
		return copyTree(ctx, req, "guest "+c.from, tree.Copy{From: root, Omit: c.omit.has})
	})
	if err != nil {
		return err
	}
	if err := tree.Remove(snapshot); err != nil {
		return err
	}
	return forgetIdentity(req.Dir)
}
