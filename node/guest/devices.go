package guest

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/devices"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// vdevmap is the directory of a guest's devices, one in each subdirectory:
//
//	device  its path in the guest
//	target  its path on the host, if that is another
//	open    (is there or not) the guest may open it
//	access  r or w, if it may not do both
const vdevmap = "apps/vdevmap"

// readDevices also reads the entries of an old tree.
func (c *Config) readDevices(t *tree) error {
	for _, n := range t.subdirs(vdevmap) {
		file := func(name string) string { return vdevmap + "/" + n + "/" + name }
		text := t.scalar(file("device"))
		switch {
		case text == "" && t.has(file("target")), text != "" && !t.has(file("open")):
			c.Unread = append(c.Unread, api.Unread{File: vdevmap + "/" + n, Why: "it has no effect: a device needs its path in device and a file open"})
			continue
		case text == "":
			continue
		}
		if target := t.scalar(file("target")); target != "" {
			text = target + ":" + text
		}
		if access := t.scalar(file("access")); access != "" {
			text += ":" + access
		}
		d, err := setting.ParseDevice(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file("device"), err)
		}
		c.Guest.Devices = append(c.Guest.Devices, d)
	}
	return nil
}

// writeDevices adds the files of a guest's devices.
func writeDevices(g *api.Guest, text map[string]string) {
	for i, d := range g.Devices {
		dir := vdevmap + "/" + strconv.Itoa(i) + "/"
		text[dir+"device"], text[dir+"open"] = scalar(d.Target), present
		if d.Target != d.Source {
			text[dir+"target"] = scalar(d.Source)
		}
		if d.Access != "rw" {
			text[dir+"access"] = scalar(d.Access)
		}
	}
}

// confineDevices looks for the host's devices that the guest may use, and refuses it all
// others.
func (s *start) confineDevices(context.Context) error {
	var nodes []devices.Node
	for _, d := range s.config.Guest.Devices {
		n, err := devices.Stat(d.Source)
		if err != nil {
			return fmt.Errorf("device %s: %w", d, err)
		}
		n.Read, n.Write = strings.Contains(d.Access, "r"), strings.Contains(d.Access, "w")
		nodes = append(nodes, n)
		s.spec.Devices = append(s.spec.Devices, procctx.Device{
			Name: strings.TrimPrefix(d.Target, "/dev/"), Mode: n.Mode, Major: n.Major, Minor: n.Minor,
		})
	}
	return devices.Attach(s.spec.Cgroup, nodes)
}
