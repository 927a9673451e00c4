package guest

import (
	"errors"
	"strings"

	"github.com/vsfleet/vsfleet/internal/vsyntax"
	"github.com/vsfleet/vsfleet/node/api"
)

// An oldFlag is a flag of Linux-VServer's kernel.
type oldFlag struct {
	names string // the usual one first
	mask  uint64
	why   string // why it has no effect, and what has; "": it has one, or every guest has what it asks for
}

// A guest may have or lack these.
var choices = map[string]bool{"sched_hard": true, "sched_prio": true}

// oldLists are the files of the tree that list such flags. docs/configuration.md has
// them all.
var oldLists = []struct {
	files []string
	table vsyntax.Table
	flags []oldFlag
}{
	{[]string{"flags", "cflags"}, vsyntax.Table{What: "flag", Prefixes: []string{"vxf_"}}, contextFlags},
	{[]string{"ccapabilities"}, vsyntax.Table{What: "context capability", Prefixes: []string{"vxc_", "cap_"}}, contextCaps},
	{[]string{"nflags"}, vsyntax.Table{What: "network flag", Prefixes: []string{"nxf_"}}, networkFlags},
	{[]string{"ncapabilities"}, vsyntax.Table{What: "network capability", Prefixes: []string{"nxc_"}}, networkCaps},
	{[]string{"umask"}, vsyntax.Table{What: "namespace"}, unsharedSpaces},
}

const (
	schedHard = 1 << 8
	schedPrio = 1 << 9
)

var contextFlags = []oldFlag{
	{"lock info_lock", 1 << 0, ""},
	{"sched info_sched", 1 << 1, ""},
	{"nproc info_nproc", 1 << 2, "cgroup/pids.max bounds all processes of a guest, ulimits/nproc those of each user"},
	{"private info_private", 1 << 3, "the host's root may enter every guest"},
	{"fakeinit info_init init", 1 << 4, ""},
	{"hideinfo info_hideinfo", 1 << 5, ""},
	{"ulimit info_ulimit", 1 << 6, "ulimits/ bounds each process, cgroup/ all processes together"},
	{"namespace nspace info_namespace info_nspace", 1 << 7, ""},
	{"sched_hard", schedHard, ""}, // readSched
	{"sched_prio", schedPrio, ""},
	{"sched_pause", 1 << 10, "a guest is not started paused: to pause one that runs write 1 to cgroup.freeze in its cgroup"},
	{"virt_mem", 1 << 16, "/proc/meminfo shows the host's memory; cgroup/memory.max limits the guest's"},
	{"virt_uptime", 1 << 17, ""},
	{"virt_cpu", 1 << 18, "the host's statistics of processors are shown"},
	{"virt_load", 1 << 19, "the host's load is shown; cpu.pressure in its cgroup is the guest's"},
	{"virt_time", 1 << 20, "the clock is the host's"},
	{"hide_mount", 1 << 24, ""},
	{"hide_netif", 1 << 25, "in the modes shared and own the interfaces of the host are in sight, but of no use; in mode nat (netns/nat) they are not"},
	{"hide_vinfo", 1 << 26, ""},
	{"state_setup", 1 << 32, ""},
	{"state_init", 1 << 33, ""},
	{"state_admin", 1 << 34, ""},
	{"sc_helper", 1 << 36, ""},
	{"reboot_kill", 1 << 37, ""},
	{"persistent", 1 << 38, "a guest ends with its process 1"},
	{"fork_rss", 1 << 48, "cgroup/memory.high slows a guest down, cgroup/memory.max ends what needs more"},
	{"prolific", 1 << 49, "there is no vserver in a guest; nesting allows containers"},
	{"igneg_nice", 1 << 52, "a negative nice value is refused with an error"},
	{"igneg_ionice", 1 << 53, "a better class of input and output is refused with an error"},
	{"secure", 0, ""}, // composites
	{"default", 0, ""},
}

var contextCaps = []oldFlag{
	{"set_utsname utsname", 1 << 0, ""},
	{"set_rlimit rlimit", 1 << 1, "a hard limit is never raised: set it by ulimits/"},
	{"fs_security", 1 << 2, ""}, // security.capability, with the guest's root
	{"fs_trusted", 1 << 3, "attributes trusted.* are the host's root's"},
	{"tiocsti", 1 << 4, "characters cannot be pushed into a terminal (TIOCSTI): it led out of containers"},
	{"raw_icmp icmp ping", 1 << 8, ""},
	{"syslog", 1 << 12, "the kernel's log is the host's"},
	{"oom_adjust", 1 << 13, "no process gets below what badness says"},
	{"audit_control", 1 << 14, "the kernel's audit is the host's"},
	{"secure_mount mount", 1 << 16, ""},
	{"secure_remount remount", 1 << 17, ""},
	{"binary_mount", 1 << 18, "NFS and SMB are mounted on the host, and bound by fstab"},
	{"dev_mount", 1 << 19, "filesystems of devices are mounted on the host, and bound by fstab"},
	{"quota_ctl", 1 << 20, "quotas are the host's"},
	{"admin_mapper", 1 << 21, "device mappings are made on the host"},
	{"admin_cloop", 1 << 22, "loop devices are set up on the host"},
	{"kthread", 1 << 24, "the kernel's threads are not in sight"},
	{"namespace", 1 << 25, "set by nesting: whether programs may make namespaces"},
}

var networkFlags = []oldFlag{
	{"lock info_lock", 1 << 0, ""},
	{"private info_private", 1 << 3, "the host's root may enter every guest"},
	{"single_ip", 1 << 8, ""}, // the only address is the source of everything
	{"lback_remap remap_lback", 1 << 9, ""},
	{"lback_allow", 1 << 10, "127.0.0.1 is always the guest's own"},
	{"hide_netif", 1 << 25, "in the modes shared and own the interfaces of the host are in sight, but of no use; in mode nat (netns/nat) they are not"},
	{"hide_lback", 1 << 26, ""},
	{"state_setup", 1 << 32, ""},
	{"state_admin", 1 << 34, ""},
	{"sc_helper", 1 << 36, ""},
	{"persistent", 1 << 38, "a guest's network context ends with the guest"},
}

var networkCaps = []oldFlag{
	{"tun_create", 1 << 0, "tun and tap devices need a network of the guest's own: mode nat (netns/nat)"},
	{"raw_icmp", 1 << 8, ""}, // ping sockets
	{"multicast", 1 << 12, "in the modes shared and own a guest receives no multicast (docs/known-limits.md)"},
}

// unsharedSpaces are the namespaces that umask allowed a guest to make: CLONE_*.
var unsharedSpaces = []oldFlag{
	{"fs", 0x200, ""},
	{"newns", 0x20000, oneNesting},
	{"newuts", 0x4000000, oneNesting},
	{"newipc", 0x8000000, oneNesting},
	{"newuser", 0x10000000, oneNesting},
	{"newpid", 0x20000000, oneNesting},
	{"newnet", 0x40000000, oneNesting},
}

const oneNesting = "the file nesting (true or false) is for all namespaces together"

// oldTable returns a table with the names of flags.
func oldTable(t vsyntax.Table, flags []oldFlag) vsyntax.Table {
	for _, f := range flags {
		t.Flags = append(t.Flags, vsyntax.Flag{Names: strings.Fields(f.names), Mask: f.mask})
	}
	return t
}

// readFlags returns the flags of a tree that have no effect, and a list's first
// mistake.
func readFlags(t *tree) (list []api.Unread) {
	for _, of := range oldLists {
		table := oldTable(of.table, of.flags)
		for _, file := range of.files {
			text, _ := t.read(file)
			items, err := table.Parse(text)
			for i, item := range items {
				for _, later := range items[i+1:] {
					item.Mask &^= later.Mask
				}
				if why := whyNot(of.flags, item); why != "" {
					list = append(list, api.Unread{File: file, Why: item.Text + ": " + why})
				}
			}
			if wrong := (*vsyntax.Error)(nil); errors.As(err, &wrong) {
				list = append(list, api.Unread{File: file, Why: "at " + wrong.Error() + "; the rest of the file is not read"})
			}
		}
	}
	return list
}

// whyNot returns why a word of a list has no effect.
func whyNot(flags []oldFlag, item vsyntax.Item) string {
	var reasons []string
	for _, f := range flags {
		if f.mask == 0 || f.mask&item.Mask != f.mask {
			continue
		}
		switch name, _, _ := strings.Cut(f.names, " "); {
		case !item.Off && f.why != "":
			reasons = append(reasons, f.why)
		case item.Off && f.why == "" && !choices[name]:
			reasons = append(reasons, "every guest has "+name)
		}
	}
	return strings.Join(reasons, "; ")
}
