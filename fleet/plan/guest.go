package plan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// resolve returns the configuration that the host should have of a guest.
func resolve(want *inventory.Guest, host api.Host) (api.Guest, error) {
	g := want.Guest
	g.Image = "" // chosen from what the host has
	g.Hostname = cmp.Or(g.Hostname, g.Name)
	g.Init.Style = cmp.Or(g.Init.Style, "plain")
	if want.HostAddress {
		if !host.DefaultAddress.IsValid() {
			return g, errors.New("it shares the host's address, and the host has none that is not local: give the guest one with network: {address: …}")
		}
		g.Network.Addresses = []netip.Prefix{host.DefaultAddress}
	}
	if g.Network.Mode == api.ModeOwn {
		if g.Network.Dev = cmp.Or(want.Network.Dev, host.DefaultDev); g.Network.Dev == "" {
			return g, errors.New("its addresses need a network device, and the host has no default route to tell which: give the host a netdev")
		}
	}
	return g, limitable(&g, host)
}

// limitable refuses limits that the host could not hold: a guest that only
// seems to be limited is worse than none. Processes are bounded without a
// controller, too.
func limitable(g *api.Guest, host api.Host) error {
	if g.Limits.Disk() && host.NoQuota != "" {
		return fmt.Errorf("the host cannot limit its disk space: %s; or take disk and inodes out of its limits", host.NoQuota)
	}
	var errs []string
	for _, row := range setting.Table {
		if row.Controller != "" && row.Text(g) != "" && !slices.Contains(host.Controllers, row.Controller) {
			errs = append(errs, fmt.Sprintf("%s (controller %s)", row.Plan, row.Controller))
		}
	}
	if errs == nil {
		return nil
	}
	return fmt.Errorf("the host's cgroup v2 cannot limit %s: boot it with cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1, or take the limit out", strings.Join(errs, ", "))
}

// stranger refuses a context that belongs to a guest which is not in the
// inventory. Other clashes with such a guest are refused by the host, before it
// stops anything.
func stranger(g api.Guest, strangers map[int]string) error {
	if name := strangers[g.Context]; name != "" && g.Context != 0 {
		return fmt.Errorf("context %d is guest %s's, which is on the host and not in the inventory: give that one state: absent there, or another context", g.Context, name)
	}
	return nil
}

// startable refuses to start a guest that its configuration on the host would
// keep from starting.
func startable(want *inventory.Guest, now *api.GuestState) error {
	refusing := api.Refusing(now.Unread)
	if len(refusing) == 0 || now.Status == api.Running || want.State != inventory.Running {
		return nil
	}
	return fmt.Errorf("it would not start: its configuration on the host says what cannot be had: %s", strings.Join(api.Explain(refusing), "; "))
}

// create returns the steps for a guest that the host does not have.
func create(g api.Guest, state string) []api.Step {
	steps := []api.Step{{Kind: api.StepCreate, Name: g.Name, Guest: &g, Why: "it is not on the host"}}
	if state == inventory.Running {
		steps = append(steps, api.Step{Kind: api.StepStart, Name: g.Name, Why: "the inventory says running"})
	}
	return steps
}

// alter returns the steps that turn the guest on the host into the wanted one.
func (c *comparison) alter(g api.Guest, spec api.ImageSpec, now api.GuestState, state string) []api.Step {
	running := now.Status == api.Running
	why, restart, stop := reasons(now, func(have api.Guest) []difference { return c.differences(g, spec, have) })
	stop = stop || running && state == inventory.Stopped
	step := func(kind api.StepKind, why string) api.Step { return api.Step{Kind: kind, Name: g.Name, Why: why} }
	var steps []api.Step
	switch {
	case stop && state == inventory.Stopped:
		steps = append(steps, step(api.StepStop, "the inventory says stopped"))
	case stop:
		steps = append(steps, step(api.StepStop, "its context cannot change while it runs"))
	}
	if why != "" {
		steps = append(steps, api.Step{Kind: api.StepConfigure, Name: g.Name, Guest: &g, Why: why})
	}
	switch {
	case state != inventory.Running:
	case stop:
		steps = append(steps, step(api.StepStart, "the inventory says running"))
	case !running:
		is := "stopped"
		if now.Ended != nil {
			is += " (" + now.Ended.String() + ")"
		}
		steps = append(steps, step(api.StepStart, "it is "+is+", the inventory says running"))
	case restart:
		steps = append(steps, step(api.StepRestart, "so that it takes its new configuration"))
	case len(now.Drift) > 0:
		steps = append(steps, step(api.StepRepair, strings.Join(now.Drift, "; ")))
	}
	return steps
}

// differences returns how the wanted guest differs from one that the host has.
func (c *comparison) differences(g api.Guest, spec api.ImageSpec, have api.Guest) []difference {
	was, is := c.imageNames(have.Image, g.Image, spec)
	return differences(g, have, was, is, c.host.Controllers)
}

// reasons returns why a guest has to be configured, and whether it has to be
// restarted, or stopped while it is configured. compare returns how the wanted
// guest differs from another.
func reasons(now api.GuestState, compare func(have api.Guest) []difference) (why string, restart, stop bool) {
	diffs := compare(now.Guest)
	var texts []string
	for _, d := range diffs {
		texts = append(texts, d.text())
	}
	if now.Problem != "" {
		diffs, texts = []difference{{restart: true}}, []string{"its configuration cannot be used: " + now.Problem}
	}
	// A guest may run with other settings than are configured: an earlier run
	// was killed in between, or somebody edited files.
	running, behind := now.Status == api.Running, diffs
	if running && now.Runs != nil {
		behind = compare(*now.Runs)
	}
	for _, d := range behind {
		restart = restart || d.restart
		stop = stop || running && d.stop
		if len(diffs) == 0 && !d.restart {
			texts = append(texts, "it still runs with "+d.text())
		}
	}
	return strings.Join(texts, "; "), restart, stop
}

// imageNames returns the names of the image that a guest has and of the wanted
// one. If the names are equal, each is followed by its version, or by the start of its
// digest.
func (c *comparison) imageNames(has, wanted string, spec api.ImageSpec) (was, is string) {
	is = spec.Name
	i := slices.IndexFunc(c.built, func(image api.Image) bool { return image.ID == has })
	switch {
	case has == "":
		return "", is
	case i < 0:
		return short(has), is
	case c.built[i].Spec.Name != is:
		return c.built[i].Spec.Name, is
	case wanted == "":
		return is + c.version(has), is + " (not there yet)"
	}
	return is + c.version(has), is + c.version(wanted)
}

// version returns what tells an image from others of its name.
func (c *comparison) version(id string) string {
	if c.rules.Versions != nil {
		if n := c.rules.Versions.Number(id); n > 0 {
			return "@" + strconv.Itoa(n)
		}
	}
	return " (" + short(id) + ")"
}

// short returns the start of an image's digest, long enough to tell images apart.
func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}
