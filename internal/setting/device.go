package setting

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// A Device is a device of the host's that a guest may use.
type Device struct {
	Source string `json:"source"` // below /dev on the host
	Target string `json:"target"` // below /dev in the guest
	Access string `json:"access"` // "r", "w" or "rw"
}

const maxDevices = 32

const wantDevice = "want a path below /dev, as /dev/fuse, or HOST:GUEST:ACCESS, as /dev/dri/renderD129:/dev/dri/renderD128:rw"

// ParseDevice parses HOST[:GUEST][:ACCESS], as --device of podman-run(1).
func ParseDevice(s string) (Device, error) {
	words := strings.Split(s, ":")
	d := Device{Source: words[0], Target: words[0], Access: "rwm"}
	if n := len(words) - 1; n > 0 && !strings.HasPrefix(words[n], "/") {
		d.Access, words = words[n], words[:n]
	}
	switch {
	case len(words) > 2:
		return d, fmt.Errorf("%s, have %q", wantDevice, s)
	case len(words) == 2:
		d.Target = words[1]
	}
	// No guest can make device nodes, m or not.
	access := strings.ReplaceAll(d.Access, "m", "")
	if access == "wr" {
		access = "rw"
	}
	d.Access = access
	if err := d.check(); err != nil {
		return d, fmt.Errorf("%w, have %q", err, s)
	}
	return d, nil
}

func (d Device) check() error {
	for _, p := range []string{d.Source, d.Target} {
		if !strings.HasPrefix(p, "/dev/") || p != path.Clean(p) || !printable(p) || strings.ContainsAny(p, ":, \t") {
			return errors.New(wantDevice)
		}
	}
	if !slices.Contains([]string{"r", "w", "rw"}, d.Access) {
		return errors.New("access: want r, w or rw")
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(d.Target, "/dev/"), "/")
	if slices.Contains(ownDevices, first) {
		return fmt.Errorf("every guest has a /dev/%s of its own", first)
	}
	return nil
}

// ownDevices are the names in the /dev of every guest.
var ownDevices = []string{"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "console",
	"fd", "stdin", "stdout", "stderr", "log", "initctl"}

// String writes a device as ParseDevice reads it, as short as possible.
func (d Device) String() string {
	s := d.Source
	if d.Target != d.Source {
		s += ":" + d.Target
	}
	if d.Access != "rw" {
		s += ":" + d.Access
	}
	return s
}

// tun is the device that makes network devices where the program that opens it is.
const tun = "/dev/net/tun"

func checkDevices(g *Guest) error {
	if len(g.Devices) > maxDevices {
		return fmt.Errorf("%d of them, at most %d are possible", len(g.Devices), maxDevices)
	}
	seen := map[string]bool{}
	for _, d := range g.Devices {
		switch err := d.check(); {
		case err != nil:
			return fmt.Errorf("%s: %w", d, err)
		case seen[d.Target]:
			return fmt.Errorf("%s: it is there twice", d.Target)
		case d.Source == tun && g.Network.Mode != NAT:
			return errors.New(tun + " needs mode nat: elsewhere the network, and so the devices that it makes, are the host's")
		}
		seen[d.Target] = true
	}
	return nil
}
