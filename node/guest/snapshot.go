package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Snapshot calls use with the root filesystem of a guest, running or not, as it was at one
// moment: its image and a copy of its own files, which is made in dir, an empty directory.
// A running guest is frozen while they are copied. What is mounted in the guest is not part
// of it. The guest is held until use returns.
func (h *Host) Snapshot(ctx context.Context, name, dir string, use func(root *os.File) error) error {
	return h.Hold(ctx, name, "copy", func(g *Guest) error {
		layers, frozen, err := g.layers(ctx)
		if err != nil {
			return err
		}
		copied := procctx.Root{Image: layers.Image, Upper: filepath.Join(dir, "root"), Work: filepath.Join(dir, "work")}
		for _, d := range []string{copied.Upper, copied.Work} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return err
			}
		}
		own, err := os.Open(layers.Upper)
		if err != nil {
			return err
		}
		defer own.Close()
		if err := frozen(ctx, func() error { return imagetree.CopyLayer(ctx, own, copied.Upper) }); err != nil {
			return fmt.Errorf("its own files: %w", err)
		}
		root, err := copied.Open(ctx)
		if err != nil {
			return err
		}
		defer root.Close()
		return use(root)
	})
}

// layers returns the layers of the guest's root, and a function that calls another one while
// nothing in the guest runs.
func (g *Guest) layers(ctx context.Context) (r procctx.Root, frozen func(context.Context, func() error) error, err error) {
	if err := g.host.exists(g.name); err != nil {
		return r, nil, err
	}
	on, err := g.running()
	if err != nil {
		return r, nil, err
	}
	if !on {
		c, err := g.Config()
		if err != nil {
			return r, nil, err
		}
		spec, err := g.host.spec(ctx, c)
		if err == nil {
			err = g.rebase(ctx, c.TrustDomain, c.Image, &spec.Root)
		}
		return spec.Root, func(_ context.Context, f func() error) error { return f() }, err
	}
	// What it runs on: the configuration may have been edited since.
	n, err := g.notes()
	if err != nil {
		return r, nil, err
	}
	r.Upper = n.Root
	if n.Runs != nil && n.Runs.Image != "" {
		if r.Image, err = g.host.lower(ctx, n.Root, n.Runs.TrustDomain, n.Runs.Image); err != nil {
			return r, nil, err
		}
	}
	return r, g.cgroup.WhileFrozen, nil
}
