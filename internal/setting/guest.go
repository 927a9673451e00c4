package setting

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/port"
)

// Mode is how a guest reaches the network.
type Mode string

// Modes.
const (
	Shared Mode = "shared" // the host's address, owning ports on it
	Own    Mode = "own"    // addresses of its own on the host's device
	NAT    Mode = "nat"    // a private network namespace behind the host
)

// Guest identifies a guest and holds its settings. Optional fields that are zero
// are not set.
type Guest struct {
	Name     string  `json:"name"`               // [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}
	Context  int     `json:"context"`            // XID; 0 in an inventory or a request: the host chooses
	Image    string  `json:"image,omitempty"`    // its name in an inventory, its ID (a digest) on a host; empty: a private root
	Hostname string  `json:"hostname,omitempty"` // default: the name
	Network  Network `json:"network"`
	Init     Init    `json:"init"`
	Limits   Limits  `json:"limits"`
	// NoNesting keeps the guest from creating user and network namespaces.
	NoNesting bool `json:"noNesting,omitempty"`
	// Views is whose processors and memory its files in /proc show: "" the host's,
	// [LXCFS] its own, as that program makes them.
	Views string `json:"views,omitempty"`
	// TrustDomain is the group of guests that may share files, in the store and in
	// memory; "": that of the host.
	TrustDomain string `json:"trustDomain,omitempty"`
	Nice        int    `json:"nice,omitempty"` // of its processes, -20 to 19
	// OOMScoreAdj says how soon the kernel kills its processes for want of memory,
	// compared with others of the host: -1000 to 1000.
	OOMScoreAdj int    `json:"oomScoreAdj,omitempty"`
	IONice      IONice `json:"ioNice,omitzero"`
	Boot        Boot   `json:"boot,omitzero"`

	Mounts  []Mount  `json:"mounts,omitempty"`
	Volumes []Mount  `json:"volumes,omitempty"` // of type Volume
	Devices []Device `json:"devices,omitempty"`
	// Shadowed are rules for its own files that hide what another image changes, as words:
	// reset /usr/lib/* keep /etc. The first that applies decides.
	Shadowed string `json:"shadowed,omitempty"`
}

// Boot is when a guest starts without being asked for.
type Boot struct {
	Mark    string   `json:"mark,omitempty"`    // the group with which it starts when the host boots; "": it does not
	Depends []string `json:"depends,omitempty"` // guests that start before it and stop after it
	Restart Restart  `json:"restart,omitzero"`
}

// DefaultMark is the mark of a guest that starts at boot, in no group of its own.
const DefaultMark = "default"

// Restart is what becomes of a guest that ends by itself. One that was rebooted from
// inside is started in any case.
type Restart struct {
	Policy string        `json:"policy,omitempty"` // OnFailure, Always; "": it stays stopped
	Starts int           `json:"starts,omitempty"` // the most starts within that time; 0: the default
	Within time.Duration `json:"within,omitempty"`
}

// Policies of Restart.
const (
	Never     = "no"
	OnFailure = "on-failure"
	Always    = "always"
)

// Network is the part of the network that a guest may use.
type Network struct {
	Mode Mode `json:"mode"`
	// Addresses of the guest: one of the host's in shared mode, its own (with
	// the prefix that goes onto the device) in own mode, empty in nat mode.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Dev       string         `json:"dev,omitempty"` // own mode: device of the host, as "eth0"
	// Places describes addresses of own mode that are not simply on Dev. Only trees of
	// Linux-VServer have it; a change of other settings keeps it.
	Places   map[netip.Addr]Place `json:"places,omitempty"`
	Ports    []port.Range         `json:"ports,omitempty"`    // shared mode: the ports it may bind
	Forwards []port.Forward       `json:"forwards,omitempty"` // nat mode
	// Raw allows raw and packet sockets; nat mode only, as elsewhere they would be the
	// host's.
	Raw bool `json:"raw,omitempty"`
	// Metadata allows access to the metadata service of the host's cloud, which answers
	// with the host's credentials.
	Metadata bool `json:"metadata,omitempty"`
}

// Summary returns the addresses, ports and forwards in one line, for people.
func (n Network) Summary() string {
	var words []string
	for _, a := range n.Addresses {
		if n.Mode == Shared {
			words = append(words, a.Addr().String())
		} else {
			words = append(words, a.String())
		}
	}
	for _, p := range n.Ports {
		words = append(words, p.String())
	}
	for _, f := range n.Forwards {
		words = append(words, f.String())
	}
	return strings.Join(words, " ")
}

// Place is where and how the host has an address of a guest.
type Place struct {
	Dev       string     `json:"dev,omitempty"`      // instead of Network.Dev
	NoDev     bool       `json:"noDev,omitempty"`    // the host has it anyway
	Label     string     `json:"label,omitempty"`    // IFA_LABEL behind the device, as "eth0:www"
	Broadcast netip.Addr `json:"broadcast,omitzero"` // not that of the prefix
}

// On returns the device that an address of own mode goes onto; "": the host has it
// anyway.
func (n Network) On(addr netip.Addr) string {
	p := n.Places[addr]
	if p.NoDev {
		return ""
	}
	return cmp.Or(p.Dev, n.Dev)
}

// Init selects the guest's process 1.
type Init struct {
	Style   string   `json:"style,omitempty"`   // "plain": the guest's own /sbin/init; "sysv", "openrc", "command"
	Command []string `json:"command,omitempty"` // style "command": argv
}

// Limits of a guest; zero means no limit.
type Limits struct {
	MemoryBytes int64   `json:"memoryBytes,omitempty"`
	CPUs        float64 `json:"cpus,omitempty"` // 1.5 is one and a half cores
	Processes   int64   `json:"processes,omitempty"`

	MemoryHighBytes int64  `json:"memoryHighBytes,omitempty"` // above it the guest is slowed down
	MemoryLowBytes  int64  `json:"memoryLowBytes,omitempty"`  // left to it while others have more than theirs
	MemoryMinBytes  int64  `json:"memoryMinBytes,omitempty"`  // left to it in any case
	SwapBytes       *int64 `json:"swapBytes,omitempty"`       // nil: no limit

	CPUBurst  float64 `json:"cpuBurst,omitempty"`  // cores that it may save up
	CPUWeight int     `json:"cpuWeight,omitempty"` // 1 to 10000; 0: the kernel's 100
	// Processors and MemoryNodes are lists as "0-3,8"; empty: all.
	Processors  string `json:"processors,omitempty"`
	MemoryNodes string `json:"memoryNodes,omitempty"`

	IO       []IOLimit `json:"io,omitempty"`
	IOWeight int       `json:"ioWeight,omitempty"` // 1 to 10000; 0: the kernel's 100

	// Of the guest's own files, by project quota.
	DiskBytes     int64 `json:"diskBytes,omitempty"`
	DiskSoftBytes int64 `json:"diskSoftBytes,omitempty"`
	Inodes        int64 `json:"inodes,omitempty"`
	InodesSoft    int64 `json:"inodesSoft,omitempty"`

	Ulimits []Ulimit `json:"ulimits,omitempty"` // of each process
}

// Disk reports whether it limits the disk space or the files of the guest.
func (l Limits) Disk() bool {
	return l.DiskBytes != 0 || l.DiskSoftBytes != 0 || l.Inodes != 0 || l.InodesSoft != 0
}

// Record is a flat form of a guest's settings, which `vsfleet inventory list --guests`
// prints in machine formats.
type Record struct {
	Hostname    string   `json:"hostname"`
	Mode        Mode     `json:"mode"`
	Addresses   []string `json:"addresses"` // or "host"
	Dev         string   `json:"dev"`
	Ports       []string `json:"ports"`
	Forwards    []string `json:"forwards"`
	Metadata    bool     `json:"metadata"`
	Raw         bool     `json:"raw"`
	Init        []string `json:"init"`
	Nesting     bool     `json:"nesting"`
	Views       string   `json:"views,omitempty"`
	TrustDomain string   `json:"trustDomain,omitempty"`
	Memory      int64    `json:"memoryBytes"`
	CPUs        float64  `json:"cpus"`
	Processes   int64    `json:"processes"`
	Nice        int      `json:"nice,omitempty"`

	MemoryHigh  int64    `json:"memoryHighBytes,omitempty"`
	MemoryLow   int64    `json:"memoryLowBytes,omitempty"`
	MemoryMin   int64    `json:"memoryMinBytes,omitempty"`
	Swap        *int64   `json:"swapBytes,omitempty"`
	CPUBurst    float64  `json:"cpuBurst,omitempty"`
	CPUWeight   int      `json:"cpuWeight,omitempty"`
	Processors  string   `json:"processors,omitempty"`
	MemoryNodes string   `json:"memoryNodes,omitempty"`
	IO          []string `json:"io,omitempty"`
	IOWeight    int      `json:"ioWeight,omitempty"`
	Disk        int64    `json:"diskBytes,omitempty"`
	DiskSoft    int64    `json:"diskSoftBytes,omitempty"`
	Inodes      int64    `json:"inodes,omitempty"`
	InodesSoft  int64    `json:"inodesSoft,omitempty"`
	Ulimits     []string `json:"ulimits,omitempty"`
	IONice      string   `json:"ioNice,omitempty"`
	OOMScoreAdj int      `json:"oomScoreAdj,omitempty"`
	Autostart   string   `json:"autostart,omitempty"` // the mark
	Depends     []string `json:"depends,omitempty"`
	Restart     string   `json:"restart,omitempty"`
	Mounts      []string `json:"mounts,omitempty"`
	Volumes     []string `json:"volumes,omitempty"`
	Devices     []string `json:"devices,omitempty"`
	Shadowed    string   `json:"shadowed,omitempty"`
}

// Record returns the settings of g in their flat form.
func (g Guest) Record() Record {
	r := Record{
		Hostname: g.Hostname, Mode: g.Network.Mode, Addresses: texts(g.Network.Addresses), Dev: g.Network.Dev,
		Ports: texts(g.Network.Ports), Forwards: texts(g.Network.Forwards), Metadata: g.Network.Metadata, Raw: g.Network.Raw,
		Init: g.Init.Command, Nesting: !g.NoNesting, Views: g.Views, TrustDomain: g.TrustDomain,
		Memory: g.Limits.MemoryBytes, CPUs: g.Limits.CPUs, Processes: g.Limits.Processes, Nice: g.Nice,

		MemoryHigh: g.Limits.MemoryHighBytes, MemoryLow: g.Limits.MemoryLowBytes, MemoryMin: g.Limits.MemoryMinBytes, Swap: g.Limits.SwapBytes,
		CPUBurst: g.Limits.CPUBurst, CPUWeight: g.Limits.CPUWeight, Processors: g.Limits.Processors, MemoryNodes: g.Limits.MemoryNodes,
		IO: texts(g.Limits.IO), IOWeight: g.Limits.IOWeight,
		Disk: g.Limits.DiskBytes, DiskSoft: g.Limits.DiskSoftBytes, Inodes: g.Limits.Inodes, InodesSoft: g.Limits.InodesSoft,
		Ulimits: texts(g.Limits.Ulimits), IONice: g.IONice.String(), OOMScoreAdj: g.OOMScoreAdj,
		Autostart: g.Boot.Mark, Depends: g.Boot.Depends, Restart: g.Boot.Restart.String(),
		Mounts: texts(g.Mounts), Volumes: texts(g.Volumes), Devices: texts(g.Devices), Shadowed: g.Shadowed,
	}
	if len(r.Init) == 0 {
		r.Init = []string{g.Init.Style}
	}
	return r
}

// Check returns an error for values that no guest can have, wherever they come from.
func (g Guest) Check() error {
	for _, r := range Table {
		if r.check == nil {
			continue
		}
		if err := r.check(&g); err != nil {
			return fmt.Errorf("%s: %w", r.Key, err)
		}
	}
	return nil
}

func texts[T fmt.Stringer](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}
