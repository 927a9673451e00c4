package guest

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// An effect is what vsnode does with a file of a guest's configuration.
type effect string

const (
	hasEffect    effect = "read"    // it does what it says, or asks for what every guest has
	noEffect     effect = "named"   // each start and status lists it
	refusesStart effect = "refused" // the guest does not start, unless the file ignore names it
)

// A knownFile is a file of the configuration tree, or a pattern of such files. The
// first that matches applies.
type knownFile struct {
	file   string // a pattern of path.Match; "dir/**" matches everything below dir
	effect effect
	why    string // its meaning; or why it has none, and what to use instead
}

const (
	noHelper = "there is no vshelper: a guest that ends stays stopped until the next start or vsfleet apply"
	noTuntap = "tun and tap devices are not made: mode nat (netns/nat) has a network of the guest's own"
	noCopy   = "a backup copy, which is not read"

	noSuchFile = "vsnode knows no such file"
)

// knownFiles are all files that util-vserver or vsnode reads. docs/configuration.md
// has the same table: go test ./node/guest -run TestEveryFileIsDocumented -update.
var knownFiles = sync.OnceValue(func() []knownFile { return slices.Concat(settingFiles(), hookFiles(""), filesOfGuests) })

var filesOfGuests = []knownFile{
	{"vdir", hasEffect, "link to the guest's own files; without it they are in `.defaults/vdirbase/NAME`"},
	{"run", hasEffect, "link to a file that holds the context while the guest runs"},
	{"cache", hasEffect, "what util-vserver kept there is not needed"},
	{"name", hasEffect, "a name to show; here it is that of the directory"},
	{"ignore", hasEffect, "files that do not keep the guest from starting: [below](#what-is-ignored)"},
	{"adopting", refusesStart, "taking the guest over was interrupted: vserver NAME adopt goes on"},
	{"context", hasEffect, "the number, 2 to 49151; without it the guest gets the first free automatic one at its first start, and keeps it"},
	{"image", hasEffect, "ID of the image below the guest's own files; without it, what `vdir` leads to is the whole root"},
	{"shell", hasEffect, "for `enter`; else `.defaults/shell`, `/bin/bash -login`, `/bin/sh -l` or `/bin/csh`"},
	{"bcapabilities", hasEffect, "capabilities: names add to the default set, `~` or `!` take away ([guests](guests.md#the-configuration-on-the-host))"},
	{"fstab", hasEffect, "mounts: [below](#mounts)"},
	{"fstab.local", hasEffect, "the same"},
	{"fstab.remote", hasEffect, "the same; every mount is made by the host"},
	{"flags", hasEffect, "[context flags](#flags-and-capabilities)"},
	{"cflags", hasEffect, "the same"},
	{"namespace", hasEffect, "every guest has its own mounts"},
	{"namespace-cleanup", hasEffect, "a guest sees its own mounts alone"},
	{"namespace-cleanup-skip", hasEffect, "nothing of the host's mounts is left to skip"},
	{"nonamespace-cleanup", hasEffect, "there is nothing to clean up"},
	{"noisy", hasEffect, "nothing to be noisy about"},
	{"credentials/*", hasEffect, "[credentials](secrets.md#credentials-for-systemd) for the guest's systemd, as files of root's alone"},
	{"uts/domainname", hasEffect, "NIS domain"},
	{"domainname", hasEffect, "the same, of an older tree"},
	{"uts/context", hasEffect, "the name of the context; util-vserver set it itself"},
	{"uts/*", noEffect, "system, release, version and machine are those of the host's kernel"},
	{"ulimits/*", hasEffect, "limits of each process, also of those that `enter` and `exec` start: [below](#limits)"},
	{"rlimits/*.min", hasEffect, "no kernel has ever read it"},
	{"rlimits/nproc*", hasEffect, "`cgroup/pids.max`"},
	{"rlimits/rss*", hasEffect, "in pages: `cgroup/memory.max`; `.soft` is `cgroup/memory.high`"},
	{"rlimits/**", refusesStart, "the kernel limits this for no group of processes: use ulimits/ for each process, cgroup/memory.max or cgroup/pids.max"},
	{"cgroup/name", noEffect, "a guest's cgroup is vservers/NAME"},
	{"cgroup/base", noEffect, "a guest's cgroup is vservers/NAME"},
	{"cgroup/*", hasEffect, "written to the file of that name in the guest's cgroup; files of cgroup v1 [are translated](#limits)"},
	{"nocgroup", noEffect, "every guest has a cgroup: its processes are found and ended by it"},
	{"cpuset/cpus", hasEffect, "`cgroup/cpuset.cpus`"},
	{"cpuset/mems", hasEffect, "`cgroup/cpuset.mems`"},
	{"cpuset/name", noEffect, "a guest's cpuset is its cgroup"},
	{"cpuset/nocreate", noEffect, "a guest's cpuset is its cgroup"},
	{"cpuset/virtualized", noEffect, "programs see the processors that they may use by sched_getaffinity(2); the file views changes /proc/cpuinfo"},
	{"cpuset/**", refusesStart, "for exclusive processors use cgroup/cpuset.cpus.partition"},
	{"sysctl/*/setting", hasEffect, "a kernel parameter, as kernel.shmmax, written from inside at start"},
	{"sysctl/*/value", hasEffect, "its value"},
	{"interfaces/dev", hasEffect, "device of interfaces that name none"},
	{"interfaces/prefix", hasEffect, "their prefix"},
	{"interfaces/mask", hasEffect, "their mask; a prefix goes before it"},
	{"interfaces/scope", hasEffect, "util-vserver ignored it too"},
	{"interfaces/novlandev", hasEffect, "no VLAN device is made"},
	{"interfaces/bcast", hasEffect, "their broadcast address; without it, or with `+`, the last of the prefix"},
	{"interfaces/lback", noEffect, "localhost of context N is 127.N>>8.N&255.1"},
	{"interfaces/vlandev", noEffect, "VLAN devices are not made: the host's network configuration has to"},
	{"interfaces/extip", noEffect, "addresses are not translated: mode nat (netns/nat) does"},
	{"interfaces/*/ip", hasEffect, "an address"},
	{"interfaces/*/dev", hasEffect, "the device it goes onto; those of a guest may differ"},
	{"interfaces/*/prefix", hasEffect, "the length of its network's prefix"},
	{"interfaces/*/mask", hasEffect, "the same, as 255.255.255.0; a prefix goes before it"},
	{"interfaces/*/nodev", hasEffect, "(is there or not) the host has the address: mode shared if all have it, else the guest has all its ports"},
	{"interfaces/*/only_ip", hasEffect, "the same, of an older tree"},
	{"interfaces/*/disabled", hasEffect, "(is there or not) this one does not count"},
	{"interfaces/*/scope", hasEffect, "util-vserver ignored it too"},
	{"interfaces/*/novlandev", hasEffect, "no VLAN device is made"},
	{"interfaces/*/name", hasEffect, "label of the address, which `ip address` shows as eth0:NAME; of IPv4 only"},
	{"interfaces/*/bcast", hasEffect, "its broadcast address; without it, or with `+`, the last of the prefix"},
	{"interfaces/*/peer", noEffect, "point-to-point addresses are not made: put it onto the device on the host, and say nodev"},
	{"interfaces/*/down", noEffect, "the device is switched on: an address on one that is off is of no use"},
	{"interfaces/*/vlandev", noEffect, "VLAN devices are not made: the host's network configuration has to"},
	{"interfaces/*/extip", noEffect, "addresses are not translated: mode nat (netns/nat) does"},
	{"interfaces/*/mac", noEffect, "dummy devices are not made: the host's network configuration has to"},
	{"interfaces/*/indirect", noEffect, "dummy devices are not made: the host's network configuration has to"},
	{"interfaces/*/tun", noEffect, noTuntap},
	{"interfaces/*/tap", noEffect, noTuntap},
	{"interfaces/*/nocsum", noEffect, noTuntap},
	{"interfaces/*/shared", noEffect, noTuntap},
	{"interfaces/*/uid", noEffect, noTuntap},
	{"interfaces/*/gid", noEffect, noTuntap},
	{"interfaces/*/linktype", noEffect, noTuntap},
	{"netns/nat", hasEffect, "(is there or not) mode nat"},
	{"nonetns", hasEffect, "a guest has no network of its own unless `netns/nat` is there"},
	{"netns/**", noEffect, "for a network of the guest's own use netns/nat"},
	{"ncontext", noEffect, "the network context has the number of the context"},
	{"noncontext", noEffect, "a guest cannot use the host's network without bounds"},
	{"nflags", hasEffect, "[network flags](#flags-and-capabilities)"},
	{"ncapabilities", hasEffect, "[network capabilities](#flags-and-capabilities)"},
	{"ccapabilities", hasEffect, "[context capabilities](#flags-and-capabilities)"},
	{"capabilities", noEffect, "of kernel 2.4; use bcapabilities"},
	{"umask", hasEffect, "[namespaces](#flags-and-capabilities) that the guest may make"},
	{"tag", noEffect, "files have no tags: on disk an owner is the guest's own id"},
	{"spaces/**", noEffect, "every guest has its own namespaces; the network's with netns/nat"},
	{"personality", hasEffect, "LINUX, then flags of personality(2), as UNAME26; of other types the start is refused"},
	{"ionice/class", hasEffect, "class of input and output: 1 realtime, 2 best-effort, 3 idle"},
	{"ionice/priority", hasEffect, "0 (first) to 7"},
	{"schedule", hasEffect, "the older form of `sched`: fill rate and interval on the first two lines"},
	{"sched/fill-rate", hasEffect, "ticks of each interval: with the flag sched_hard `cgroup/cpu.max` (all processors times fill rate / interval), with sched_prio or `idle-time` `cgroup/cpu.weight` (1/4 is 100)"},
	{"sched/interval", hasEffect, "see `sched/fill-rate`"},
	{"sched/priority-bias", hasEffect, "`cgroup/cpu.weight` of that nice value, -20 to 19"},
	{"sched/idle-time", hasEffect, "(is there or not) what others leave may be used: a weight, no limit"},
	{"sched/fill-rate2", hasEffect, "what others leave is shared by weight"},
	{"sched/interval2", hasEffect, "the same"},
	{"sched/tokens*", noEffect, "processors are handed out in periods of 100 ms; cgroup/cpu.max.burst lets a guest save some"},
	{"sched/*/*", refusesStart, "there are no buckets of single processors: use cgroup/cpuset.cpus, cgroup/cpu.max and cgroup/cpu.weight"},
	{"dlimits/*/directory", hasEffect, "the directory of the guest's own files (vdir), or one above it; of others the start is refused"},
	{"dlimits/*/space_total", hasEffect, "disk space in KiB, by [project quota](limits.md#disk); -1: no limit"},
	{"dlimits/*/space_soft", hasEffect, "KiB that it may exceed for the filesystem's time of grace; util-vserver has no such file"},
	{"dlimits/*/inodes_total", hasEffect, "number of files"},
	{"dlimits/*/inodes_soft", hasEffect, "number of files that it may exceed for a time"},
	{"dlimits/*/disabled", hasEffect, "(is there or not) this limit does not count"},
	{"dlimits/*/reserved", hasEffect, "0: a project quota keeps nothing for the guest's root; others are named"},
	{"nonamespace", noEffect, "every guest has its own mounts"},
	{"keepfds", noEffect, "no descriptor of the host's gets into a guest"},
	{"disabled", hasEffect, "the guest does not start at boot, whatever its mark, and commands for several guests pass it over"},
	{"legacy", noEffect, "there is no older tool to hand this guest to"},
	{"apps/init/style", hasEffect, "`plain`, `sysv`, `openrc` or `command`; without it `plain`"},
	{"apps/init/cmd.start", hasEffect, "what runs, one argument per line: process 1, or with `sysv` and `openrc` a child of one of ours"},
	{"apps/init/cmd.start-sync", hasEffect, "run in the guest by a start that waits, until it has ended"},
	{"apps/init/cmd.stop", hasEffect, "run in the guest by a stop, instead of a signal to process 1"},
	{"apps/init/cmd.stop-sync", noEffect, "stop waits for the last process of the guest by itself"},
	{"apps/init/cmd.prepare", noEffect, "what an init style needs in /run is there at each start"},
	{"apps/init/runlevel", hasEffect, "argument of `/sbin/init`; the runlevel of `sysv` (3) and `openrc` (default)"},
	{"apps/init/runlevel.start", hasEffect, "the same, and goes before it"},
	{"apps/init/runlevel.stop", hasEffect, "the runlevel that a stop of `sysv` (6) and `openrc` (shutdown) changes to"},
	{"apps/init/environment", hasEffect, "VAR=VALUE per line; else that of `.defaults`"},
	{"apps/init/sync", hasEffect, "each start waits until the guest is ready"},
	{"apps/init/killseq", hasEffect, "SIGNAL [SECONDS SIGNAL]… for what a stop has left; `15 5 9`"},
	{"apps/init/tty", hasEffect, "the terminal of the host that the messages of `vserver --defaulttty` go to"},
	{"apps/init/mtab", noEffect, "/etc/mtab is the guest's own file: make it a link to /proc/self/mounts"},
	{"apps/vshelper/sync-timeout", hasEffect, "seconds that a guest has to stop, and to become ready; 30"},
	{"apps/vshelper/**", noEffect, noHelper},
	{"apps/vshelper-methods/**", noEffect, noHelper},
	{"apps/vdevmap/*/device", hasEffect, "the path of a device in the guest: [devices](storage.md#devices)"},
	{"apps/vdevmap/*/target", hasEffect, "the path of the device on the host, if that is another"},
	{"apps/vdevmap/*/open", hasEffect, "(is there or not) the guest has the device"},
	{"apps/vdevmap/*/access", hasEffect, "`r` or `w`, for a device that the guest may only read or write"},
	{"apps/vdevmap/*/remap", hasEffect, "always so with a target"},
	{"apps/vdevmap/*/create", noEffect, "a guest makes no device nodes: vsnode makes those that open allows"},
	{"apps/vdevmap/**", noEffect, "a device has device, target, open and access"},
	{"apps/vunify/exclude", hasEffect, "files that `vserver NAME hashify` leaves alone: [images](images.md#hashify)"},
	{"apps/vunify/**", noEffect, noUnify},
	{"apps/pkgmgmt/**", noEffect, noPackages},
	{"apps/vlogin/**", noEffect, "enter always gives a terminal of the guest's own"},
}

// settingFiles returns the files of setting.Table.
func settingFiles() (list []knownFile) {
	for _, row := range setting.Table {
		for _, file := range append([]string{row.File}, row.Older...) {
			if file != "" {
				list = append(list, knownFile{file, hasEffect, row.FileDoc})
			}
		}
	}
	return list
}

func (m knownFile) matches(file string) bool {
	if !strings.Contains(m.file, "*") {
		return m.file == file
	}
	if dir, ok := strings.CutSuffix(m.file, "/**"); ok {
		return strings.HasPrefix(file, dir+"/")
	}
	ok, err := path.Match(m.file, file)
	return ok && err == nil
}

// isBackup reports whether a name is that of a copy made by an editor or a package
// manager. util-vserver skips most of these.
func isBackup(name string) bool {
	for _, suffix := range []string{
		"~", ".bak", ".orig", ".old", ".save", ".swp", ".rpmsave", ".rpmnew", ".rpmorig",
		".dpkg-old", ".dpkg-new", ".dpkg-dist", ".dpkg-bak", ".dpkg-tmp", ".ucf-old", ".ucf-dist",
	} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return strings.Contains(name, ".cfsaved") || len(name) > 1 && name[0] == '#' && name[len(name)-1] == '#'
}

// unread returns the files of a tree that have no effect, unknown files included:
// nothing is dropped silently.
func unread(files []string) (list []api.Unread) {
	for _, file := range files {
		if slices.ContainsFunc(strings.Split(file, "/"), isBackup) {
			list = append(list, api.Unread{File: file, Why: noCopy})
			continue
		}
		i := slices.IndexFunc(knownFiles(), func(m knownFile) bool { return m.matches(file) })
		switch {
		case i < 0:
			list = append(list, api.Unread{File: file, Why: noSuchFile})
		case knownFiles()[i].effect != hasEffect:
			list = append(list, api.Unread{File: file, Why: knownFiles()[i].why, Refuses: knownFiles()[i].effect == refusesStart})
		}
	}
	return list
}

// ignore lets a guest start in spite of what its "ignore" file lists: files,
// directories, or lines of a file, as "fstab:3".
func ignore(list []api.Unread, ignored []string) {
	for i, u := range list {
		file, _, _ := strings.Cut(u.File, ":")
		for _, word := range ignored {
			word = strings.TrimSuffix(word, "/")
			if word == u.File || word == file || strings.HasPrefix(file, word+"/") {
				list[i].Refuses = false
			}
		}
	}
}

// warnings returns the warnings for the administrator who starts the guest.
func (c Config) warnings() []string {
	var list []string
	for _, line := range api.Explain(c.Unread) {
		list = append(list, "no effect: "+line)
	}
	if c.Views == setting.LXCFS && !c.NoNesting {
		list = append(list, "views: what lxcfs shows keeps user namespaces inside from mounting a /proc or /sys of their own, as rootless podman and bubblewrap do: nesting: false, or views: host")
	}
	for _, m := range c.Mounts {
		if m.Exposed() {
			list = append(list, fmt.Sprintf("%s: users of this host can reach %s and run programs there that the guest's root makes setuid to the host's root: chmod o-x a directory above it", m.Line, m.Source))
		}
	}
	return list
}

// refusal returns the error for files that keep a guest from starting, or nil.
func refusal(dir string, list []api.Unread) error {
	stop := api.Refusing(list)
	if len(stop) == 0 {
		return nil
	}
	return fmt.Errorf("its configuration in %s asks for what is not possible: %s; to start without it, list the file in %s/ignore", dir, strings.Join(api.Explain(stop), "; "), dir)
}
