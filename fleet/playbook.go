package fleet

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/play"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/playbooks"
)

// LoadPlaybook reads a playbook, from a file or one that comes with vsfleet, and checks
// it against an inventory. vars are NAME=VALUE.
func LoadPlaybook(name string, inv *inventory.Inventory, vars []string) (*playbooks.Book, error) {
	return playbooks.Load(name, playbooks.Options{Read: readPlaybook, Fleet: knownTo(inv), Vars: vars})
}

// readPlaybook reads a file, or a playbook that comes with vsfleet: the name of one has
// neither a slash nor a dot.
func readPlaybook(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if !errors.Is(err, fs.ErrNotExist) || strings.ContainsAny(name, "/.") {
		return data, err
	}
	shipped, err := playbooks.FindShipped(name)
	return []byte(shipped.Text), err
}

// knownTo returns the names of an inventory that playbooks may use.
func knownTo(inv *inventory.Inventory) *playbooks.Fleet {
	known := &playbooks.Fleet{Vars: map[string]any{}}
	for _, h := range inv.Hosts {
		for name, v := range h.Vars {
			value, ok := play.Variable(v)
			if !ok {
				known.Sealed = append(known.Sealed, name)
				continue
			}
			have, there := known.Vars[name]
			if there && reflect.TypeOf(have) != reflect.TypeOf(value) {
				value = "" // a variable of several types is a text
			}
			known.Vars[name] = value
		}
		for name := range h.Labels {
			known.Labels = append(known.Labels, name)
		}
	}
	slices.Sort(known.Labels)
	known.Labels = slices.Compact(known.Labels)
	for _, image := range inv.Images {
		known.Images = append(known.Images, image.Name)
	}
	known.Hosts = func(pattern string) error { _, err := inv.Select(pattern); return err }
	known.Guests = func(name string) error { _, err := inv.SelectGuests(name); return err }
	return known
}

// Player returns a Player that carries out playbooks on hosts.
func (a *Access) Player(inv *inventory.Inventory, hosts []*inventory.Host, forks int, watch func(report.Event)) *play.Player {
	return &play.Player{Fleet: a.Rollout(forks, watch), Inventory: inv, Vars: knownTo(inv).Vars, Among: hosts, Read: readBeside, Reach: a.reach}
}

// readBeside reads a file for copy and template; "~/" is the home directory.
func readBeside(name string) ([]byte, error) {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		name = filepath.Join(home, rest)
	}
	return os.ReadFile(name)
}

// reach opens a new connection to a host with one key only.
func (a *Access) reach(ctx context.Context, h *inventory.Host, identity string) error {
	s, err := a.settings(ctx, h)
	if err != nil {
		return err
	}
	s.Identity, s.Keys = identity, transport.Keys{}
	s.ControlPath, s.NoPassword, s.NoKeyboardInteractive = "", true, true
	conn, err := a.transport().Dial(ctx, s)
	if err != nil {
		return err
	}
	return conn.Close()
}
