package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/network"
)

// ErrExists says that there is a guest of that name.
var ErrExists = errors.New("it is there already")

// Create configures a guest and makes the directory for what it writes. An
// existing guest of that name is an error: Configure changes it.
func (h *Host) Create(ctx context.Context, g api.Guest) error {
	return h.locked(ctx, g.Name, "create", func() error {
		if _, err := os.Lstat(h.config(g.Name)); err == nil {
			return fmt.Errorf("%w (%s)", ErrExists, h.config(g.Name))
		}
		if on, err := h.running(g.Name); err != nil || on {
			return errors.Join(err, fmt.Errorf("a guest of that name runs without a configuration: end it first (vserver %s delete)", g.Name))
		}
		return h.withClaims(&g, func() error {
			if err := h.roomForData(g.Name); err != nil {
				return err
			}
			err := h.makeData(g)
			if err == nil {
				if err = h.giveHostKey(g); err != nil {
					err = fmt.Errorf("give it a host key: %w", err)
				}
			}
			if err == nil {
				err = h.write(g, h.own(g.Name))
			}
			if err == nil {
				err = os.Remove(h.incomplete(g.Name))
			}
			if err != nil {
				return errors.Join(err, os.RemoveAll(h.config(g.Name)), imagetree.Remove(h.data(g.Name)))
			}
			return nil
		})
	})
}

// Configure changes what a guest is. A running one takes its limits, ports and
// forwards at once, and the rest at its next start.
func (h *Host) Configure(ctx context.Context, g api.Guest) (api.Outcome, error) {
	outcome := api.Unchanged
	err := h.locked(ctx, g.Name, "configure", func() error {
		running, err := h.running(g.Name)
		if err != nil {
			return err
		}
		old, err := h.Read(g.Name)
		if errors.Is(err, ErrNoGuest) && !running {
			return err
		}
		damaged := err != nil
		if damaged {
			// Or gone while the guest runs: it is written anew.
			old = h.bare(g.Name, old)
			old.Root = cmp.Or(old.Root, h.own(g.Name))
		}
		if g.Context == 0 {
			g.Context = old.Context
		}
		if running && g.Context != old.Context {
			// Ids on disk are the guest's own, so only a running guest minds.
			return fmt.Errorf("its context changes from %d to %d: stop it first", old.Context, g.Context)
		}
		if damaged || !reflect.DeepEqual(old.Guest, g) {
			outcome = api.Changed
			if err := h.withClaims(&g, func() error { return h.write(g, old.Root) }); err != nil {
				return err
			}
		}
		if !running {
			return nil
		}
		c, err := h.Read(g.Name)
		if err != nil {
			return err
		}
		changed, err := h.live(ctx, c)
		if changed {
			outcome = api.Changed
		}
		if err != nil {
			return fmt.Errorf("it is configured, and goes on running as it was: %w", err)
		}
		return nil
	})
	return outcome, err
}

// withClaims runs f, if there is one, with all configurations locked to other
// vsnodes, after g was found to claim nothing that another has. It chooses a
// context where g has none.
func (h *Host) withClaims(g *api.Guest, f func() error) error {
	next, unlock, err := h.lockClaims()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := h.configured()
	if err != nil {
		return err
	}
	running, err := h.contexts()
	if err != nil {
		return err
	}
	if g.Context == 0 {
		if g.Context, err = freeContext(all, running); err != nil {
			return err
		}
	}
	if err := check(*g); err != nil {
		return err
	}
	if err := conflict(*g, all); err != nil {
		return err
	}
	if name, taken := running[g.Context]; taken && name != g.Name {
		on, err := h.running(name)
		if err == nil && on {
			err = fmt.Errorf("context %d is guest %s's, which runs with it whatever its configuration says: stop that one first (vserver %s stop)", g.Context, name, name)
		}
		if err != nil {
			return err
		}
	}
	if f == nil {
		return nil
	}
	if err := h.change(); err != nil {
		return err
	}
	done := h.index.make(*g)
	next() // what f waits for is the disk
	err = f()
	done(err)
	return err
}

// giveContext gives a context to a guest whose tree has none.
func (h *Host) giveContext(name string) (xid int, err error) {
	_, unlock, err := h.lockClaims()
	if err != nil {
		return 0, err
	}
	defer unlock()
	all, err := h.configured()
	if err != nil {
		return 0, err
	}
	running, err := h.contexts()
	if err != nil {
		return 0, err
	}
	if xid, err = freeContext(all, running); err != nil {
		return 0, err
	}
	if err := h.change(); err != nil {
		return 0, err
	}
	h.index.forget()
	path := filepath.Join(h.config(name), "context")
	if err := os.WriteFile(path+".new~", []byte(strconv.Itoa(xid)+"\n"), 0o644); err != nil {
		return 0, err
	}
	return xid, os.Rename(path+".new~", path)
}

// freeContext is the first unused automatic one.
func freeContext(all []api.Guest, running map[int]string) (int, error) {
	used := map[int]bool{}
	for _, g := range all {
		used[g.Context] = true
	}
	for xid := api.FirstAutoContext; xid <= api.LastAutoContext; xid++ {
		if !used[xid] && running[xid] == "" {
			return xid, nil
		}
	}
	return 0, fmt.Errorf("no automatic context is free from %d to %d: give one", api.FirstAutoContext, api.LastAutoContext)
}

// check refuses what no configuration may say.
func check(g api.Guest) error {
	n := g.Network
	switch {
	case g.Context < api.MinContext || g.Context > api.MaxContext:
		return fmt.Errorf("context %d: want %d to %d", g.Context, api.MinContext, api.MaxContext)
	case strings.ContainsAny(g.Hostname+g.Image+n.Dev+strings.Join(g.Init.Command, ""), "\n\x00"):
		return errors.New("a value has a line break: each is a line in a file")
	case len(g.Hostname) > 64:
		return fmt.Errorf("host name %q is longer than 64 characters", g.Hostname)
	case g.Init.Style != "" && g.Init.Style != "plain" && g.Init.Style != "command":
		return fmt.Errorf("init style %q: want plain or command", g.Init.Style)
	case slices.ContainsFunc(g.Init.Command, func(arg string) bool { return arg == "" || arg[0] == '#' || strings.TrimSpace(arg) != arg }):
		return fmt.Errorf("init command %q: no argument can be empty, begin with # or have blanks around it, as each is a line in a file: put it into a script", g.Init.Command)
	case g.Init.Style == "command" && len(g.Init.Command) == 0:
		return errors.New("init style command needs a command")
	}
	mode, err := network.Of(n.Mode)
	if err != nil {
		return err
	}
	return errors.Join(mode.Validate(n), g.Check())
}

func (h *Host) own(name string) string        { return filepath.Join(h.data(name), "root") }
func (h *Host) work(name string) string       { return filepath.Join(h.data(name), "work") }
func (h *Host) incomplete(name string) string { return filepath.Join(h.data(name), ".incomplete") }

// roomForData makes the way free for the data of a new guest.
func (h *Host) roomForData(name string) error {
	if err := os.MkdirAll(h.ConfigDir, 0o755); err != nil {
		return err
	}
	if err := h.closeData(); err != nil {
		return err
	}
	dir := h.data(name)
	if _, err := os.Lstat(h.incomplete(name)); err == nil {
		return imagetree.Remove(dir)
	}
	// Empty it is what a create left that was killed at once.
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(entries) > 0 {
		return fmt.Errorf("%s holds data of a guest without a configuration: move it away or delete it", dir)
	}
	return os.Remove(dir)
}

// makeData makes the directory of a new guest. Until its configuration is
// written it is marked as incomplete, and may be removed by the next try.
func (h *Host) makeData(g api.Guest) error {
	dir := h.data(g.Name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	mark, err := os.OpenFile(h.incomplete(g.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	mark.Close()
	etc := filepath.Join(h.own(g.Name), "etc")
	for path, mode := range map[string]os.FileMode{h.own(g.Name): 0o755, h.work(g.Name): 0o700, etc: 0o755} {
		if err := os.MkdirAll(path, mode); err != nil {
			return err
		}
	}
	hostname := g.Hostname
	if hostname == "" {
		hostname = g.Name
	}
	for name, content := range map[string]string{
		"hostname":    hostname + "\n",
		"hosts":       hosts(g, hostname),
		"resolv.conf": resolvConf(upstreams),
	} {
		if content == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(etc, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	// On one filesystem with the configuration it is written with that, and before.
	if one, err := sameFS(dir, h.ConfigDir); err != nil || one {
		return err
	}
	return syncFS(dir)
}

// hosts is /etc/hosts: a guest finds itself by name.
func hosts(g api.Guest, hostname string) string {
	short, _, _ := strings.Cut(hostname, ".")
	names := hostname
	if short != hostname {
		names += " " + short
	}
	s := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	mode, err := network.Of(g.Network.Mode)
	if err != nil {
		return s // check has refused it
	}
	for _, a := range mode.Addresses(g) {
		s += a.String() + " " + names + "\n"
	}
	return s
}

// upstreams are where the resolvers of a host that listen on its loopback note the
// servers behind them: systemd-resolved, NetworkManager (with dnsmasq), resolvconf.
var upstreams = []string{
	"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf",
	"/run/NetworkManager/no-stub-resolv.conf", "/run/dnsmasq/resolv.conf", "/run/resolvconf/resolv.conf",
}

// resolvConf is the host's, without what only the host can reach.
func resolvConf(files []string) string {
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var keep []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) == 0 || f[0] == "nameserver" && (len(f) < 2 || strings.HasPrefix(f[1], "127.") || f[1] == "::1") {
				continue
			}
			keep = append(keep, strings.TrimSpace(line))
		}
		if strings.Contains(strings.Join(keep, " "), "nameserver") {
			return strings.Join(keep, "\n") + "\n"
		}
	}
	return ""
}

// Delete stops a guest and removes all of it. The data goes first: as long as
// the configuration is there the same command can be given again.
func (h *Host) Delete(ctx context.Context, name string) error {
	return h.locked(ctx, name, "delete", func() error {
		if err := h.exists(name); err != nil {
			return err
		}
		c, err := h.Read(name)
		if err != nil {
			c = h.bare(name, c)
		}
		users, err := h.users(name, h.data(name), c.Root)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return fmt.Errorf("its files are those of guest %s as well: nothing was deleted; to keep them, vserver %s stop and rm -r %s", strings.Join(users, ", "), name, h.config(name))
		}
		// Else it would be stopped, and there all the same.
		if err := errors.Join(writable(h.DataDir), writable(h.ConfigDir)); err != nil {
			return err
		}
		if err := h.stop(ctx, c); err != nil {
			return err
		}
		if root := c.Root; root != "" && root != h.own(name) {
			return fmt.Errorf("its files are at %s, outside %s: delete them and %s by hand", root, h.data(name), h.config(name))
		}
		// By descriptors: no link is followed that the guest left, and no depth is too deep.
		if err := imagetree.Remove(h.data(name)); err != nil {
			return err
		}
		if err := os.RemoveAll(h.config(name)); err != nil {
			return err
		}
		h.index.forget()
		return errors.Join(remove(h.console(name)), remove(h.console(name)+".1"), remove(h.endFile(name)))
	})
}

// remove removes a file that may be there. A read-only filesystem refuses what
// is not there as well.
func remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, serr := os.Lstat(path); err != nil && errors.Is(serr, fs.ErrNotExist) {
		return nil
	}
	return err
}

// locked runs f with the guest's lock held and says in an error what was done
// to whom.
func (h *Host) locked(ctx context.Context, name, verb string, f func() error) error {
	err := CheckName(name)
	if err == nil {
		var unlock func()
		if unlock, err = h.lockFor(ctx, name); err == nil {
			defer unlock()
			err = f()
			// The lock of a guest that is not there, or not any more, goes as well.
			if errors.Is(h.exists(name), ErrNoGuest) {
				err = errors.Join(err, remove(h.lockFile(name)))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s guest %s: %w", verb, name, err)
	}
	return nil
}

// Claim says whether a guest could be created: what is wrong with it is better
// known before its image is built.
func (h *Host) Claim(g api.Guest) error {
	if err := CheckName(g.Name); err != nil {
		return err
	}
	if err := errors.Join(writable(h.ConfigDir), h.withClaims(&g, nil)); err != nil {
		return fmt.Errorf("guest %s: %w", g.Name, err)
	}
	return nil
}
