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
		value: hostname{word{func(g *Guest) *string { return &g.Hostname }, validHostname}},
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
		Doc: "what runs as process 1: `plain`, the guest's own `/sbin/init`, or `{command: [PROGRAM, ARGUMENT, …]}`", Default: "`plain`",
		schema: `"anyOf": [{ "enum": ["plain"] }, { "type": "object", "additionalProperties": false, "patternProperties": { "^x-": {} }, "required": ["command"],` +
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
		Key: "nice", Want: "a number from -20 to 19", Plan: "nice",
		Doc: "nice value that its processes begin with, -20 (goes first) to 19 ([guests](guests.md#nice))", Default: "0",
		File: "nice", FileDoc: "nice value that its processes begin with, -20 to 19",
		value: number{func(g *Guest) *int { return &g.Nice }, -20, 19},
		check: func(g *Guest) error { return within(g.Nice, -20, 19) },
	},
}

// atOnce means that a running guest takes every change at once.
var atOnce = Live{"at once", func(*Guest, *Guest, []string) bool { return true }}
