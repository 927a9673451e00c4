package guest

import (
	"fmt"
	"path"
	"slices"
	"strings"

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
	why    string // without effect or refused: the reason, and what to use instead
}

const (
	noHooks  = "hooks are not run: let the guest's own init do it, or a unit of the host"
	noStart  = "nothing starts guests when the host boots: vsfleet apply does, for those of its inventory"
	noHelper = "there is no vshelper: a guest that ends stays stopped until the next start or vsfleet apply"
	noTuntap = "tun and tap devices are not made: mode nat (netns/nat) has a network of the guest's own"
	noCopy   = "a backup copy, which is not read"
)

// knownFiles are all files that util-vserver or vsnode reads. docs/linux-vserver.md
// has the same table: go test ./node/guest -run TestEveryFileIsDocumented -update.
var knownFiles = append(settingFiles(), []knownFile{
	{"vdir", hasEffect, ""},
	{"run", hasEffect, ""},
	{"cache", hasEffect, ""},
	{"name", hasEffect, ""},
	{"ignore", hasEffect, ""},
	{"context", hasEffect, ""},
	{"image", hasEffect, ""},
	{"shell", hasEffect, ""},
	{"bcapabilities", hasEffect, ""},
	{"fstab", hasEffect, ""},
	{"fstab.local", hasEffect, ""},
	{"fstab.remote", hasEffect, ""},
	{"flags", hasEffect, ""},
	{"cflags", hasEffect, ""},
	{"namespace", hasEffect, ""}, // every guest has what these ask for
	{"namespace-cleanup", hasEffect, ""},
	{"namespace-cleanup-skip", hasEffect, ""},
	{"nonamespace-cleanup", hasEffect, ""},
	{"noisy", hasEffect, ""},
	{"uts/domainname", hasEffect, ""},
	{"domainname", hasEffect, ""},
	{"uts/context", hasEffect, ""},
	{"uts/*", noEffect, "system, release, version and machine are those of the host's kernel"},
	{"ulimits/*", hasEffect, ""},
	{"rlimits/*.min", hasEffect, ""}, // no kernel has ever read it
	{"rlimits/nproc*", hasEffect, ""},
	{"rlimits/rss*", hasEffect, ""},
	{"rlimits/**", refusesStart, "the kernel limits this for no group of processes: use ulimits/ for each process, cgroup/memory.max or cgroup/pids.max"},
	{"cgroup/name", noEffect, "a guest's cgroup is vservers/NAME"},
	{"cgroup/base", noEffect, "a guest's cgroup is vservers/NAME"},
	{"cgroup/*", hasEffect, ""},
	{"nocgroup", noEffect, "every guest has a cgroup: its processes are found and ended by it"},
	{"cpuset/cpus", hasEffect, ""},
	{"cpuset/mems", hasEffect, ""},
	{"cpuset/name", noEffect, "a guest's cpuset is its cgroup"},
	{"cpuset/nocreate", noEffect, "a guest's cpuset is its cgroup"},
	{"cpuset/virtualized", noEffect, "programs see the processors that they may use by sched_getaffinity(2); /proc/cpuinfo is the host's"},
	{"cpuset/**", refusesStart, "for exclusive processors use cgroup/cpuset.cpus.partition"},
	{"sysctl/*/setting", hasEffect, ""},
	{"sysctl/*/value", hasEffect, ""},
	{"interfaces/dev", hasEffect, ""},
	{"interfaces/prefix", hasEffect, ""},
	{"interfaces/mask", hasEffect, ""},
	{"interfaces/scope", hasEffect, ""}, // util-vserver reads it and ignores it
	{"interfaces/novlandev", hasEffect, ""},
	{"interfaces/bcast", noEffect, "the broadcast address follows from the prefix"},
	{"interfaces/lback", noEffect, "localhost of context N is 127.N>>8.N&255.1"},
	{"interfaces/vlandev", noEffect, "VLAN devices are not made: the host's network configuration has to"},
	{"interfaces/extip", noEffect, "addresses are not translated: mode nat (netns/nat) does"},
	{"interfaces/*/ip", hasEffect, ""},
	{"interfaces/*/dev", hasEffect, ""},
	{"interfaces/*/prefix", hasEffect, ""},
	{"interfaces/*/mask", hasEffect, ""},
	{"interfaces/*/nodev", hasEffect, ""},
	{"interfaces/*/only_ip", hasEffect, ""}, // an old name of nodev
	{"interfaces/*/disabled", hasEffect, ""},
	{"interfaces/*/scope", hasEffect, ""},
	{"interfaces/*/novlandev", hasEffect, ""},
	{"interfaces/*/name", noEffect, "addresses have no labels (eth0:NAME): ip address show lists them without"},
	{"interfaces/*/bcast", noEffect, "the broadcast address follows from the prefix"},
	{"interfaces/*/peer", noEffect, "point-to-point addresses are not made: put it onto the device on the host, and say nodev"},
	{"interfaces/*/down", noEffect, "the device stays as the host has it"},
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
	{"netns/nat", hasEffect, ""},
	{"nonetns", hasEffect, ""},
	{"netns/**", noEffect, "for a network of the guest's own use netns/nat"},
	{"ncontext", noEffect, "the network context has the number of the context"},
	{"noncontext", noEffect, "a guest cannot use the host's network without bounds"},
	{"nflags", hasEffect, ""}, // oldLists, word by word
	{"ncapabilities", hasEffect, ""},
	{"ccapabilities", hasEffect, ""},
	{"capabilities", noEffect, "of kernel 2.4; use bcapabilities"},
	{"umask", hasEffect, ""},
	{"tag", noEffect, "files have no tags: on disk an owner is the guest's own id"},
	{"spaces/**", noEffect, "every guest has its own namespaces; the network's with netns/nat"},
	{"personality", hasEffect, ""},
	{"ionice/class", hasEffect, ""},
	{"ionice/priority", hasEffect, ""},
	{"badness", hasEffect, ""},
	{"schedule", hasEffect, ""},
	{"sched/fill-rate", hasEffect, ""},
	{"sched/interval", hasEffect, ""},
	{"sched/priority-bias", hasEffect, ""},
	{"sched/idle-time", hasEffect, ""},
	{"sched/fill-rate2", hasEffect, ""}, // what others leave is shared by weight
	{"sched/interval2", hasEffect, ""},
	{"sched/tokens*", noEffect, "processors are handed out in periods of 100 ms; cgroup/cpu.max.burst lets a guest save some"},
	{"sched/*/*", refusesStart, "there are no buckets of single processors: use cgroup/cpuset.cpus, cgroup/cpu.max and cgroup/cpu.weight"},
	{"dlimits/**", refusesStart, "there are no disk limits for a guest: give it a filesystem of its own at vdir, or a project quota"},
	{"nonamespace", noEffect, "every guest has its own mounts"},
	{"keepfds", noEffect, "no descriptor of the host's gets into a guest"},
	{"disabled", noEffect, noStart},
	{"legacy", noEffect, "there is no older tool to hand this guest to"},
	{"scripts/**", noEffect, noHooks},
	{"apps/init/style", hasEffect, ""},
	{"apps/init/cmd.start", hasEffect, ""},
	{"apps/init/runlevel", hasEffect, ""},
	{"apps/init/runlevel.start", hasEffect, ""},
	{"apps/init/environment", hasEffect, ""},
	{"apps/init/sync", hasEffect, ""}, // always
	{"apps/init/runlevel.stop", noEffect, "stop sends a signal to process 1, which is to end the rest"},
	{"apps/init/killseq", noEffect, "stop asks process 1 and waits 30 s, asks what is left by SIGTERM and waits 5 s, then kills"},
	{"apps/init/cmd.*", noEffect, "stop sends a signal to process 1 (SIGRTMIN+3, SIGINT or SIGTERM); nothing runs before or after"},
	{"apps/init/mark", noEffect, noStart},
	{"apps/init/depends", noEffect, noStart + ", in no order"},
	{"apps/init/tty", noEffect, "output goes to the console log (vsfleet guest log)"},
	{"apps/init/mtab", noEffect, "/etc/mtab is the guest's own file: make it a link to /proc/self/mounts"},
	{"apps/vshelper/**", noEffect, noHelper},
	{"apps/vshelper-methods/**", noEffect, noHelper},
	{"apps/vdevmap/**", noEffect, "a guest has /dev/null, zero, full, random, urandom, tty and pseudoterminals, and no other device"},
	{"apps/vunify/**", noEffect, "guests share what an image holds; nothing is unified"},
	{"apps/pkgmgmt/**", noEffect, "packages are managed in the guest: vserver NAME exec apt-get …"},
	{"apps/vlogin/**", noEffect, "enter always gives a terminal of the guest's own"},
}...)

// settingFiles returns the files of setting.Table, except those in cgroup/, which the
// pattern for that directory covers.
func settingFiles() (list []knownFile) {
	for _, row := range setting.Table {
		for _, file := range append([]string{row.File}, row.Older...) {
			if file != "" && !strings.HasPrefix(file, "cgroup/") {
				list = append(list, knownFile{file, hasEffect, ""})
			}
		}
	}
	return list
}

func (m knownFile) matches(file string) bool {
	if dir, ok := strings.CutSuffix(m.file, "/**"); ok {
		return strings.HasPrefix(file, dir+"/")
	}
	ok, err := path.Match(m.file, file)
	return ok && err == nil
}

// isBackup reports whether a name is that of a copy made by an editor or a package
// manager. util-vserver skips most of these.
func isBackup(name string) bool {
	for _, pattern := range []string{
		"*~", "*.bak", "*.orig", "*.old", "*.save", "*.swp", "#*#", "*.rpmsave", "*.rpmnew", "*.rpmorig",
		"*.dpkg-old", "*.dpkg-new", "*.dpkg-dist", "*.dpkg-bak", "*.dpkg-tmp", "*.cfsaved*", "*.ucf-old", "*.ucf-dist",
	} {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

// unread returns the files of a tree that have no effect, unknown files included:
// nothing is dropped silently.
func unread(files []string) (list []api.Unread) {
	for _, file := range files {
		if slices.ContainsFunc(strings.Split(file, "/"), isBackup) {
			list = append(list, api.Unread{File: file, Why: noCopy})
			continue
		}
		i := slices.IndexFunc(knownFiles, func(m knownFile) bool { return m.matches(file) })
		switch {
		case i < 0:
			list = append(list, api.Unread{File: file, Why: "vsnode knows no such file"})
		case knownFiles[i].effect != hasEffect:
			list = append(list, api.Unread{File: file, Why: knownFiles[i].why, Refuses: knownFiles[i].effect == refusesStart})
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
		list = append(list, "not honoured: "+line)
	}
	for _, m := range c.Mounts {
		if m.Exposed() {
			list = append(list, fmt.Sprintf("%s: users of this host can reach %s, and run what the guest's root leaves there, setuid to the host's root: chmod o-x a directory above it", m.Line, m.Source))
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
	return fmt.Errorf("its configuration in %s says what cannot be had: %s; to start without, name the file in %s/ignore", dir, strings.Join(api.Explain(stop), "; "), dir)
}

// styleProblem explains why a guest with this init style does not start.
func styleProblem(style string) string {
	known := map[string]string{
		"sysv":   "runs /etc/init.d/rc and leaves no process 1",
		"gentoo": "runs /lib/rc/sh/init-vserver.sh and leaves no process 1",
		"openrc": "runs /lib/rc/sh/init-vserver.sh and leaves no process 1",
		"arch":   "runs /etc/rc.multi and leaves no process 1",
		"minit":  "runs /sbin/minit-start",
		"rescue": "is for vserver start --rescue",
	}
	why, ok := known[style]
	if !ok {
		why = "is not known"
	}
	return fmt.Sprintf("style %s %s: use plain (the guest's own /sbin/init is process 1), or command and the program in apps/init/cmd.start", style, why)
}
