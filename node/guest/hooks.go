package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/hook"
)

// Hooks are programs of the host that an administrator has put into a guest's scripts/
// or into .defaults/scripts (package hook). Those before a start can refuse it. Those
// after a stop are the undo of those before a start, so they also run after a start
// that failed, and for a guest that ended by itself. A call that completes what a
// killed one began runs its hooks again.

type warnKey struct{}

// WithWarn returns a context with which operations report what does not fail them, such
// as the output of hooks.
func WithWarn(ctx context.Context, warn func(string)) context.Context {
	return context.WithValue(ctx, warnKey{}, warn)
}

type outputKey struct{}

// WithOutput returns a context with which operations pass on the output of hooks; without
// it, it goes where warnings do.
func WithOutput(ctx context.Context, say func(string)) context.Context {
	return context.WithValue(ctx, outputKey{}, say)
}

func hookOutput(ctx context.Context, text string) {
	if f, ok := ctx.Value(outputKey{}).(func(string)); ok {
		f(text)
		return
	}
	warn(ctx, text)
}

func warn(ctx context.Context, text string) {
	if f, ok := ctx.Value(warnKey{}).(func(string)); ok && f != nil {
		f(text)
	}
}

// hooks returns the hooks of a guest.
func (p Paths) hooks(name string) (hook.Set, error) {
	return hook.Find(filepath.Join(p.config(name), "scripts"), filepath.Join(p.ConfigDir, ".defaults", "scripts"), isBackup)
}

// givenHooks returns the moments for which a guest has a hook of an inventory.
func (p Paths) givenHooks(name string) (phases []string) {
	if _, err := os.Lstat(filepath.Join(p.config(name), "scripts")); err != nil {
		return nil // most guests have none
	}
	for _, phase := range setting.HookPhases {
		if _, err := os.Lstat(filepath.Join(p.config(name), setting.HookFile(phase))); err == nil {
			phases = append(phases, phase)
		}
	}
	return phases
}

// hookFiles are the names of hooks in the configuration tree.
func hookFiles(dir string) (list []knownFile) {
	dir += "scripts/"
	for _, phase := range hook.Phases {
		list = append(list, knownFile{dir + string(phase), hasEffect, isHook}, knownFile{dir + string(phase) + ".d/*", hasEffect, isHook})
	}
	return append(list, knownFile{dir + hook.TimeoutFile, hasEffect, "how long each [hook](hooks.md) may take, as `90` (seconds) or `2m`; without it one minute"},
		knownFile{dir + "**", noEffect, noSuchHook})
}

const (
	isHook     = "a [hook](hooks.md): a program of the host that runs when the guest starts or stops"
	noSuchHook = "there is no such hook: docs/hooks.md has their names"
)

// readHooks reports the hooks that will not be run.
func (c *Config) readHooks(p Paths) error {
	set, err := p.hooks(c.Name)
	if err != nil {
		return err
	}
	defaults := filepath.Join(p.ConfigDir, ".defaults")
	for _, base := range []struct {
		dir, prefix string
		paths       []string
	}{{p.config(c.Name), "", set.Own()}, {defaults, ".defaults", set.Defaults()}} {
		for _, path := range base.paths {
			if _, err := hook.Trusted(path); err != nil {
				rel, _ := filepath.Rel(base.dir, path)
				c.Unread = append(c.Unread, api.Unread{File: filepath.Join(base.prefix, rel), Why: err.Error(), Refuses: true})
			}
		}
	}
	return nil
}

// hookInfo is what a hook reads from its standard input.
type hookInfo struct {
	Action    hook.Phase `json:"action"`
	Name      string     `json:"name"`
	Context   int        `json:"context,omitempty"`
	Config    string     `json:"config"`         // its directory in /etc/vservers
	Root      string     `json:"root,omitempty"` // vdir: its own files
	Image     string     `json:"image,omitempty"`
	Hostname  string     `json:"hostname,omitempty"`
	Mode      api.Mode   `json:"mode,omitempty"`
	Addresses []string   `json:"addresses"`
	Dev       string     `json:"dev,omitempty"`
	Ports     []string   `json:"ports"`
	Forwards  []string   `json:"forwards"`
	PID       int        `json:"pid,omitempty"` // of its process 1, while it runs
	Cgroup    string     `json:"cgroup,omitempty"`
}

func (g *Guest) hookInfo(phase hook.Phase) hookInfo {
	c := g.knownConfig()
	if g.noted != nil && g.noted.Runs != nil { // edited since
		c.Guest = *g.noted.Runs
	}
	i := hookInfo{
		Action: phase, Name: g.name, Context: c.Context, Config: g.host.config(g.name), Root: c.Root, Image: c.Image,
		Hostname: c.Hostname, Mode: c.Network.Mode, Dev: c.Network.Dev,
		Addresses: []string{}, Ports: []string{}, Forwards: []string{},
	}
	for _, a := range c.Network.Addresses {
		i.Addresses = append(i.Addresses, a.String())
	}
	for _, p := range c.Network.Ports {
		i.Ports = append(i.Ports, p.String())
	}
	for _, f := range c.Network.Forwards {
		i.Forwards = append(i.Forwards, f.String())
	}
	if pid, err := g.cgroup.Init(); err == nil && pid != 0 {
		i.PID, i.Cgroup = pid, string(g.cgroup)
	}
	return i
}

// hook runs the hooks of a phase.
func (g *Guest) hook(ctx context.Context, phase hook.Phase) error {
	if g.mount == "" {
		return nil
	}
	set, err := g.host.hooks(g.name)
	if err != nil || !set.Has(phase) {
		return err
	}
	err = set.Run(ctx, hook.Call{
		Phase: phase, Name: g.name, Dir: g.host.config(g.name), Held: append(slices.Clone(g.host.Held), g.name),
		Cgroup: cgroup.Dir(filepath.Join(filepath.Dir(string(g.cgroup)), ".hook-"+g.name)),
		Info:   g.hookInfo(phase), Refuse: g.host.refuseHook,
		Say: func(text string) { hookOutput(ctx, text) },
		All: phase.After(),
	})
	if err != nil {
		err = fmt.Errorf("hook %w", err)
	}
	return err
}

// hookOrWarn is hook where a failure must not keep a guest from running or ending.
func (g *Guest) hookOrWarn(ctx context.Context, phase hook.Phase) {
	if err := g.hook(ctx, phase); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			warn(ctx, line)
		}
	}
}

// refuseHook returns an error for a file that a guest can write: its files on disk
// belong to the host's root if they belong to its own.
func (h *Host) refuseHook(path string) error {
	names, err := h.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		c, _ := h.Read(name) // of a damaged configuration, what could be read
		places := []string{c.Root}
		for _, m := range c.Mounts {
			places = append(places, m.Source)
		}
		for _, dir := range places {
			if within(path, resolved(dir)) {
				return fmt.Errorf("guest %s can write it, as it is below %s, and could have the host's root run anything: copy it out", name, dir)
			}
		}
	}
	return nil
}

// prepreStart precedes everything that a start does.
func (s *start) prepreStart(ctx context.Context) error { return s.hook(ctx, hook.PrepreStart) }

// postpostStop is its undo.
func (g *Guest) postpostStop(ctx context.Context) error {
	if g.noted != nil {
		g.hookOrWarn(ctx, hook.PostpostStop)
	}
	return nil
}

// preStart runs when the guest has a cgroup and, except in mode nat, its network.
func (s *start) preStart(ctx context.Context) error { return s.hook(ctx, hook.PreStart) }

// postStop is its undo.
func (g *Guest) postStop(ctx context.Context) error {
	if g.noted != nil {
		g.hookOrWarn(ctx, hook.PostStop)
	}
	return nil
}

// postStart runs the hooks of a guest that has started, unless they have run.
func (g *Guest) postStart(ctx context.Context) error {
	n, err := g.notes()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !n.PostStart {
		return nil
	}
	if err != nil {
		return err
	}
	g.hookOrWarn(ctx, hook.PostStart)
	after := *g.noted
	after.PostStart = false
	return g.writeNotes(after)
}

// initialize runs the hooks that come before everything; they may write the guest's
// configuration, which is read again.
func (s *start) initialize(ctx context.Context) error {
	set, err := s.host.hooks(s.name)
	if err != nil || !set.Has(hook.Initialize) {
		return err
	}
	if err := s.hook(ctx, hook.Initialize); err != nil {
		return err
	}
	s.configRead = nil
	s.config, err = s.Config()
	return err
}

// refuseHeld returns an error if the guest is held by the call whose hook this vsnode
// was called from, so that waiting for it would never end.
func (h *Host) refuseHeld(name string) error {
	if !slices.Contains(h.Held, name) {
		return nil
	}
	return fmt.Errorf("it is called from a hook of this guest, which is held until the hook ends: "+
		"call it when the hook has ended, from cron or a service of the host, or use vserver %s exec in post-start and pre-stop", name)
}
