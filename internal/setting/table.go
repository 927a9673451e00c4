package setting

import (
	"net/netip"

	"github.com/vsfleet/vsfleet/internal/port"
)

// Table lists all settings, in the order of plans and listings. After a change, go test
// ./internal/setting -update writes docs/inventory.md and docs/guests.md.
var Table = []*Row{
	{
		Key: "hostname", Want: "a hostname", Plan: "hostname",
		Doc: "at most 64 letters, digits, `_`, `.`, `-`", Default: "the guest's name",
		File: "uts/nodename", Older: []string{"hostname"}, FileDoc: "hostname",
		value: hostname{word{func(g *Guest) *string { return &g.Hostname }, ValidHostname}},
	},
	{
		Key: "network.mode", Form: Block, Plan: "network",
		Doc:     "`shared` (an address of the host, owning ports on it), `own` (addresses of its own on the host's device) or `nat` (a private network behind the host)",
		Default: "`shared`", schema: `"enum": ["shared", "own", "nat"]`,
		value: several[Mode]{func(g *Guest) *Mode { return &g.Network.Mode }, func(g *Guest) string { return string(g.Network.Mode) }},
	},
	{ // An alias of addresses, whose row compares them.
		Key: "network.address", Form: Block, Modes: []Mode{Shared, Own},
		Doc: "one address; in shared mode `host` means the host's own", Default: "shared: `host`", schema: oneText,
		value: several[[]netip.Prefix]{func(g *Guest) *[]netip.Prefix { return &g.Network.Addresses }, func(*Guest) string { return "" }},
	},
	{
		Key: "network.addresses", Form: Block, Modes: []Mode{Shared, Own}, Plan: "addresses",
		Doc: "a list instead; in own mode each with its prefix, `192.0.2.10/24`", schema: someTexts,
		value: several[[]netip.Prefix]{func(g *Guest) *[]netip.Prefix { return &g.Network.Addresses }, addresses},
	},
	{
		Key: "network.dev", Want: "a network device, as eth0", Modes: []Mode{Own}, Plan: "dev",
		Doc: "device of the host", Default: "the host's `netdev`",
		value: word{func(g *Guest) *string { return &g.Network.Dev }, ValidDevice},
	},
	{
		Key: "network.ports", Form: List, Want: "a list of ports, as [80/tcp, 443/tcp]", Modes: []Mode{Shared}, Plan: "ports",
		Doc: "ports that it may bind: `80/tcp`, `53/udp`, `8000-8010/tcp`; without a protocol tcp", Default: "none",
		File: "interfaces/ports", FileDoc: "mode shared: ports, one per line",
		Live:  Live{"what is added; else a restart", func(a, b *Guest, _ []string) bool { return keepsPorts(a, b) }},
		value: list[port.Range]{func(g *Guest) *[]port.Range { return &g.Network.Ports }, port.Parse},
	},
	{
		Key: "network.forward", Form: List, Want: `a list of forwards, as ["2222:22/tcp"]`, Modes: []Mode{NAT}, Plan: "forwards",
		Doc: "ports of the host that lead inside: `2222:22/tcp`, `203.0.113.11:53:53/udp`, `[2001:db8::1]:8080:80/tcp`", Default: "none",
		File: "netns/forward", FileDoc: "mode nat: forwards, one per line", Live: atOnce,
		value: list[port.Forward]{func(g *Guest) *[]port.Forward { return &g.Network.Forwards }, port.ParseForward},
	},
	{
		Key: "network.metadata", Want: "allow or refuse", Words: []string{allow, refuse}, Plan: "metadata",
		Doc: "`allow` or `refuse`: whether it may reach the cloud's metadata service (169.254.169.254 and the like), which hands out the host's credentials", Default: "`refuse`",
		File: "interfaces/metadata", FileDoc: "(is there or not) the guest may reach the cloud's metadata service", Live: atOnce,
		value: presence{func(g *Guest) *bool { return &g.Network.Metadata }},
	},
	{
		Key: "network.raw", Form: Flag, Modes: []Mode{NAT}, Plan: "raw sockets",
		ModesWhy: ", where a guest has a network of its own; raw and packet sockets would be the host's elsewhere",
		Doc:      "`true` or `false`: whether it may have [raw and packet sockets](networks.md#raw-and-packet-sockets), as tcpdump, arping and DHCP servers need", Default: "`false`",
		File: "netns/raw", FileDoc: "mode nat (is there or not): the guest may have raw and packet sockets",
		value: presence{func(g *Guest) *bool { return &g.Network.Raw }},
	},
	{
		Key: "init", Form: Block, Plan: "init",
		Doc: "what runs: `plain`, the guest's own `/sbin/init`, `sysv` or `openrc`, the scripts of a runlevel without one ([guests](guests.md#init)), or `{command: [PROGRAM, ARGUMENT, …]}`", Default: "`plain`",
		schema: `"anyOf": [{ "enum": ["plain", "sysv", "openrc"] }, { "type": "object", "additionalProperties": false, "patternProperties": { "^x-": {} }, "required": ["command"],` +
			` "properties": { "command": { "type": "array", "minItems": 1, "items": { "$ref": "#/definitions/scalar" } } } }]`,
		value: several[Init]{func(g *Guest) *Init { return &g.Init }, command},
	},
	{
		Key: "nesting", Form: Flag, Plan: "nesting",
		Doc: "`true` or `false`: whether its programs may make user and network namespaces, as podman, browsers and some units of systemd do ([guests](guests.md#nesting))", Default: "`true` with `init: plain`, else `false`",
		File: "nesting", FileDoc: "`true` or `false`; without it true, except where `apps/init/cmd.start` is process 1",
		value: nesting{func(g *Guest) *bool { return &g.NoNesting }},
	},
	{
		Key: "views", Want: "host or lxcfs", Words: []string{"host", LXCFS}, Plan: "views",
		Doc: "`host` or `lxcfs`: whether the processors and the memory that it sees are the host's or, by the host's lxcfs, those of its limits ([guests](guests.md#what-a-guest-sees))", Default: "`host`",
		File: "views", FileDoc: "`host` or `lxcfs`: whose processors and memory it sees",
		value: views{func(g *Guest) *string { return &g.Views }},
	},
	{
		Key: "domain", Want: "a name of letters, digits, _ . -", Plan: "trust domain",
		Doc: "a name: guests of one trust domain [share files](images.md#trust-domains), on the disk and in memory, with each other and with no other guest of the host", Default: "none: shared with all others without one",
		File: "domain", FileDoc: "the trust domain with whose guests it shares files",
		value: domain{word{func(g *Guest) *string { return &g.TrustDomain }, validDomain}},
		check: checkDomain,
	},
	{
		Key: "limits.memory", Want: "a size, as 512M or 2G", Plan: "memory", Controller: "memory",
		Doc: "at least 1M: `512M`, `2G`", Default: "none",
		File: "cgroup/memory.max", Older: []string{"cgroup/memory.limit_in_bytes"}, FileDoc: "memory in bytes", Live: atOnce,
		value: limit{at: func(g *Guest) *int64 { return &g.Limits.MemoryBytes }, inventory: memory, people: size, units: true},
		check: func(g *Guest) error { return notNegative(g.Limits.MemoryBytes) },
	},
	{
		Key: "limits.cpu", Want: "a number of cores, as 1.5", Plan: "cpu", Controller: "cpu",
		Doc: "cores: `1.5` is one and a half", Default: "none",
		File: "cgroup/cpu.max", Older: []string{"cgroup/cpu.cfs_quota_us", "cgroup/cpu.cfs_period_us"}, FileDoc: "processors: QUOTA PERIOD in microseconds", Live: atOnce,
		value: cores{func(g *Guest) *float64 { return &g.Limits.CPUs }},
		check: func(g *Guest) error { return notNegative(g.Limits.CPUs) },
	},
	{
		Key: "limits.processes", Want: "a number, as 500", Plan: "processes",
		Doc: "number of processes and threads", Default: "none",
		File: "cgroup/pids.max", FileDoc: "number of processes and threads",
		Live:  Live{"at once; without the controller pids in cgroup v2 a restart", hasPids},
		value: limit{at: func(g *Guest) *int64 { return &g.Limits.Processes }, inventory: processes, people: count},
		check: func(g *Guest) error { return notNegative(g.Limits.Processes) },
	},
	{
		Key: "limits.memory_high", Want: "a size, as 512M or 2G", Plan: "memory high", Controller: "memory",
		Doc: "above it the guest is slowed down and its memory reclaimed, but nothing killed", Default: "none",
		File: "cgroup/memory.high", FileDoc: "memory in bytes above which the guest is slowed down", Live: atOnce,
		value: limit{at: func(g *Guest) *int64 { return &g.Limits.MemoryHighBytes }, inventory: memory, people: size, units: true},
		check: func(g *Guest) error { return notNegative(g.Limits.MemoryHighBytes) },
	},
	{
		Key: "limits.memory_low", Want: "a size, as 512M or 2G", Plan: "memory low", Controller: "memory", Off: "0",
		Doc: "left to the guest as long as memory can be had from others", Default: "none",
		File: "cgroup/memory.low", FileDoc: "memory in bytes that is taken from others first", Live: atOnce,
		value: limit{at: func(g *Guest) *int64 { return &g.Limits.MemoryLowBytes }, inventory: memory, people: size, units: true},
		check: func(g *Guest) error { return notNegative(g.Limits.MemoryLowBytes) },
	},
	{
		Key: "limits.memory_min", Want: "a size, as 512M or 2G", Plan: "memory min", Controller: "memory", Off: "0",
		Doc: "left to the guest in any case: if there is none elsewhere, processes elsewhere are killed", Default: "none",
		File: "cgroup/memory.min", FileDoc: "memory in bytes that is never taken from it", Live: atOnce,
		value: limit{at: func(g *Guest) *int64 { return &g.Limits.MemoryMinBytes }, inventory: memory, people: size, units: true},
		check: func(g *Guest) error { return notNegative(g.Limits.MemoryMinBytes) },
	},
	{
		Key: "limits.swap", Want: "a size, as 0, 512M or 2G", Plan: "swap", Controller: "memory",
		Doc: "swap space beside `memory`; `0`: none at all", Default: "no limit",
		File: "cgroup/memory.swap.max", FileDoc: "swap space in bytes", Live: atOnce,
		value: optional{func(g *Guest) **int64 { return &g.Limits.SwapBytes }},
		check: func(g *Guest) error {
			if g.Limits.SwapBytes == nil {
				return nil
			}
			return notNegative(*g.Limits.SwapBytes)
		},
	},
	{
		Key: "limits.cpu_burst", Want: "a number of cores, as 0.5", Plan: "cpu burst", Controller: "cpu", Off: "0",
		Doc: "with `cpu`, at most as much: cores that an idle guest saves up and may use for a tenth of a second beyond it", Default: "none",
		File: "cgroup/cpu.max.burst", FileDoc: "processor time in microseconds that may be saved up", Live: atOnce,
		value: burst{func(g *Guest) *float64 { return &g.Limits.CPUBurst }},
		check: burstWithin,
	},
	{
		Key: "limits.cpu_weight", Want: "a number from 1 to 10000", Plan: "cpu weight", Controller: "cpu", Off: "100",
		Doc: "its share of busy processors, compared with other guests: 1 to 10000", Default: "100",
		File: "cgroup/cpu.weight", Older: []string{"cgroup/cpu.shares"}, FileDoc: "share of busy processors, 1 to 10000", Live: atOnce,
		value: weight{func(g *Guest) *int { return &g.Limits.CPUWeight }},
		check: func(g *Guest) error { return within(g.Limits.CPUWeight, 0, 10000) },
	},
	{
		Key: "limits.cpus", Want: "processors, as 0-3,8", Plan: "cpus", Controller: "cpuset", Off: Present,
		Doc: "processors that it may use: `0-3,8`", Default: "all",
		File: "cgroup/cpuset.cpus", Older: []string{"cpuset/cpus"}, FileDoc: "processors that it may use, as 0-3,8", Live: atOnce,
		value: numberSet{func(g *Guest) *string { return &g.Limits.Processors }},
		check: validNumbers(func(g *Guest) string { return g.Limits.Processors }),
	},
	{
		Key: "limits.memory_nodes", Want: "memory nodes, as 0-1", Plan: "memory nodes", Controller: "cpuset", Off: Present,
		Doc: "NUMA nodes whose memory it may use: `0-1`", Default: "all",
		File: "cgroup/cpuset.mems", Older: []string{"cpuset/mems"}, FileDoc: "NUMA nodes whose memory it may use", Live: atOnce,
		value: numberSet{func(g *Guest) *string { return &g.Limits.MemoryNodes }},
		check: validNumbers(func(g *Guest) string { return g.Limits.MemoryNodes }),
	},
	{
		Key: "limits.io", Form: List, Want: `a list, as ["root wbps=10M riops=1000"]`, Plan: "io", Controller: "io",
		Doc: "bounds per second for a disk: `root` (the one with its files), `/dev/sda` or `8:0`, with `rbps=`, `wbps=` (bytes) and `riops=`, `wiops=` (requests)", Default: "none",
		File: "cgroup/io.max", FileDoc: "one line per disk: `root`, a path or MAJOR:MINOR, and `rbps=`, `wbps=`, `riops=`, `wiops=`", Live: atOnce,
		value: list[IOLimit]{func(g *Guest) *[]IOLimit { return &g.Limits.IO }, ParseIO},
		check: func(g *Guest) error { return oneDisk(g.Limits.IO) },
	},
	{
		Key: "limits.io_weight", Want: "a number from 1 to 10000", Plan: "io weight", Controller: "io", Off: "100",
		Doc: "its share of busy disks: 1 to 10000; needs the host's I/O cost model", Default: "100",
		File: "cgroup/io.weight", Older: []string{"cgroup/blkio.weight"}, FileDoc: "share of busy disks, 1 to 10000", Live: atOnce,
		value: weight{func(g *Guest) *int { return &g.Limits.IOWeight }},
		check: func(g *Guest) error { return within(g.Limits.IOWeight, 0, 10000) },
	},
	{
		Key: "limits.disk", Want: "a size, as 2G", Plan: "disk",
		Doc: "space of its own files, by project quota ([limits](limits.md#disk))", Default: "none", Live: atOnce,
		value: amountOf(func(g *Guest) *int64 { return &g.Limits.DiskBytes }, memory, size),
		check: func(g *Guest) error { return softBelow(g.Limits.DiskSoftBytes, g.Limits.DiskBytes, "disk") },
	},
	{
		Key: "limits.disk_soft", Want: "a size, as 1800M", Plan: "disk soft",
		Doc: "space that it may exceed for the filesystem's time of grace (a week); `df` shows this bound", Default: "none", Live: atOnce,
		value: amountOf(func(g *Guest) *int64 { return &g.Limits.DiskSoftBytes }, memory, size),
	},
	{
		Key: "limits.inodes", Want: "a number, as 200k", Plan: "inodes",
		Doc: "number of its own files: `50000`, `200k` (1000 each)", Default: "none", Live: atOnce,
		value: amountOf(func(g *Guest) *int64 { return &g.Limits.Inodes }, inodes, count),
		check: func(g *Guest) error { return softBelow(g.Limits.InodesSoft, g.Limits.Inodes, "inodes") },
	},
	{
		Key: "limits.inodes_soft", Want: "a number, as 180k", Plan: "inodes soft",
		Doc: "number that it may exceed for the time of grace", Default: "none", Live: atOnce,
		value: amountOf(func(g *Guest) *int64 { return &g.Limits.InodesSoft }, inodes, count),
	},
	{
		Key: "limits.ulimits", Form: List, Want: "a list, as [nofile=1024:4096, core=0]", Plan: "ulimits",
		Doc: "limits of each process, `RESOURCE=SOFT:HARD` or `RESOURCE=BOTH`, `inf` for none ([guests](limits.md#limits-of-each-process))", Default: "those of a freshly booted machine",
		Live:  Live{"at once, except for processes that chose their own; memory locks, queues and signals of all users together after a restart", always},
		value: ulimits{list[Ulimit]{func(g *Guest) *[]Ulimit { return &g.Limits.Ulimits }, ParseUlimit}},
		check: func(g *Guest) error { return oneResource(g.Limits.Ulimits) },
	},
	{
		Key: "nice", Want: "a number from -20 to 19", Plan: "nice",
		Doc: "nice value that its processes begin with, -20 (goes first) to 19 ([guests](guests.md#nice))", Default: "0",
		File: "nice", FileDoc: "nice value that its processes begin with, -20 to 19",
		Live:  unlessChosen,
		value: number{func(g *Guest) *int { return &g.Nice }, -20, 19},
		check: func(g *Guest) error { return within(g.Nice, -20, 19) },
	},
	{
		Key: "ionice", Want: "idle, or best-effort:0 to best-effort:7", Plan: "ionice",
		Doc: "disk access of its processes: `idle`, `best-effort:LEVEL` or `realtime:LEVEL`, 0 (first) to 7; for schedulers that know it (bfq, mq-deadline)", Default: "by nice",
		Live:  unlessChosen,
		value: ioNice{several[IONice]{func(g *Guest) *IONice { return &g.IONice }, func(g *Guest) string { return g.IONice.String() }}},
		check: validIONice,
	},
	{
		Key: "oom_score_adj", Want: "a number from -1000 to 1000", Plan: "oom_score_adj",
		Doc: "how soon its processes are killed if the host has no memory left, compared with others: -1000 (last) to 1000 (first)", Default: "0",
		File: "badness", FileDoc: "how soon its processes are killed for want of memory, -1000 (last) to 1000 (first)",
		Live:  unlessChosen,
		value: number{func(g *Guest) *int { return &g.OOMScoreAdj }, -1000, 1000},
		check: func(g *Guest) error { return within(g.OOMScoreAdj, -1000, 1000) },
	},
	{
		Key: "autostart", Want: "true, false or a mark", Plan: "autostart",
		Doc:     "`true`: it starts when the host boots; or a mark, the name of a group that starts then and can be started and stopped by itself ([boot](boot.md))",
		Default: "`false`", schema: `"anyOf": [{ "type": "boolean" }, { "$ref": "#/definitions/text" }]`,
		File: "apps/init/mark", FileDoc: "mark of the group with which it starts when the host boots, `default` without one of its own; not if there is a file `disabled`",
		Live:  atOnce,
		value: autostart{word{func(g *Guest) *string { return &g.Boot.Mark }, validMark}},
	},
	{
		Key: "depends", Form: List, Want: "a list of guests of the same host, as [db]", Plan: "depends",
		Doc: "guests of the same host that start before it and stop after it ([boot](boot.md#order))", Default: "none",
		File: "apps/init/depends", FileDoc: "guests that start before it and stop after it, separated by lines, blanks or commas", Live: atOnce,
		value: names{func(g *Guest) *[]string { return &g.Boot.Depends }},
	},
	{
		Key: "restart", Want: "no, on-failure or always", Plan: "restart",
		Doc: "what becomes of it when it ends by itself: `no`, `on-failure`, `always`; with a bound `on-failure:5/10m`, 5 starts within 10 minutes ([boot](boot.md#guests-that-end-by-themselves))", Default: "`no`; the bound 10 within 10 minutes",
		File: "apps/init/restart", FileDoc: "`no`, `on-failure` or `always`, as in an inventory", Live: atOnce,
		value: restart{func(g *Guest) *Restart { return &g.Boot.Restart }},
	},
	mountsRow, volumesRow,
	{
		Key: "devices", Form: List, Want: "a list of devices, as [/dev/fuse, \"/dev/ttyUSB0:/dev/ttyS0:rw\"]", Plan: "devices",
		Doc: "devices of the host that it may use: `/dev/fuse`, `/dev/kvm`, `HOST:GUEST:ACCESS` ([storage](storage.md#devices))", Default: "none",
		value: list[Device]{func(g *Guest) *[]Device { return &g.Devices }, ParseDevice},
		check: checkDevices,
	},
	{
		Key: "shadowed", Form: Block, Plan: "shadowed",
		Doc: "what becomes of its own files that hide what another version of its image changes: a list as `[{path: /usr/lib/*, do: reset}]` ([images](images.md#what-guests-hide))", Default: "`rebase` for databases of dpkg and apk, `keep` for all else",
		schema: `"type": "array", "items": { "$ref": "#/definitions/shadowed" }`,
		File:   "apps/vunify/shadowed", FileDoc: "pairs of `reset`, `keep` or `rebase` and the pattern of a path, for its own files that hide what another image changes",
		Live:  Live{"when it moves to another image", always},
		value: word{at: func(g *Guest) *string { return &g.Shadowed }},
	},
}

func always(*Guest, *Guest, []string) bool { return true }

// unlessChosen means that running processes take a change if they still have the value
// that they began with.
var unlessChosen = Live{"at once, except for processes that chose their own", always}

func validNumbers(of func(*Guest) string) func(*Guest) error {
	return func(g *Guest) error {
		if of(g) == "" {
			return nil
		}
		_, err := numbers(of(g))
		return err
	}
}

// atOnce means that a running guest takes every change at once.
var atOnce = Live{"at once", always}
