package plan

import (
	"strings"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Drift is one thing that a host has otherwise than the inventory wants it.
type Drift struct {
	Guest string
	What  string // "guest", "state", "file /etc/motd", "network", or a setting as plans name it
	Have  string // empty: none
	Want  string // empty: as it was set up
}

func (c *comparison) drift(guest, what, have, want string) {
	c.plan.Drift = append(c.plan.Drift, Drift{Guest: guest, What: what, Have: have, Want: want})
}

// guestDrift records how a guest of the host differs from the wanted one, g. files is
// nil if it is not known which files it has.
func (c *comparison) guestDrift(want *inventory.Guest, g api.Guest, spec api.ImageSpec, now *api.GuestState, files *api.GuestFilesState) {
	name := g.Name
	if now.Problem != "" {
		c.drift(name, "configuration", now.Problem, "")
	} else {
		for _, d := range c.differences(g, spec, now.Guest) {
			c.drift(name, d.setting, d.have, d.want)
		}
	}
	if now.Status == api.Running && now.Runs != nil {
		for _, d := range c.differences(now.Guest, spec, *now.Runs) {
			c.drift(name, d.setting+" (running)", d.have, d.want)
		}
	}
	if status := string(now.Status); status != want.State && want.State != "" {
		if now.Ended != nil {
			status += " (" + now.Ended.String() + ")"
		}
		c.drift(name, "state", status, want.State)
	}
	for _, item := range now.Drift {
		c.drift(name, "running", item, "")
	}
	if files == nil {
		return
	}
	for _, f := range files.Files {
		c.drift(name, "file "+f.Path, f.Differs, "")
	}
	for _, o := range files.Pending {
		what := strings.Join(o.Command, " ")
		if o.Restart {
			what = "a restart"
		}
		c.drift(name, "files", "changed, without "+what, "")
	}
}
