package builder

import (
	"bytes"
	"context"
	"errors"
	"os"
)

// ErrNothingNewer means that there are no newer packages than the last version has.
var ErrNothingNewer = errors.New("there are no newer packages")

// upgradeLine upgrades all packages. Nobody has changed configuration files, and the whole
// tree is synced once when it is complete.
const upgradeLine = `apt-get -q update; exec apt-get -q -y -o Acquire::Languages=none -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confnew dist-upgrade`

// An upgrade copies the last version of an image that debootstrap made, and upgrades its
// packages by its own apt. As in a build by debootstrap, scripts of packages run as the
// host's root: this is for images that nothing but packages went into.
type upgrade struct{}

func (upgrade) fill(ctx context.Context, req Request) error {
	req.Progress.Report("copying the last version", 0, 0)
	if err := req.Last(ctx, req.Dir); err != nil {
		return err
	}
	root, err := openInstallation(req.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	const database = "var/lib/dpkg/status"
	before, err := root.ReadFile(database)
	if err != nil {
		return err
	}
	for _, name := range []string{"dev", "proc", "sys"} { // no links out: something is mounted there
		if err := root.remove(name); err != nil {
			return err
		}
	}
	if err := forbidDaemons(req.Dir); err != nil {
		return err
	}
	names, err := os.ReadFile("/etc/resolv.conf") // adapt removes it
	if isMissing(err) {
		err = nil // a mirror may be on the host, or given by its address
	}
	if err == nil {
		err = root.remove("etc/resolv.conf")
	}
	if err == nil {
		err = root.write("etc/resolv.conf", string(names), 0o644)
	}
	if err != nil {
		return err
	}
	err = tool(ctx, req, program{path: "/bin/sh", args: []string{"-ec", mounts, "sh", req.Dir, "chroot", req.Dir, "/bin/sh", "-ec", upgradeLine}, what: "apt-get"})
	if err != nil {
		return err
	}
	if after, err := root.ReadFile(database); err != nil || bytes.Equal(before, after) {
		return errors.Join(err, ErrNothingNewer)
	}
	req.Progress.Report("making it fit for guests", 0, 0)
	return adapt(ctx, req.Dir)
}
