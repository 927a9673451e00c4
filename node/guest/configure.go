package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"slices"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Configure changes a guest's configuration. A running guest takes its limits, ports
// and forwards at once, and the rest at its next start.
func (h *Host) Configure(ctx context.Context, to api.Guest) (api.Outcome, error) {
	return h.holdOutcome(ctx, to.Name, "configure", func(g *Guest) (api.Outcome, error) { return g.Configure(ctx, to) })
}

// Configure is like Host.Configure; the guest's lock is already held.
func (g *Guest) Configure(ctx context.Context, to api.Guest) (api.Outcome, error) {
	running, err := g.running()
	if err != nil {
		return api.Unchanged, err
	}
	old, err := g.Config()
	if errors.Is(err, ErrNoGuest) && !running {
		return api.Unchanged, err
	}
	damaged := err != nil
	if damaged { // or missing while the guest runs: write it anew
		old = g.knownConfig()
		old.Root = cmp.Or(old.Root, g.host.rootDir(g.name))
	}
	if to.Context == 0 {
		to.Context = old.Context
	}
	if running && to.Context != old.Context {
		// IDs on disk are the guest's own, so the context only matters while it runs.
		return api.Unchanged, fmt.Errorf("its context changes from %d to %d: stop it first", old.Context, to.Context)
	}
	keepPlaces(&to.Network, old.Network)
	outcome := api.Unchanged
	if damaged || !reflect.DeepEqual(old.Guest, to) {
		outcome = api.Changed
		if err := g.host.withClaims(ctx, &to, func() error { return g.writeConfig(to, old.Root) }); err != nil {
			return outcome, err
		}
	}
	if shares := unitShares(to.Limits); to.Boot.Mark != "" || len(shares) > 0 || !reflect.DeepEqual(old.Boot, to.Boot) || !slices.Equal(unitShares(old.Limits), shares) {
		if err := g.syncUnit(ctx); err != nil {
			return outcome, err
		}
	}
	if !running {
		return outcome, nil
	}
	c, err := g.Config()
	if err != nil {
		return outcome, err
	}
	changed, err := g.applyLive(ctx, c)
	if changed {
		outcome = api.Changed
	}
	if err != nil {
		err = fmt.Errorf("it is configured, and goes on running as it was: %w", err)
	}
	return outcome, err
}

// keepPlaces keeps where addresses are that stay, since inventories do not say.
func keepPlaces(to *api.Network, old api.Network) {
	if to.Mode != api.ModeOwn || to.Mode != old.Mode || to.Dev != old.Dev || to.Places != nil {
		return
	}
	for _, p := range to.Addresses {
		if place, ok := old.Places[p.Addr()]; ok {
			if to.Places == nil {
				to.Places = map[netip.Addr]api.Place{}
			}
			to.Places[p.Addr()] = place
		}
	}
}

// applyLive applies the settings that can change live (setting.Table) to a running
// guest. Other addresses, another mode or another device need a restart: programs are
// bound to what was there when they began. It reports whether there was anything to do.
// If killed, it can be called again: what the guest runs with still differs from its
// configuration.
func (g *Guest) applyLive(ctx context.Context, c Config) (changed bool, err error) {
	n, err := g.notes()
	if errors.Is(err, fs.ErrNotExist) || err == nil && n.Runs == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	to := *n.Runs
	to.Boot = c.Boot // no process has it
	if err := g.limitLive(c, &to); err != nil {
		return false, err
	}
	if err := g.quotaLive(c, &to); err != nil {
		return false, err
	}
	enter, err := g.changeLive(c, n, &to)
	if err != nil {
		return false, err
	}
	network := liveNetwork(to, c.Guest)
	if network {
		_, unlock, err := g.host.lockClaims(ctx)
		if err != nil {
			return false, err
		}
		defer unlock() // once the change is noted
		if err := g.host.free(ctx, c.Guest, ""); err != nil {
			return false, err
		}
		on := g.onNetwork()
		on.Network = c.Network
		if err := n.mode().Update(ctx, on); err != nil {
			return false, err
		}
		to.Network = c.Network
	}
	if reflect.DeepEqual(to, *n.Runs) {
		return false, nil
	}
	after := *n
	// The packet filter is built from the notes, so if this vsnode is killed the next
	// one finishes the change.
	after.Runs, after.Enter, after.Done = &to, enter, n.Done && !network
	if network {
		if err := g.host.beforeClaim(); err != nil {
			return false, err
		}
		g.host.index.noteHolder(g.name, after)
	}
	if err := g.writeNotes(after); err != nil {
		return true, err
	}
	return true, g.finish(ctx)
}

// liveNetwork reports whether the guest's network differs from the configured one only
// in settings that can change while it runs.
func liveNetwork(has, to api.Guest) bool {
	same := has
	for _, row := range setting.In("network") {
		if row.Live.Possible() {
			row.Assign(&same, &to)
		}
	}
	return reflect.DeepEqual(same.Network, to.Network) && !reflect.DeepEqual(has.Network, to.Network)
}

// limitLive writes the settings that are files of the cgroup if any of them changes,
// and records them in runs. A limit that is no longer configured is lifted.
func (g *Guest) limitLive(c Config, runs *api.Guest) error {
	rows := slices.DeleteFunc(slices.Clone(setting.Table), func(row *setting.Row) bool { return row.CgroupFile() == "" })
	after := *runs
	for _, row := range rows {
		row.Assign(&after, &c.Guest)
	}
	if reflect.DeepEqual(after, *runs) {
		return nil
	}
	counted, err := g.countsProcesses()
	if err != nil {
		return err
	}
	if err := g.beforeProcessors(c, runs); err != nil {
		return err
	}
	for _, row := range rows {
		if row.CgroupFile() == pidsFile && !counted {
			continue // until the next start
		}
		row.Assign(runs, &c.Guest)
		if err := g.limitFile(row, c.Cgroup[row.CgroupFile()], c.Root); err != nil {
			return err
		}
	}
	return nil
}

// beforeProcessors lets the kernel accept any new quota of processors: it refuses one
// that is less than what may be saved up.
func (g *Guest) beforeProcessors(c Config, runs *api.Guest) error {
	if runs.Limits.CPUBurst == 0 || runs.Limits.CPUs == c.Limits.CPUs {
		return nil
	}
	return g.cgroup.Limit(g.mount, "cpu.max.burst", "0")
}

// changeLive gives running processes of the guest, and those that enter it from now
// on, the attributes that are configured.
func (g *Guest) changeLive(c Config, n *notes, runs *api.Guest) (*entry, error) {
	to := *runs
	for _, row := range setting.Table {
		if slices.Contains(ofProcesses, row.Key) {
			row.Assign(&to, &c.Guest)
		}
	}
	if reflect.DeepEqual(to, *runs) {
		return n.Enter, nil
	}
	if n.Enter == nil {
		return nil, errNoAttributes
	}
	if err := procctx.Change(g.cgroup, n.Enter.Attributes, c.Attributes); err != nil {
		return nil, err
	}
	*runs = to
	enter := *n.Enter
	enter.Attributes = c.Attributes
	return &enter, nil
}

// ofProcesses are the keys of settings that processes inherit.
var ofProcesses = []string{"nice", "ionice", "oom_score_adj", "limits.ulimits"}

// countsProcesses reports whether a cgroup limits the number of processes here. If not,
// the user namespace does, with a limit that is fixed at the start.
func (g *Guest) countsProcesses() (bool, error) { return cgroup.HasController(g.mount, "pids") }
