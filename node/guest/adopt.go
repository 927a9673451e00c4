package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/owners"
	"github.com/vsfleet/vsfleet/node/probe"
)

// Adoption is what is decided about a guest of util-vserver's that is taken over.
type Adoption struct {
	Ports      []port.Range // that it may bind on shared addresses; nil: those it has
	KeepOwners bool         // files with ids that no guest has stay as they are
	// AskPorts is called if the guest has shared addresses and no ports; may be nil.
	AskPorts func(addresses []string) ([]port.Range, error)
	// Agree is called with what will change. It returns false to leave all as it is.
	Agree func(AdoptionPlan) (bool, error)
}

// AdoptionPlan says what taking a guest over changes, one line each.
type AdoptionPlan struct {
	Changes []string
	Stays   []string // has no effect, and stays
	Backup  string   // where the old configuration is kept
	GoesOn  bool     // with a takeover that was interrupted
}

// adopting is the state of a takeover, in the file of that name in the guest's
// directory: from before the first change to after the last. The guest does not start
// meanwhile.
type adopting struct {
	Time       int64             `json:"time"` // names the backup
	NewContext bool              `json:"newContext,omitempty"`
	Files      map[string]string `json:"files"` // of the configuration; "" removes one
	Places     []string          `json:"places,omitempty"`
	Owners     *owners.Survey    `json:"owners,omitempty"`
	Changes    []string          `json:"changes"`
}

const adoptingFile = "adopting"

// Adopt takes over a stopped guest of util-vserver's: its files get plain owners and
// links of their own, its configuration what it lacks. The old configuration is kept.
// If Adopt is killed, the next call goes on.
func (h *Host) Adopt(ctx context.Context, name string, a Adoption) (api.Outcome, error) {
	return h.holdOutcome(ctx, name, "adopt", func(g *Guest) (api.Outcome, error) { return g.adopt(ctx, a) })
}

func (g *Guest) adopt(ctx context.Context, a Adoption) (api.Outcome, error) {
	if on, err := g.running(); err != nil || on {
		return api.Unchanged, errors.Join(err, errors.New("it runs: stop it first"))
	}
	if err := sweepBeside(g.host.config(g.name)); err != nil { // of a takeover that was killed at its end
		return api.Unchanged, err
	}
	plan := AdoptionPlan{GoesOn: true}
	st, err := g.readAdopting()
	if errors.Is(err, fs.ErrNotExist) {
		st, plan, err = g.planAdoption(ctx, a)
	}
	if err != nil {
		return api.Unchanged, err
	}
	if plan.Changes = st.Changes; len(plan.Changes) > 0 {
		plan.Backup = g.host.config(g.name) + st.suffix()
	}
	if agreed, err := a.Agree(plan); err != nil || !agreed || len(plan.Changes) == 0 {
		return api.Unchanged, err
	}
	return api.Changed, g.carryOut(ctx, st)
}

func (st adopting) suffix() string { return fmt.Sprintf("%s%d~", asideMark, st.Time) }

func (g *Guest) readAdopting() (st adopting, err error) {
	path := filepath.Join(g.host.config(g.name), adoptingFile)
	b, err := linux.ReadFile(path)
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(b, &st); err != nil || st.Time == 0 {
		return st, fmt.Errorf("%s is damaged (%w): remove it, and begin anew", path, errors.Join(err, errors.New("no time in it")))
	}
	return st, nil
}

// carryOut does what st says. Each step can be repeated.
func (g *Guest) carryOut(ctx context.Context, st adopting) error {
	dir := g.host.config(g.name)
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"note what is to be done", func() error {
			b, err := json.Marshal(st)
			if err != nil {
				return err
			}
			return linux.ReplaceFileSync(filepath.Join(dir, adoptingFile), 0o600, func(f *os.File) error {
				_, err := f.Write(b)
				return err
			})
		}},
		{"keep the old configuration", func() error { return keepConfig(dir, dir+st.suffix()) }},
		{"make directories", func() error { return g.makePlaces(st.Places) }},
		{"give files their owners", func() error {
			root, err := g.adoptedRoot()
			if err != nil || st.Owners == nil {
				return err
			}
			return st.Owners.Apply(ctx, root)
		}},
		{"write the configuration", func() error { return g.writeAdopted(ctx, st) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w; the same command goes on", step.what, err)
		}
	}
	return nil
}

// adoptedRoot returns the directory of the guest's files, without links.
func (g *Guest) adoptedRoot() (string, error) {
	root, err := g.host.vdir(g.name)
	if err != nil {
		return "", err
	}
	resolvedRoot, err := filepath.EvalSymlinks(root)
	if err != nil {
		return "", fmt.Errorf("its own files (vdir): %w", err)
	}
	if info, err := os.Stat(resolvedRoot); err != nil || !info.IsDir() {
		return "", errors.Join(err, fmt.Errorf("its own files (vdir): %s is not a directory", root))
	}
	return resolvedRoot, nil
}

// keepConfig copies a configuration. The copy is there as a whole or not at all.
func keepConfig(dir, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return nil // by a call that was killed afterwards
	}
	half := filepath.Join(filepath.Dir(dir), "."+filepath.Base(to)+".new")
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	err := os.Mkdir(half, 0o755)
	if err == nil {
		err = copyKept(dir, half, func(rel string) bool { return rel != adoptingFile })
	}
	if err == nil {
		err = syncFS(half)
	}
	if err == nil {
		err = os.Rename(half, to)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(half))
	}
	return linux.SyncDir(filepath.Dir(to))
}

// makePlaces makes directories in the guest's root.
func (g *Guest) makePlaces(places []string) error {
	path, err := g.adoptedRoot()
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, place := range places {
		if err := root.Mkdir(place, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// writeAdopted writes the configuration, and with the same rename ends the takeover.
func (g *Guest) writeAdopted(ctx context.Context, st adopting) error {
	c, err := g.host.readAs(g.name, st.Files)
	if err != nil {
		return err
	}
	to := c.Guest
	return g.host.withClaims(ctx, &to, func() error {
		f := files{text: map[string]string{adoptingFile: "", "context": scalar(strconv.Itoa(to.Context))}}
		for file, content := range st.Files {
			if file != "context" {
				f.text[file] = content
			}
		}
		g.configRead = nil
		return f.replace(g.host.config(g.name), func(rel string) bool {
			_, ours := f.text[rel]
			return !ours
		})
	})
}

// planAdoption looks at a guest and returns what has to be done.
func (g *Guest) planAdoption(ctx context.Context, a Adoption) (st adopting, plan AdoptionPlan, err error) {
	st = adopting{Time: time.Now().Unix(), Files: map[string]string{}}
	tags, err := g.adoptContext(&st)
	if err != nil {
		return st, plan, err
	}
	c, err := g.host.readAs(g.name, st.Files)
	if err != nil {
		return st, plan, err
	}
	// What cannot be taken over is refused before anybody is asked.
	if err := g.adoptFiles(ctx, &st, a, tags); err != nil {
		return st, plan, err
	}
	if err := g.adoptPorts(&st, c, a); err != nil {
		return st, plan, err
	}
	stays := slices.DeleteFunc(slices.Clone(c.Unread), func(u api.Unread) bool { return u.Refuses || u.File == "tag" && st.Files["tag"] == "" })
	plan.Stays = append(plan.Stays, api.Explain(stays)...)
	if refusing := api.Refusing(c.Unread); len(refusing) > 0 {
		lines, _ := linux.ReadFile(filepath.Join(g.host.config(g.name), "ignore"))
		text := strings.TrimRight(string(lines), "\n")
		for _, u := range refusing {
			text += "\n" + u.File
		}
		st.change("ignore", strings.TrimLeft(text, "\n")+"\n", "ignore: it starts without %s", strings.Join(api.Explain(refusing), "; "))
	}
	if c, err = g.host.readAs(g.name, st.Files); err != nil {
		return st, plan, err
	}
	to := c.Guest
	if err := errors.Join(refusal(g.host.config(g.name), c.Unread), g.host.withClaims(ctx, &to, nil)); err != nil {
		return st, plan, err
	}
	return st, plan, nil
}

// change adds a file to the takeover, and what people read about it.
func (st *adopting) change(file, content, format string, args ...any) {
	if file != "" {
		st.Files[file] = content
	}
	st.Changes = append(st.Changes, fmt.Sprintf(format, args...))
}

// adoptContext keeps a guest's context where that is possible, and returns the tags that
// its files may have.
func (g *Guest) adoptContext(st *adopting) (tags []uint32, err error) {
	t := openTree(g.host.config(g.name))
	if _, err := g.host.vdir(g.name); err != nil {
		return nil, err
	}
	text := t.scalar("context")
	for _, s := range []string{t.scalar("tag"), text} {
		if n, err := strconv.ParseUint(s, 10, 16); err == nil && n > 0 {
			tags = append(tags, uint32(n))
		}
	}
	n, err := strconv.Atoi(text)
	all, cerr := g.host.configured()
	if cerr != nil {
		return nil, cerr
	}
	other := slices.IndexFunc(all, func(o *api.Guest) bool { return o.Name != g.name && o.Context == n })
	switch {
	case text == "":
	case err != nil || n < api.MinContext || n > api.MaxContext:
		st.change("context", "", "context: %q is not a number from %d to %d: it gets a free one from %d", text, api.MinContext, api.MaxContext, api.FirstAutoContext)
	case other >= 0:
		st.change("context", "", "context: %d is guest %s's: it gets a free one from %d", n, all[other].Name, api.FirstAutoContext)
	}
	return tags, t.err
}

// adoptPorts gives a guest with shared addresses the ports that it may bind.
func (g *Guest) adoptPorts(st *adopting, c Config, a Adoption) (err error) {
	n := c.Network
	ports := a.Ports
	switch {
	case n.Mode != api.ModeShared && ports != nil:
		return fmt.Errorf("ports: only a guest with shared addresses (nodev) is given ports, and it is in mode %s", n.Mode)
	case n.Mode != api.ModeShared, ports == nil && len(n.Ports) > 0:
		return nil
	case ports == nil && a.AskPorts != nil:
		var addresses []string
		for _, p := range n.Addresses {
			addresses = append(addresses, p.Addr().String())
		}
		if ports, err = a.AskPorts(addresses); err != nil {
			return err
		}
	}
	if len(ports) == 0 {
		st.Changes = append(st.Changes, "ports: none is given, and it can bind none on its shared addresses (interfaces/ports)")
		return nil
	}
	var lines []string
	for _, r := range ports {
		lines = append(lines, r.String())
	}
	st.change("interfaces/ports", list(lines), "interfaces/ports: it may bind %s", strings.Join(lines, ", "))
	return nil
}

// adoptFiles looks at a guest's own files.
func (g *Guest) adoptFiles(ctx context.Context, st *adopting, a Adoption, tags []uint32) error {
	root, err := g.adoptedRoot()
	if err != nil {
		return err
	}
	if root == "/" || within(g.host.ConfigDir, root) || within(g.host.DataDir, root) {
		return fmt.Errorf("its own files (vdir) are at %s, which is the host's", root)
	}
	if got := probe.IdmappedMounts.Probe(&probe.System{Data: root}); got.Verdict == api.No {
		return fmt.Errorf("its own files (vdir) are on a filesystem that takes no idmapped mounts (%s): move them to ext4, xfs or btrfs", got.Detail)
	}
	users, err := g.host.sharers(g.name, root)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("its files (%s) are those of guest %s too: give one of them a vdir of its own", root, strings.Join(users, ", "))
	}
	for _, place := range []string{"proc", "sys", "dev"} {
		if _, err := os.Lstat(filepath.Join(root, place)); errors.Is(err, fs.ErrNotExist) {
			st.Places = append(st.Places, place)
		}
	}
	if st.Places != nil {
		st.change("", "", "directories: /%s are made", strings.Join(st.Places, ", /"))
	}
	s, err := owners.Look(ctx, root, tags...)
	if err != nil {
		return fmt.Errorf("look at its files in %s: %w", root, err)
	}
	return st.adoptOwners(s, a)
}

func (st *adopting) adoptOwners(s owners.Survey, a Adoption) error {
	if s.Foreign > 0 && !a.KeepOwners {
		return fmt.Errorf("%d files have owners of neither the guest nor %s, as %s: chown them, or leave them with --keep-owners (the guest sees them as nobody's)", s.Foreign, s.Scheme, s.Example)
	}
	if s.SharedBytes > s.Free {
		return fmt.Errorf("%d of its files are hard links to those of other guests (unified): to copy them takes %d MiB, and %d are free", s.Shared, s.SharedBytes>>20, s.Free>>20)
	}
	if s.Files > 0 {
		st.change("", "", "owners: %d files have %s: they get the owners that they have in the guest", s.Files, s.Scheme)
	}
	if s.Foreign > 0 {
		st.change("", "", "owners: %d files of others, as %s, stay as they are", s.Foreign, s.Example)
	}
	if s.Shared > 0 {
		st.change("", "", "unified files: %d are shared with other trees by hard links: it gets copies (%d MiB)", s.Shared, s.SharedBytes>>20)
	}
	if s.Immutable > 0 {
		st.change("", "", "unified files: %d are immutable: they can be written to again", s.Immutable)
	}
	if s.Files+s.Shared+s.Immutable > 0 {
		st.Owners = &s
		st.Files["tag"] = ""
	}
	return nil
}
