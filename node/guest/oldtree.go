package guest

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// A fate is what becomes of a file of a guest's configuration.
type fate string

const (
	isRead  fate = "read"    // it has its meaning, or what it asks for is always so
	isNamed fate = "named"   // no effect: said at each start and by status
	refuses fate = "refused" // the guest does not start with it, unless the file ignore names it
)

// A meaning is what files of the configuration tree say here. The first that
// matches counts.
type meaning struct {
	file string // as path.Match has it; "dir/**" is everything below dir
	fate fate
	why  string // named and refused: what it lacks, and what to use instead
}

const (
	noHooks   = "hooks are not run: let the guest's own init do it, or a unit of the host"
	noBuckets = "there are no token buckets: limit processors by cgroup/cpu.max (QUOTA PERIOD in microseconds), share them by cgroup/cpu.weight"
	noStart   = "nothing starts guests when the host boots: vsfleet apply does, for those of its inventory"
	noHelper  = "there is no vshelper: a guest that ends stays stopped until the next start or vsfleet apply"
	noTuntap  = "tun and tap devices are not made: mode nat (netns/nat) has a network of the guest's own"
	noCopy    = "a backup copy, which is not read"
)

// meanings is every file that util-vserver or vsnode reads. docs/linux-vserver.md
// has the same table; a test compares them.
var meanings = append(settingFiles(), []meaning{
	{"vdir", isRead, ""},
	{"run", isRead, ""},
	{"cache", isRead, ""},
	{"name", isRead, ""},
	{"ignore", isRead, ""},
	{"context", isRead, ""},
	{"image", isRead, ""},
	{"shell", isRead, ""},
	{"bcapabilities", isRead, ""},
	{"fstab", isRead, ""},
	{"fstab.local", isRead, ""},
	{"fstab.remote", isRead, ""},
	{"flags", isRead, ""},
	{"cflags", isRead, ""},
	{"namespace", isRead, ""}, // what these ask for is always so
	{"namespace-cleanup", isRead, ""},
	{"namespace-cleanup-skip", isRead, ""},
	{"nonamespace-cleanup", isRead, ""},
	{"noisy", isRead, ""},
	{"uts/domainname", isRead, ""},
	{"domainname", isRead, ""},
	{"uts/context", isRead, ""},
	{"uts/*", isNamed, "system, release, version and machine are those of the host's kernel"},
	{"ulimits/*", isRead, ""},
	{"rlimits/*.min", isRead, ""}, // no kernel looked at it
	{"rlimits/nproc*", isRead, ""},
	{"rlimits/rss*", isRead, ""},
	{"rlimits/**", refuses, "the kernel limits this for no group of processes: use ulimits/ for each process, cgroup/memory.max or cgroup/pids.max"},
	{"cgroup/name", isNamed, "a guest's cgroup is vservers/NAME"},
	{"cgroup/base", isNamed, "a guest's cgroup is vservers/NAME"},
	{"cgroup/*", isRead, ""},
	{"nocgroup", isNamed, "every guest has a cgroup: its processes are found and ended by it"},
	{"cpuset/cpus", isRead, ""},
	{"cpuset/mems", isRead, ""},
	{"cpuset/name", isNamed, "a guest's cpuset is its cgroup"},
	{"cpuset/nocreate", isNamed, "a guest's cpuset is its cgroup"},
	{"cpuset/virtualized", isNamed, "programs see the processors that they may use by sched_getaffinity(2); /proc/cpuinfo is the host's"},
	{"cpuset/**", refuses, "for exclusive processors use cgroup/cpuset.cpus.partition"},
	{"sysctl/*/setting", isRead, ""},
	{"sysctl/*/value", isRead, ""},
	{"interfaces/dev", isRead, ""},
	{"interfaces/prefix", isRead, ""},
	{"interfaces/mask", isRead, ""},
	{"interfaces/scope", isRead, ""}, // util-vserver reads it and does nothing
	{"interfaces/novlandev", isRead, ""},
	{"interfaces/bcast", isNamed, "the broadcast address follows from the prefix"},
	{"interfaces/lback", isNamed, "localhost of context N is 127.N>>8.N&255.1"},
	{"interfaces/vlandev", isNamed, "VLAN devices are not made: the host's network configuration has to"},
	{"interfaces/extip", isNamed, "addresses are not translated: mode nat (netns/nat) does"},
	{"interfaces/*/ip", isRead, ""},
	{"interfaces/*/dev", isRead, ""},
	{"interfaces/*/prefix", isRead, ""},
	{"interfaces/*/mask", isRead, ""},
	{"interfaces/*/nodev", isRead, ""},
	{"interfaces/*/only_ip", isRead, ""}, // an old name of nodev
	{"interfaces/*/disabled", isRead, ""},
	{"interfaces/*/scope", isRead, ""},
	{"interfaces/*/novlandev", isRead, ""},
	{"interfaces/*/name", isNamed, "addresses have no labels (eth0:NAME): ip address show lists them without"},
	{"interfaces/*/bcast", isNamed, "the broadcast address follows from the prefix"},
	{"interfaces/*/peer", isNamed, "point-to-point addresses are not made: put it onto the device on the host, and say nodev"},
	{"interfaces/*/down", isNamed, "the device stays as the host has it"},
	{"interfaces/*/vlandev", isNamed, "VLAN devices are not made: the host's network configuration has to"},
	{"interfaces/*/extip", isNamed, "addresses are not translated: mode nat (netns/nat) does"},
	{"interfaces/*/mac", isNamed, "dummy devices are not made: the host's network configuration has to"},
	{"interfaces/*/indirect", isNamed, "dummy devices are not made: the host's network configuration has to"},
	{"interfaces/*/tun", isNamed, noTuntap},
	{"interfaces/*/tap", isNamed, noTuntap},
	{"interfaces/*/nocsum", isNamed, noTuntap},
	{"interfaces/*/shared", isNamed, noTuntap},
	{"interfaces/*/uid", isNamed, noTuntap},
	{"interfaces/*/gid", isNamed, noTuntap},
	{"interfaces/*/linktype", isNamed, noTuntap},
	{"netns/nat", isRead, ""},
	{"nonetns", isRead, ""},
	{"netns/**", isNamed, "for a network of the guest's own use netns/nat"},
	{"ncontext", isNamed, "the network context has the number of the context"},
	{"noncontext", isNamed, "a guest cannot use the host's network without bounds"},
	{"nflags", isNamed, "127.0.0.1 is always the guest's own, and the interfaces of the host are in sight"},
	{"ncapabilities", isNamed, "raw sockets are in mode nat (netns/nat) with netns/raw"},
	{"ccapabilities", isNamed, "what they allowed a guest has against its own namespaces, or not at all: see docs/security.md"},
	{"capabilities", isNamed, "of kernel 2.4; use bcapabilities"},
	{"umask", isNamed, "docs/security.md says which namespaces are made inside a guest"},
	{"tag", isNamed, "files have no tags: on disk an owner is the guest's own id"},
	{"spaces/**", isNamed, "every guest has its own namespaces; the network's with netns/nat"},
	{"personality", refuses, "programs are those of the host's architecture: calls of 32-bit programs are refused"},
	{"ionice/**", isNamed, "use cgroup/io.weight"},
	{"badness", isNamed, "use cgroup/memory.low to protect a guest, memory.oom.group to end it whole"},
	{"schedule", refuses, noBuckets},
	{"sched/**", refuses, noBuckets},
	{"dlimits/**", refuses, "there are no disk limits for a guest: give it a filesystem of its own at vdir, or a project quota"},
	{"nonamespace", isNamed, "every guest has its own mounts"},
	{"keepfds", isNamed, "no descriptor of the host's gets into a guest"},
	{"disabled", isNamed, noStart},
	{"legacy", isNamed, "there is no older tool to hand this guest to"},
	{"scripts/**", isNamed, noHooks},
	{"apps/init/style", isRead, ""},
	{"apps/init/cmd.start", isRead, ""},
	{"apps/init/runlevel", isRead, ""},
	{"apps/init/runlevel.start", isRead, ""},
	{"apps/init/environment", isRead, ""},
	{"apps/init/sync", isRead, ""}, // always
	{"apps/init/runlevel.stop", isNamed, "stop sends a signal to process 1, which is to end the rest"},
	{"apps/init/killseq", isNamed, "stop asks process 1 and waits 30 s, asks what is left by SIGTERM and waits 5 s, then kills"},
	{"apps/init/cmd.*", isNamed, "stop sends a signal to process 1 (SIGRTMIN+3, SIGINT or SIGTERM); nothing runs before or after"},
	{"apps/init/mark", isNamed, noStart},
	{"apps/init/depends", isNamed, noStart + ", in no order"},
	{"apps/init/tty", isNamed, "output goes to the console log (vsfleet guest log)"},
	{"apps/init/mtab", isNamed, "/etc/mtab is the guest's own file: make it a link to /proc/self/mounts"},
	{"apps/vshelper/**", isNamed, noHelper},
	{"apps/vshelper-methods/**", isNamed, noHelper},
	{"apps/vdevmap/**", isNamed, "a guest has /dev/null, zero, full, random, urandom, tty and pseudoterminals, and no other device"},
	{"apps/vunify/**", isNamed, "guests share what an image holds; nothing is unified"},
	{"apps/pkgmgmt/**", isNamed, "packages are managed in the guest: vserver NAME exec apt-get …"},
	{"apps/vlogin/**", isNamed, "enter always gives a terminal of the guest's own"},
}...)

// settingFiles are the files that package setting has. Those of the cgroup are
// read as all others of it are.
func settingFiles() (list []meaning) {
	for _, row := range setting.Table {
		for _, file := range append([]string{row.File}, row.Older...) {
			if file != "" && !strings.HasPrefix(file, "cgroup/") {
				list = append(list, meaning{file, isRead, ""})
			}
		}
	}
	return list
}

func (m meaning) matches(file string) bool {
	if dir, ok := strings.CutSuffix(m.file, "/**"); ok {
		return strings.HasPrefix(file, dir+"/")
	}
	ok, err := path.Match(m.file, file)
	return ok && err == nil
}

// isBackup reports whether a name is an editor's or a package manager's copy.
// util-vserver passes most of these over.
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

// unread lists the files of a tree that have no effect. Whatever no table knows
// is among them: nothing that a tree says is dropped silently.
func unread(files []string) (list []api.Unread) {
	for _, file := range files {
		if slices.ContainsFunc(strings.Split(file, "/"), isBackup) {
			list = append(list, api.Unread{File: file, Why: noCopy})
			continue
		}
		i := slices.IndexFunc(meanings, func(m meaning) bool { return m.matches(file) })
		switch {
		case i < 0:
			list = append(list, api.Unread{File: file, Why: "vsnode knows no such file"})
		case meanings[i].fate != isRead:
			list = append(list, api.Unread{File: file, Why: meanings[i].why, Refuses: meanings[i].fate == refuses})
		}
	}
	return list
}

// ignore lets a guest start without what the file of that name lists: files of
// the tree, directories, or lines of a file as "fstab:3".
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

// warnings are what to say when a guest is started.
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

// refusal is why a guest does not start, or nil.
func refusal(dir string, list []api.Unread) error {
	stop := api.Refusing(list)
	if len(stop) == 0 {
		return nil
	}
	return fmt.Errorf("its configuration in %s says what cannot be had: %s; to start without, name the file in %s/ignore", dir, strings.Join(api.Explain(stop), "; "), dir)
}

// noStyle is why a guest does not start with an init style.
func noStyle(style string) string {
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

// given are context flags that ask for what every guest has.
var given = []string{"lock", "sched", "fakeinit", "init", "hideinfo", "namespace", "nspace", "hide_mount", "hide_vinfo",
	"state_setup", "state_init", "state_admin", "sc_helper", "reboot_kill", "secure", "default"}

// readFlags lists the context flags that have no effect.
func readFlags(t *tree) (list []api.Unread) {
	for _, file := range []string{"flags", "cflags"} {
		var lost []string
		for _, word := range t.words(file) {
			name := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(strings.TrimLeft(word, "!~")), "vxf_"), "info_")
			if !slices.Contains(given, name) {
				lost = append(lost, word)
			}
		}
		if lost != nil {
			list = append(list, api.Unread{File: file, Why: strings.Join(lost, ", ") + " without effect: uptime, load, memory and interfaces of the host are shown; " +
				"for limits use cgroup/ and ulimits/"})
		}
	}
	return list
}
