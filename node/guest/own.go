package guest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/procctx"
	"github.com/vsfleet/vsfleet/node/unify"
)

// ownAttr is the attribute of a guest's own directory that names the tree that is below it
// in place of its image: the image with files that the guest had itself, derived for it by
// Unify; then the image, and whether the files are still to be removed.
const ownAttr = "trusted.vsfleet.own"

const ownPending = "pending"

// nextAttr names the tree of a guest's own that is prepared for its next start.
const nextAttr = "trusted.vsfleet.next"

// ownPlan is the file beside a guest's own files that tells which those are.
func ownPlan(upper string) string { return filepath.Join(filepath.Dir(upper), ".hashify") }

// nextPlan is the file that tells what can be removed at the next start.
func nextPlan(upper string) string { return ownPlan(upper) + "-next" }

// A removal is the content of these files: the tree that has the files in their place, too.
type removal struct {
	Own  string     `json:"own"`
	Plan unify.Plan `json:"plan"`
}

func (r removal) write(path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return linux.ReplaceFileSync(path, 0o600, func(f *os.File) error { _, err := f.Write(b); return err })
}

// readRemoval reads what write has written; nothing is removed if that was not for own.
func readRemoval(path, own string) (r removal, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read %s: %w", path, err)
	}
	if r.Own != own {
		r = removal{}
	}
	return r, nil
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
func (h *Host) lower(ctx context.Context, upper, domain, image string) (string, error) {
	path, err := h.Tree(ctx, domain, image)
	if err != nil {
		return "", err
	}
	o, err := ownOf(upper)
	if err != nil || o.id == "" {
		return path, err
	}
	if path, err = h.Tree(ctx, domain, o.id); err != nil {
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
	p, err := readRemoval(ownPlan(upper), o.id) // files may have been put back meanwhile
	if err != nil {
		return o, err
	}
	dir, err := os.OpenFile(upper, unix.O_DIRECTORY, 0)
	if err != nil {
		return o, err
	}
	defer dir.Close()
	if err := p.Plan.Finish(dir); err != nil {
		return o, fmt.Errorf("give up its files that are shared with others: %w", err)
	}
	o.pending = false
	if err := o.note(upper); err != nil {
		return o, err
	}
	return o, remove(ownPlan(upper))
}

// rebaseOwn derives the tree of the guest's own from another image.
func (g *Guest) rebaseOwn(ctx context.Context, o own, domain, image string, root *procctx.Root) error {
	id, release, err := g.host.Rederive(ctx, domain, o.id, image)
	if err != nil {
		return err
	}
	defer release()
	to := *root
	if to.Image, err = g.host.Tree(ctx, domain, id); err != nil {
		return err
	}
	if err := g.moveData(ctx, domain, o.id, to); err != nil {
		return err
	}
	if err := (own{id: id, image: image}).note(root.Upper); err != nil {
		return err
	}
	*root = to
	return nil
}

// A derivation is a tree for a guest alone, and what the guest need not have itself then.
type derivation struct {
	id      string
	plan    unify.Plan
	release func() // until then the tree is not removed
}

// derive makes a tree with files of a layer of the one that is below it now.
func (g *Guest) derive(ctx context.Context, domain, image, upper string, l *unify.Layer, files []unify.File) (d derivation, err error) {
	o, err := ownOf(upper)
	if err != nil || len(files) == 0 {
		return d, err
	}
	var own []*imagetree.Entry
	if d.plan, own, err = l.Plan(files); err != nil {
		return d, err
	}
	byPath := map[string]unify.File{}
	for _, f := range files {
		byPath[f.Path()] = f
	}
	from := cmp.Or(o.id, image)
	if _, err := g.host.Tree(ctx, domain, from); err != nil { // it may run in another trust domain
		return d, err
	}
	d.id, d.release, err = g.host.Derive(ctx, domain, from, own, func(e *imagetree.Entry) (*os.File, error) { return l.Open(byPath[e.Path()]) })
	return d, err
}

// Unify puts a guest on a tree of its own that has files in place of the guest, or prepares
// that for the next start if it runs. The guest sees the same files as before. choose finds
// them in its upper layer; from is what is below that now. Without files it is left as it is.
func (h *Host) Unify(ctx context.Context, name string, choose func(upper *os.File, from string, running bool) (*unify.Layer, []unify.File, error)) (later bool, err error) {
	err = h.Hold(ctx, name, "hashify", func(g *Guest) (err error) {
		if later, err = g.running(); err != nil { // it may end meanwhile
			return err
		}
		layers, _, err := g.layers(ctx)
		if err != nil {
			return err
		}
		upper := layers.Upper
		image, err := baseOf(upper)
		if err != nil {
			return err
		}
		if image == "" || upper != h.rootDir(name) {
			return errors.New("it has no image, or its files are elsewhere (vdir)")
		}
		dir, err := os.OpenFile(upper, unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer dir.Close()
		o, err := ownOf(upper)
		if err != nil {
			return err
		}
		l, files, err := choose(dir, cmp.Or(o.id, image), later)
		if err != nil {
			return err
		}
		c, err := g.Config()
		if err != nil {
			return err
		}
		d, err := g.derive(ctx, c.TrustDomain, image, upper, l, files)
		if err != nil || d.id == "" {
			return err
		}
		defer d.release()
		if later {
			return prepareNext(upper, d)
		}
		return g.switchTo(upper, image, d)
	})
	return later, err
}

// switchTo has the guest mounted over another tree from now on.
func (g *Guest) switchTo(upper, image string, d derivation) error {
	err := removal{d.id, d.plan}.write(ownPlan(upper))
	if err == nil {
		err = own{d.id, image, true}.note(upper)
	}
	if err == nil {
		_, err = g.finishOwn(upper)
	}
	return err
}

// prepareNext notes what takeNext takes. The attribute keeps the tree, and its objects.
func prepareNext(upper string, d derivation) error {
	if err := (removal{d.id, d.plan}).write(nextPlan(upper)); err != nil {
		return err
	}
	if err := unix.Setxattr(upper, nextAttr, []byte(d.id), 0); err != nil {
		return fmt.Errorf("set %s of %s: %w", nextAttr, upper, err)
	}
	return linux.SyncDir(upper)
}

// nextOf returns the tree that is prepared for the next start, "" if there is none.
func nextOf(upper string) string {
	value := make([]byte, 128)
	n, err := unix.Getxattr(upper, nextAttr, value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}

// nextPatience is how long a start may take longer for what was prepared for it.
const nextPatience = 10 * time.Second

// takeNext gives up what Unify has prepared while the guest ran, as far as the guest has not
// touched it since. It is as a Unify of a stopped guest, for which the contents were read
// before. Whatever fails is tried once: the guest keeps its files then, and starts.
func (g *Guest) takeNext(ctx context.Context, domain, image string, root *procctx.Root) error {
	id := nextOf(root.Upper)
	if id == "" {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, nextPatience)
	defer cancel()
	d, err := g.deriveNext(limited, id, domain, image, root.Upper)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		warn(ctx, "its files stay its own, hashify it again: "+err.Error())
	} else if d.id != "" {
		defer d.release()
		if err := g.switchTo(root.Upper, image, d); err != nil {
			return err
		}
		if root.Image, err = g.host.Tree(ctx, domain, d.id); err != nil {
			return err
		}
	}
	if err := unix.Removexattr(root.Upper, nextAttr); err != nil {
		return fmt.Errorf("remove %s of %s: %w", nextAttr, root.Upper, err)
	}
	return remove(nextPlan(root.Upper))
}

func (g *Guest) deriveNext(ctx context.Context, id, domain, image, upper string) (d derivation, err error) {
	next, err := readRemoval(nextPlan(upper), id)
	if err != nil {
		return d, err
	}
	dir, err := os.OpenFile(upper, unix.O_DIRECTORY, 0)
	if err != nil {
		return d, err
	}
	defer dir.Close()
	layer, err := unify.Scan(ctx, dir, nil)
	if err != nil {
		return d, err
	}
	return g.derive(ctx, domain, image, upper, layer, layer.Unchanged(next.Plan))
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
		for _, id := range []string{o.id, nextOf(dir)} {
			if id != "" {
				found[id] = filepath.Base(filepath.Dir(dir))
			}
		}
	}
	return found, nil
}
