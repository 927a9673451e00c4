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

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/network"
)

// ErrExists means that a guest of that name exists.
var ErrExists = errors.New("it is there already")

// Create configures a guest and makes the directory for its data. If a guest of that
// name exists it is an error; Configure changes existing guests.
func (h *Host) Create(ctx context.Context, to api.Guest) error {
	return h.Hold(ctx, to.Name, "create", func(g *Guest) error { return g.Create(ctx, to) })
}

// Create is like Host.Create; the guest's lock is already held.
func (g *Guest) Create(ctx context.Context, to api.Guest) error {
	return g.create(ctx, to, func(ctx context.Context, to api.Guest) error {
		if err := g.host.roomForData(g.name); err != nil {
			return err
		}
		if err := g.make(ctx, to); err != nil {
			return errors.Join(err, os.RemoveAll(g.host.config(g.name)), imagetree.Remove(g.host.data(g.name)))
		}
		return nil
	})
}

// create claims what a guest is to have, and calls do, which makes it.
func (g *Guest) create(ctx context.Context, to api.Guest, do func(context.Context, api.Guest) error) error {
	h := g.host
	if _, err := os.Lstat(h.config(g.name)); err == nil {
		return fmt.Errorf("%w (%s)", ErrExists, h.config(g.name))
	}
	if on, err := g.running(); err != nil || on {
		return errors.Join(err, fmt.Errorf("a guest of that name runs without a configuration: end it first (vserver %s delete)", g.name))
	}
	err := h.withClaims(ctx, &to, func() error { return do(ctx, to) })
	if err == nil && to.Boot.Mark != "" {
		err = g.syncUnit(ctx)
	}
	return err
}

// make makes the data, then the configuration. Until both exist the data is marked as
// incomplete.
func (g *Guest) make(ctx context.Context, to api.Guest) error {
	if err := g.host.makeData(ctx, to); err != nil {
		return err
	}
	if to.Image != "" {
		if err := noteBase(g.host.rootDir(g.name), to.Image); err != nil {
			return err
		}
	}
	if err := g.host.giveHostKey(ctx, to); err != nil {
		return fmt.Errorf("give it a host key: %w", err)
	}
	if err := g.writeConfig(to, g.host.rootDir(g.name)); err != nil {
		return err
	}
	return os.Remove(g.host.incompleteMark(g.name))
}

// check refuses what no configuration may contain.
func check(g api.Guest) error {
	n := g.Network
	switch {
	case g.Context < api.MinContext || g.Context > api.MaxContext:
		return fmt.Errorf("context %d: want %d to %d", g.Context, api.MinContext, api.MaxContext)
	case strings.ContainsAny(g.Hostname+g.Image+n.Dev+strings.Join(g.Init.Command, ""), "\n\x00"):
		return errors.New("a value has a line break: each is a line in a file")
	case g.Hostname != "" && setting.ValidHostname(g.Hostname) != nil:
		return fmt.Errorf("hostname: %w", setting.ValidHostname(g.Hostname))
	case g.Init.Style != "" && g.Init.Style != "plain" && g.Init.Style != "command" && styleOf(g.Init.Style).start == "":
		return errors.New(styleProblem(g.Init.Style))
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

func (h *Host) rootDir(name string) string        { return filepath.Join(h.data(name), "root") }
func (h *Host) workDir(name string) string        { return filepath.Join(h.data(name), "work") }
func (h *Host) incompleteMark(name string) string { return filepath.Join(h.data(name), ".incomplete") }

// roomForData clears the path for the data of a new guest.
func (h *Host) roomForData(name string) error {
	if err := os.MkdirAll(h.ConfigDir, 0o755); err != nil {
		return err
	}
	if err := h.closeData(); err != nil {
		return err
	}
	dir := h.data(name)
	if _, err := os.Lstat(h.incompleteMark(name)); err == nil {
		return imagetree.Remove(dir)
	}
	// An empty directory was left by a create that was killed early.
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(entries) > 0 {
		return fmt.Errorf("%s holds data of a guest without a configuration: move it away or delete it", dir)
	}
	return os.Remove(dir)
}

// makeData makes the directory of a new guest. Until the guest's configuration is
// written the directory is marked as incomplete, and the next try may remove it.
func (h *Host) makeData(ctx context.Context, g api.Guest) error {
	dir := h.data(g.Name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	mark, err := os.OpenFile(h.incompleteMark(g.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	mark.Close()
	for path, mode := range map[string]os.FileMode{h.rootDir(g.Name): 0o755, h.workDir(g.Name): 0o700} {
		if err := os.Mkdir(path, mode); err != nil {
			return err
		}
	}
	if err := h.countDisk(ctx, g); err != nil { // while they are empty
		return err
	}
	etc := filepath.Join(h.rootDir(g.Name), "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		return err
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
		if err := linux.WriteFile(filepath.Join(etc, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	// If it is on the same filesystem as the configuration, it reaches the disk with
	// that, and before it.
	if one, err := sameFS(dir, h.ConfigDir); err != nil || one {
		return err
	}
	return syncFS(dir)
}

// hosts returns the content of /etc/hosts, by which a guest resolves its own name.
func hosts(g api.Guest, hostname string) string {
	short, _, _ := strings.Cut(hostname, ".")
	names := hostname
	if short != hostname {
		names += " " + short
	}
	s := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	mode, err := network.Of(g.Network.Mode)
	if err != nil {
		return s // check has refused this
	}
	for _, a := range mode.Addresses(g) {
		s += a.String() + " " + names + "\n"
	}
	return s
}

// upstreams are the files in which local resolvers of a host (systemd-resolved,
// NetworkManager with dnsmasq, resolvconf) list their upstream servers.
var upstreams = []string{
	"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf",
	"/run/NetworkManager/no-stub-resolv.conf", "/run/dnsmasq/resolv.conf", "/run/resolvconf/resolv.conf",
}

// resolvConf returns the host's resolv.conf without servers that only the host can
// reach.
func resolvConf(files []string) string {
	for _, path := range files {
		b, err := linux.ReadFile(path)
		if err != nil {
			continue
		}
		var lines []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) == 0 || f[0] == "nameserver" && (len(f) < 2 || strings.HasPrefix(f[1], "127.") || f[1] == "::1") {
				continue
			}
			lines = append(lines, strings.TrimSpace(line))
		}
		if strings.Contains(strings.Join(lines, " "), "nameserver") {
			return strings.Join(lines, "\n") + "\n"
		}
	}
	return ""
}

// remove removes a file that may not exist. On a read-only filesystem unlink fails even
// for a file that does not exist.
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
