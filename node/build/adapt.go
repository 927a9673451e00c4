package build

import (
	"context"
	"fmt"
	"os"
	"path"
)

// adapt makes a fresh Debian fit to be cloned and to run as a guest: what
// Linux-VServer's initpost scripts did, for a system with systemd.
func adapt(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
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
	for _, name := range []string{
		"etc/hostname",   // a guest gets its own
		"etc/machine-id", // systemd makes one at the first start
		"etc/fstab",      // a guest's mounts are made before it starts
	} {
		if err := root.Remove(name); err != nil && !missing(err) {
			return err
		}
		if err := write(root, name, "", 0o644); err != nil {
			return err
		}
	}
	if _, err := root.Lstat("etc/hosts"); missing(err) {
		if err := write(root, "etc/hosts", "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n", 0o644); err != nil {
			return err
		}
	}
	if _, err := root.Stat("usr/bin/systemctl"); err == nil {
		return systemd(root)
	}
	return nil
}

// write makes a file with these permissions, whatever vsnode's umask is.
func write(root *os.Root, name, content string, mode os.FileMode) error {
	if err := root.WriteFile(name, []byte(content), mode); err != nil {
		return err
	}
	return root.Chmod(name, mode)
}

// scrub removes what is the building host's, what must not be the same in two
// guests, and what is only weight.
func scrub(root *os.Root) error {
	for _, name := range []string{
		policy,
		"etc/resolv.conf", // the host's: mmdebstrap and debootstrap copy it in
		"var/lib/dbus/machine-id",
		"var/lib/systemd/random-seed",
		"etc/apt/apt.conf.d/99mmdebstrap", // what we told the tool for the build
		"etc/dpkg/dpkg.cfg.d/99mmdebstrap",
		"var/log/bootstrap.log", "var/log/dpkg.log", "var/log/alternatives.log",
		"var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin",
	} {
		if err := root.Remove(name); err != nil && !missing(err) {
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

// empty removes what matches in a directory, if there is one.
func empty(root *os.Root, dir, pattern string) error {
	d, err := root.Open(dir)
	if missing(err) {
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
		if err := root.RemoveAll(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// masked are the units that serve hardware, the kernel or a console that a
// guest does not have. Left alone they fail, one by one, at each start.
var masked = []string{
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
	// disks, boot and clock
	"systemd-remount-fs.service", "systemd-random-seed.service", "systemd-boot-update.service",
	"systemd-pcrphase-sysinit.service", "systemd-pcrphase.service", "systemd-timesyncd.service",
	"e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
	// the network is the host's to set, and is there before the guest is
	"networking.service", "ifupdown-wait-online.service", "ifup@.service",
	"systemd-networkd-wait-online.service", "NetworkManager-wait-online.service",
}

// hostKeys is there because Debian's openssh-server makes host keys when it is
// installed, and at no other time.
const hostKeys = `[Unit]
Description=OpenSSH host keys of this guest
ConditionPathExists=/usr/bin/ssh-keygen
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service ssh.socket

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
`

func systemd(root *os.Root) error {
	const units = "etc/systemd/system/"
	const wants = units + "multi-user.target.wants"
	if err := root.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := root.Chmod(wants, 0o755); err != nil {
		return err
	}
	links := map[string]string{"default.target": "/lib/systemd/system/multi-user.target"}
	for _, unit := range masked {
		links[unit] = "/dev/null"
	}
	if _, err := root.Stat("usr/sbin/sshd"); err == nil {
		if err := write(root, units+"ssh-host-keys.service", hostKeys, 0o644); err != nil {
			return err
		}
		links["multi-user.target.wants/ssh-host-keys.service"] = "/etc/systemd/system/ssh-host-keys.service"
	}
	for name, to := range links {
		if err := root.Remove(units + name); err != nil && !missing(err) {
			return err
		}
		if err := root.Symlink(to, units+name); err != nil {
			return err
		}
	}
	return nil
}
