package builder

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// adapt makes a new Debian installation fit to be cloned, as Linux-VServer's initpost
// scripts did.
func adapt(ctx context.Context, dir string) error {
	root, err := openInstallation(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Stat("var/lib/dpkg/status"); err != nil {
		return fmt.Errorf("the tool ended well and left no installation: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := scrub(root); err != nil {
		return err
	}
	return blank(root)
}

// blank empties what a new installation has of a machine, and names the guest itself.
func blank(root *installation) error {
	for _, name := range []string{
		"etc/hostname", // a guest gets its own
		"etc/fstab",    // a guest's mounts are made before it starts
	} {
		if err := root.makeDir("etc"); err != nil {
			return err
		}
		if err := root.remove(name); err != nil {
			return err
		}
		if err := root.write(name, "", 0o644); err != nil {
			return err
		}
	}
	if _, err := root.Lstat("etc/hosts"); isMissing(err) {
		return root.write("etc/hosts", hosts, 0o644)
	}
	return nil
}

const hosts = "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n"

// forgetIdentity removes what the copy of a system must not share with the system: each
// could pose as the other.
func forgetIdentity(dir string) error {
	root, err := openInstallation(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := empty(root, "etc/ssh", "ssh_host_*"); err != nil {
		return err
	}
	if info, err := root.Lstat("etc/hostname"); err == nil && info.Mode().IsRegular() {
		return root.write("etc/hostname", "", 0o644)
	}
	return nil
}

// fit adapts a tree from any method to run as several guests, according to what it
// contains.
func fit(req Request) error {
	root, err := openInstallation(req.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if keys, err := fs.Glob(root.FS(), "etc/ssh/ssh_host_*_key"); err != nil {
		return err
	} else if len(keys) > 0 {
		req.Progress.Warn("the image holds SSH host keys (" + path.Base(keys[0]) + "): all its guests have the same, and each can pose as the others; leave etc/ssh/ssh_host_* out and each gets its own")
	}
	units, on := systemdUnits(root)
	if err := forgetMachine(root, on); err != nil {
		return err
	}
	if _, err := root.Lstat(inittab); err != nil && !on {
		if isMissing(err) {
			return nil // no init that reads the files below
		}
		return err
	}
	if err := commentOut(root, "etc/fstab", isDisk); err != nil {
		return err
	}
	if err := commentOut(root, inittab, isGetty); err != nil || !on {
		return err
	}
	return systemd(root, units)
}

// systemdUnits returns the directory of units of a tree with systemd.
func systemdUnits(root *installation) (dir string, on bool) {
	for _, lib := range []string{"usr/lib", "lib"} { // /lib: distributions before the /usr merge
		if _, err := root.Stat(lib + "/systemd/systemd"); err == nil {
			return "/" + lib + "/systemd/system", true
		}
	}
	return "", false
}

// forgetMachine removes what identifies a machine and must not be the same in two
// guests. If machine-id is empty, systemd makes one at the first start; others make
// one if the file is missing.
func forgetMachine(root *installation, systemd bool) error {
	for _, name := range []string{"etc/machine-id", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed"} {
		// A link leads to the other file.
		if info, err := root.Lstat(name); isMissing(err) || err == nil && info.Mode()&fs.ModeSymlink != 0 {
			continue
		}
		if err := root.remove(name); err != nil {
			return err
		}
	}
	if !systemd {
		return nil
	}
	if err := root.makeDir("etc"); err != nil {
		return err
	}
	return root.write("etc/machine-id", "", 0o644)
}

// inittab is the configuration of sysvinit and of OpenRC's and busybox's init.
const inittab = "etc/inittab"

// isDisk reports whether a line of fstab mounts a disk: systemd would wait for each
// disk until it times out, and if one cannot be checked, sysvinit asks an
// administrator on the console.
func isDisk(line string) bool {
	f := strings.Fields(line)
	return len(f) > 2 && (strings.HasPrefix(f[0], "/dev/") || strings.Contains(f[0], "=") || f[2] == "swap")
}

// isGetty reports whether a line of inittab would be respawned forever on a terminal
// that a guest does not have, and fill the guest's log.
func isGetty(line string) bool {
	f := strings.SplitN(line, ":", 4)
	return len(f) == 4 && strings.Contains(f[3], "getty")
}

// commentOut comments out lines of a configuration file, if the file exists.
func commentOut(root *installation, name string, match func(line string) bool) error {
	info, err := root.Lstat(name)
	if isMissing(err) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := root.ReadFile(name)
	if err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") && match(line) {
			out.WriteString("# not in a guest: ")
		}
		out.WriteString(line)
	}
	if out.Len() == len(b) {
		return nil
	}
	return root.write(name, out.String(), info.Mode().Perm())
}

// scrub removes what belongs to the building host, what must not be the same in two
// guests, and what only takes space.
func scrub(root *installation) error {
	for _, name := range []string{
		policy,
		"etc/resolv.conf",                 // the host's: mmdebstrap and debootstrap copy it in
		"etc/apt/apt.conf.d/99mmdebstrap", // what we told the tool for the build
		"etc/dpkg/dpkg.cfg.d/99mmdebstrap",
		"var/log/bootstrap.log", "var/log/dpkg.log", "var/log/alternatives.log",
		"var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin",
	} {
		if err := root.remove(name); err != nil {
			return err
		}
	}
	for dir, pattern := range map[string]string{
		"etc/ssh":                "ssh_host_*", // one key for all guests would let each pose as the others
		"var/lib/apt/lists":      "*_*",
		"var/cache/apt/archives": "*.deb",
		"var/log/apt":            "*",
	} {
		if err := empty(root, dir, pattern); err != nil {
			return err
		}
	}
	return nil
}

// empty removes the files of a directory that match, if the directory exists.
func empty(root *installation, dir, pattern string) error {
	d, err := root.Open(dir)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if ok, err := path.Match(pattern, name); err != nil {
			return err
		} else if !ok {
			continue
		}
		if err := root.remove(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// maskedUnits are the units for hardware, the kernel or a console, which a guest does not
// have. Unless masked, they fail at each start.
var maskedUnits = []string{
	// devices
	"systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
	"systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-hwdb-update.service",
	"systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service",
	// terminals
	"getty.target", "getty@.service", "serial-getty@.service", "console-getty.service", "container-getty@.service",
	// the host's kernel
	"kmod-static-nodes.service", "systemd-modules-load.service", "modprobe@.service", "systemd-sysctl.service",
	"systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount",
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount",
	"sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount",
	"systemd-pstore.service", "systemd-journald-audit.socket", "systemd-oomd.service", "systemd-oomd.socket",
	// of packages that others recommend: NFS mounts (nfs-common) and NVMe over networks (nvme-cli)
	"run-rpc_pipefs.mount", "nvmf-autoconnect.service",
	// disks, boot and clock
	"systemd-remount-fs.service", "systemd-random-seed.service", "systemd-boot-update.service",
	"systemd-pcrphase-sysinit.service", "systemd-pcrphase.service", "systemd-timesyncd.service",
	"e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
	// the network is the host's to set, and is there before the guest is
	"networking.service", "ifupdown-wait-online.service", "ifup@.service",
	"systemd-networkd-wait-online.service", "NetworkManager-wait-online.service",
}

// systemd masks the units that a guest has no use for, and sets the default target of
// a server.
func systemd(root *installation, lib string) error {
	const units = "etc/systemd/system/"
	if err := root.makeDir("etc/systemd/system"); err != nil {
		return err
	}
	links := map[string]string{}
	// Without a link, systemd's default is the graphical target.
	if to, err := root.Readlink(units + "default.target"); isMissing(err) || path.Base(to) == "graphical.target" {
		links["default.target"] = lib + "/multi-user.target"
	}
	for _, unit := range maskedUnits {
		links[unit] = "/dev/null"
	}
	for name, to := range links {
		if err := root.link(units+name, to); err != nil {
			return err
		}
	}
	return nil
}
