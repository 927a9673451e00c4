package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/procctx"
	"github.com/vsfleet/vsfleet/node/unify"
)

// ownAttr is the attribute of a guest's own directory that names the tree that is below it
// in place of its image: the image with files that the guest had itself, derived for it by
// Unify; then the image, and whether the files are still to be removed.
const ownAttr = "trusted.vsfleet.own"

const ownPending = "pending"

// ownPlan is the file beside a guest's own files that tells which those are.
func ownPlan(upper string) string { return filepath.Join(filepath.Dir(upper), ".hashify") }

// A removal is what is in that file: the tree that has the files in their place, too.
type removal struct {
	Own  string     `json:"own"`
	Plan unify.Plan `json:"plan"`
}

type own struct {
	id, image string
	pending   bool
}

// ownOf returns the tree of a guest's own; its id is empty if there is none.
func ownOf(upper string) (o own, err error) {
	value := make([]byte, 512)
	n, err := unix.Getxattr(upper, ownAttr, value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOTDIR):
		return own{}, nil
	case err != nil:
		return own{}, fmt.Errorf("read %s of %s: %w", ownAttr, upper, err)
	}
	words := strings.Fields(string(value[:n]))
	if len(words) < 2 || len(words) > 3 || len(words) == 3 && words[2] != ownPending {
		return own{}, fmt.Errorf("%s of %s is %q, which this vsnode does not know", ownAttr, upper, value[:n])
	}
	return own{words[0], words[1], len(words) == 3}, nil
}

// note has the guest mounted over it from now on.
func (o own) note(upper string) error {
	value := o.id + " " + o.image
	if o.pending {
		value += " " + ownPending
	}
	if err := unix.Setxattr(upper, ownAttr, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s of %s: %w", ownAttr, upper, err)
	}
	return linux.SyncDir(upper)
}

// lower returns what is below a guest's own files: its image, or the tree of its own.
func (h *Host) lower(upper, image string) (string, error) {
	path, err := h.Tree(image)
	if err != nil {
		return "", err
	}
	o, err := ownOf(upper)
	if err != nil || o.id == "" {
		return path, err
	}
	if path, err = h.Tree(o.id); err != nil {
		return "", fmt.Errorf("its files that are shared with others: %w", err)
	}
	return path, nil
}

// finishOwn removes the files that a Unify that was killed has left. The guest has not been
// mounted since.
func (g *Guest) finishOwn(upper string) (own, error) {
	o, err := ownOf(upper)
	if err != nil || !o.pending {
		return o, err
	}
	b, err := os.ReadFile(ownPlan(upper))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	if err == nil {
		var p removal
		if err := json.Unmarshal(b, &p); err != nil {
			return o, fmt.Errorf("read %s: %w", ownPlan(upper), err)
		}
		if p.Own != o.id { // files that were put back meanwhile: nothing is removed
			p = removal{}
		}
		dir, err := os.OpenFile(upper, unix.O_DIRECTORY, 0)
		if err != nil {
			return o, err
		}
		defer dir.Close()
		if err := p.Plan.Finish(dir); err != nil {
			return o, fmt.Errorf("give up its files that are shared with others: %w", err)
		}
	}
	o.pending = false
	if err := o.note(upper); err != nil {
		return o, err
	}
	return o, remove(ownPlan(upper))
}

// rebaseOwn derives the tree of the guest's own from another image.
func (g *Guest) rebaseOwn(ctx context.Context, o own, image string, root *procctx.Root) error {
	id, release, err := g.host.Rederive(ctx, o.id, image)
	if err != nil {
		return err
	}
	defer release()
	to := *root
	if to.Image, err = g.host.Tree(id); err != nil {
		return err
	}
	if err := g.moveData(ctx, o.id, to); err != nil {
		return err
	}
	if err := (own{id: id, image: image}).note(root.Upper); err != nil {
		return err
	}
	*root = to
	return nil
}

// A Derivation is a tree for a guest alone, and what the guest need not have itself then.
type Derivation struct {
	ID      string
	Plan    unify.Plan
	Release func() // until then the tree is not removed
}

// Unify puts a stopped guest on a tree of its own that derive makes of the one that is
// below it now. The guest sees the same files as before. Its Derivation without an ID
// leaves the guest as it is.
func (h *Host) Unify(ctx context.Context, name string, derive func(upper *os.File, from string) (Derivation, error)) error {
	return h.Hold(ctx, name, "hashify", func(g *Guest) error {
		if on, err := g.running(); err != nil {
			return err
		} else if on {
			return errors.New("it runs: stop it first")
		}
		c, err := g.Config()
		if err != nil {
			return err
		}
		if c.Image == "" || c.Root != h.rootDir(name) {
			return errors.New("it has no image, or its files are elsewhere (vdir)")
		}
		spec, err := h.spec(c)
		if err != nil {
			return err
		}
		if err := g.rebase(ctx, c.Image, &spec.Root); err != nil {
			return err
		}
		upper := spec.Root.Upper
		o, err := ownOf(upper)
		if err != nil {
			return err
		}
		from := o.id
		if from == "" {
			from = c.Image
		}
		dir, err := os.OpenFile(upper, unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer dir.Close()
		d, err := derive(dir, from)
		if err != nil || d.ID == "" {
			return err
		}
		defer d.Release()
		b, err := json.Marshal(removal{d.ID, d.Plan})
		if err == nil {
			err = linux.ReplaceFileSync(ownPlan(upper), 0o600, func(f *os.File) error { _, err := f.Write(b); return err })
		}
		if err == nil {
			err = own{d.ID, c.Image, true}.note(upper)
		}
		if err == nil {
			_, err = g.finishOwn(upper)
		}
		return err
	})
}

// Owns returns the trees that Unify has put guests on, each with one that has it, also of
// those that were set aside.
func (h *Host) Owns() (map[string]string, error) {
	dirs, err := filepath.Glob(filepath.Join(h.DataDir, "*", "*"))
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, dir := range dirs {
		o, err := ownOf(dir)
		if err != nil {
			return nil, err
		}
		if o.id != "" {
			found[o.id] = filepath.Base(filepath.Dir(dir))
		}
	}
	return found, nil
}
