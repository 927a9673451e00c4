package api

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vsfleet/vsfleet/internal/health"
	"github.com/vsfleet/vsfleet/internal/setting"
)

// Bounds of a context id (XID); 0 is the host itself, 1 was Linux-VServer's
// watch context. Automatic ids are those from FirstAutoContext to
// LastAutoContext: above the ids that systemd-nspawn -U and systemd-nsresourced
// take (0x80000 to 0x6fffffff, contexts 8 to 28671), and below systemd's foreign
// ids (context 32766) and the end of the kernel's ping_group_range (context 32767).
const (
	MinContext       = 2
	MaxContext       = 49151
	FirstAutoContext = 28672
	LastAutoContext  = 32765
)

// A guest consists of the same settings here as in the inventory: package setting has
// the table of all of them.
type (
	// Guest is the settings of a guest.
	Guest = setting.Guest
	// Network is how a guest uses the network.
	Network = setting.Network
	// Place is where one address of an old guest is put.
	Place = setting.Place
	// Init is the first process of a guest.
	Init = setting.Init
	// Limits bound what a guest may use.
	Limits = setting.Limits
	// Mode is the network mode of a guest.
	Mode = setting.Mode
)

// Modes.
const (
	ModeShared = setting.Shared
	ModeOwn    = setting.Own
	ModeNAT    = setting.NAT
)

// Status of a guest, read from the kernel: running is a populated cgroup.
type Status string

// Statuses.
const (
	Running Status = "running"
	Stopped Status = "stopped"
)

// GuestState is a configured guest and what it does at the moment.
type GuestState struct {
	Guest
	Status    Status    `json:"status"`
	InitPID   int       `json:"initPID,omitempty"` // as the host numbers it
	Processes int       `json:"processes,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Ended     *End      `json:"ended,omitempty"` // of a stopped guest that nobody stopped
	// Runs are the settings that a running guest was started with, if they differ
	// from the configured ones: the difference needs a restart.
	Runs *Guest `json:"runs,omitempty"`
	// Drift describes what has changed since the start of a running guest, one text
	// per item: an address that somebody removed, a packet filter that was flushed.
	Drift []string `json:"drift,omitempty"`
	// Hooks are the moments for which its configuration has a hook of an inventory.
	Hooks []string `json:"hooks,omitempty"`
	// Unread are the parts of its configuration that have no effect.
	Unread  []Unread `json:"unread,omitempty"`
	Problem string   `json:"problem,omitempty"` // why the configuration cannot be used
}

// End describes how a guest ended that nobody stopped.
type End struct {
	// Time of the end if vsnode saw it, else of when it was found.
	Time time.Time `json:"time"`
	Seen bool      `json:"seen"` // Status and Signal are known
	// Status and Signal are those of process 1.
	Status     int    `json:"status"`
	Signal     string `json:"signal,omitempty"`     // "SIGSEGV"
	OOMKills   int    `json:"oomKills,omitempty"`   // processes that the kernel killed for want of memory
	LastOutput string `json:"lastOutput,omitempty"` // its last line on the console
	Restart    string `json:"restart,omitempty"`    // after a reboot from inside: why it could not be started again
}

// String describes briefly how process 1 ended, as far as that was seen.
func (e End) String() string {
	how := "ended by itself"
	switch {
	case !e.Seen:
	case e.Signal == "SIGHUP": // reboot(2), "Behavior inside PID namespaces"
		how = "rebooted from inside"
	case e.Signal == "SIGINT":
		how = "powered off from inside"
	case e.Signal != "":
		how = "killed by " + e.Signal
	default:
		how = fmt.Sprintf("exit status %d", e.Status)
	}
	if e.OOMKills > 0 {
		how += fmt.Sprintf(", out of memory: %d processes killed", e.OOMKills)
	}
	if e.Restart != "" {
		how += ", and not started again: " + e.Restart
	}
	return how
}

// ImageSpec describes how a reference installation is made.
type ImageSpec struct {
	Name     string   `json:"name"`
	Method   string   `json:"method"`             // of buildmethod.Table
	Args     []string `json:"args,omitempty"`     // the method's, as after vserver's `--`
	Packages []string `json:"packages,omitempty"` // to install besides the method's own
	Files    []File   `json:"files,omitempty"`    // to put into it; their contents only where it is to be built
}

// Image is a reference installation that a host has.
type Image struct {
	ID      string    `json:"id"` // "sha256:…" of its content: equal trees have equal IDs
	Spec    ImageSpec `json:"spec"`
	Key     string    `json:"key"` // ImageSpec.Key of Spec: what it was built from
	Bytes   int64     `json:"bytes"`
	Files   int64     `json:"files"`
	Created time.Time `json:"created"`
	// Description is the fs-verity digest of its composefs description on this host; empty
	// if the host keeps it as a plain tree.
	Description string `json:"description,omitempty"`
	Source      string `json:"source,omitempty"` // of a registry: "HOST/NAME@sha256:…", the manifest that it was built from
}

// Most returns an upper bound for the image as a stream, in bytes: with holes and archive
// headers it is larger than the content of its files.
func (i Image) Most() int64 {
	const largest = 1 << 44 // keeps the sum a number
	return 2*min(i.Bytes, largest) + 16<<10*min(i.Files, largest>>14) + 64<<20
}

// State is all that a plan needs to know of a host.
type State struct {
	Host   Host         `json:"host"`
	Guests []GuestState `json:"guests"` // by context
	Images []Image      `json:"images"` // by name, newest first
}

// Host describes the machine.
type Host struct {
	Hostname    string   `json:"hostname"`
	Kernel      string   `json:"kernel"` // uname -r
	Arch        string   `json:"arch"`   // GOARCH
	OS          string   `json:"os"`     // PRETTY_NAME of os-release
	BootID      string   `json:"bootID"`
	CPUs        int      `json:"cpus"`
	MemoryBytes int64    `json:"memoryBytes"`
	FreeBytes   int64    `json:"freeBytes"`         // for guests and images; 0: unknown
	Controllers []string `json:"controllers"`       // of cgroup v2
	NoQuota     string   `json:"noQuota,omitempty"` // why it limits no guest's disk space, and the cure; empty: it does
	Methods     []string `json:"methods"`           // of ImageSpec that it has the tools for
	Version     string   `json:"version"`           // of vsnode
	// DefaultAddress is the address of the host on the device of its default
	// route, or of its first global one: what "address: host" means.
	DefaultAddress netip.Prefix `json:"defaultAddress,omitzero"`
	DefaultDev     string       `json:"defaultDev,omitempty"`
}

// StepKind is one thing that can be done on a host.
type StepKind string

// Kinds of steps, and the field of Step that each is about.
const (
	StepBuildImage StepKind = "image.build"     // Image
	StepImport     StepKind = "image.import"    // Image; the controller's own step, never sent to a host
	StepCreate     StepKind = "guest.create"    // Guest
	StepConfigure  StepKind = "guest.configure" // Guest; a running one takes limits, ports and forwards at once, the rest at its next start
	StepFiles      StepKind = "guest.files"     // Name, Files; and what a running guest has to do of an earlier one
	StepStart      StepKind = "guest.start"     // Name
	StepRepair     StepKind = "guest.repair"    // Name; puts back what is in GuestState.Drift while it runs
	StepStop       StepKind = "guest.stop"      // Name
	StepRestart    StepKind = "guest.restart"   // Name
	StepDelete     StepKind = "guest.delete"    // Name; stops it first
	StepHealth     StepKind = "guest.health"    // Name, Health; waits until it is healthy, and changes nothing
	StepRevert     StepKind = "guest.revert"    // Name, Generation; puts back how it was before a run changed it
	StepUpgrade    StepKind = "guest.upgrade"   // Name; the packages of a running guest
	StepAside      StepKind = "guest.aside"     // Name; stopped, it is renamed with all that it has
	StepForget     StepKind = "guest.forget"    // Name; removes all that StepRevert could put back
)

// Newest is the generation that was kept last; see Step.Generation.
const Newest = "newest"

// Step is one step of a plan.
type Step struct {
	Kind  StepKind   `json:"kind"`
	Name  string     `json:"name,omitempty"`
	Guest *Guest     `json:"guest,omitempty"`
	Image *ImageSpec `json:"image,omitempty"`
	Anew  bool       `json:"anew,omitempty"` // build the image even if there is one of its spec
	// Upgrade is the ID of an image whose packages are upgraded in a copy of it, in place of a
	// build by the method.
	Upgrade string `json:"upgrade,omitempty"`
	Files   []File `json:"files,omitempty"`
	// Generation is the one that StepRevert puts back: the id of the run before
	// whose changes the host kept it, or Newest. Empty: that of this run.
	Generation string   `json:"generation,omitempty"`
	Exec       *Command `json:"exec,omitempty"`
	Wait       *Wait    `json:"wait,omitempty"`
	Path       string   `json:"path,omitempty"`
	Health     *Health  `json:"health,omitempty"`
	Why        string   `json:"why"` // for people: "context 120 is not there", "image changed"

	// Tolerated means that the steps after it are taken even if it fails.
	Tolerated bool `json:"tolerated,omitempty"`
	// Title is the step's name in a playbook, for people; it stays on the controller.
	Title string `json:"-"`
}

// What a guest must do to count as healthy is the same here as in the inventory.
type (
	// Health is when a guest counts as healthy.
	Health = health.Health
	// HealthCheck is one condition of it.
	HealthCheck = health.Check
	// HealthHTTP is a check that asks for a page.
	HealthHTTP = health.HTTP
)

// Apply asks a host to take the steps in order. A step that fails ends the
// steps of that guest (those after it are skipped); other guests go on.
type Apply struct {
	Run   string `json:"run"` // id of the run, echoed in events
	Steps []Step `json:"steps"`
	// InOrder has all steps taken one after the other, whatever they are about. The first
	// one that fails ends them.
	InOrder bool `json:"inOrder,omitempty"`
	// Ready names guests that StepHealth will ask whether their inits have sent READY=1:
	// starts in this session listen for that.
	Ready []string `json:"ready,omitempty"`
	Guard *Guard   `json:"guard,omitempty"` // nil: no step can cut the controller off
}

// Guard has a host put guests back by itself unless the controller confirms, over a
// connection that it makes after the steps, that it still reaches the host.
type Guard struct {
	Guests []string      `json:"guests"` // to be put back, the last first
	Within time.Duration `json:"within"` // of the last step
}

// EventKind is the kind of an Event.
type EventKind string

// Kinds of events.
const (
	Started  EventKind = "started"  // the step has begun
	Progress EventKind = "progress" // what the step is doing
	Warning  EventKind = "warning"  // a person has to see it
)

// Event is sent while a step is under way. Progress may be lost on the way to a
// controller that is slow to read, warnings are not.
type Event struct {
	Run     string    `json:"run"`
	Kind    EventKind `json:"kind"`
	Step    int       `json:"step"`              // index in Apply.Steps
	Message string    `json:"message,omitempty"` // "unpacking libc6", "waiting for 3 processes"
	Done    int64     `json:"done,omitempty"`    // of Total; 0 of 0: not known
	Total   int64     `json:"total,omitempty"`
}

// Outcome of a step.
type Outcome string

// Outcomes.
const (
	Changed   Outcome = "changed"
	Unchanged Outcome = "unchanged" // there was nothing to do
	Failed    Outcome = "failed"    // and undone as far as Error says
	Skipped   Outcome = "skipped"   // an earlier step of the guest failed, or the run was cancelled
)

// StepResult is the result of a step.
type StepResult struct {
	Outcome Outcome   `json:"outcome"`
	Error   string    `json:"error,omitempty"`
	Image   *Image    `json:"image,omitempty"` // of image.build
	Ran     *Ran      `json:"ran,omitempty"`   // of exec, if the command was run
	File    *FileInfo `json:"file,omitempty"`  // of stat
	Sent    int64     `json:"sent,omitempty"`  // bytes, of image.import: the controller's own count
	// Elsewhere means that the host lacks something that another may have: a tool, an
	// archive.
	Elsewhere bool          `json:"elsewhere,omitempty"`
	Took      time.Duration `json:"took"`
}

// ApplyResult has one result per step, in order.
type ApplyResult struct {
	Results []StepResult `json:"results"`
}

// Stat is the resource usage of a host and its guests.
type Stat struct {
	Time time.Time `json:"time"`
	Rows []StatRow `json:"rows"` // by context, the host (0) first
}

// StatRow is one line of vserver-stat. Traffic is nil where nothing counts it.
type StatRow struct {
	Context   int           `json:"context"`
	Name      string        `json:"name"`
	Processes int           `json:"processes"`
	VSZ       uint64        `json:"vsz"` // bytes
	RSS       uint64        `json:"rss"` // bytes
	User      time.Duration `json:"user"`
	Sys       time.Duration `json:"sys"`
	Uptime    time.Duration `json:"uptime"`
	Traffic   *Traffic      `json:"traffic,omitempty"`
}

// Traffic counts packets and bytes since the guest's start.
type Traffic struct {
	V4In, V4Out, V6In, V6Out Count
}

// Count of packets and of their bytes (IP header and up).
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Check is whether a host is able, one row a feature.
type Check struct {
	Rows []CheckRow `json:"rows"`
}

// Verdict of a probe: "could not tell" is not "no".
type Verdict string

// Verdicts.
const (
	Yes     Verdict = "yes"
	No      Verdict = "no"
	Unknown Verdict = "unknown"
)

// CheckRow is one feature that vsnode asks the kernel or the host for.
type CheckRow struct {
	Name     string  `json:"name"`     // "cgroup v2", "idmapped mounts"
	For      string  `json:"for"`      // what it is for
	Required bool    `json:"required"` // no guest starts without it
	Verdict  Verdict `json:"verdict"`
	Detail   string  `json:"detail,omitempty"` // what was seen
	Lost     string  `json:"lost,omitempty"`   // what is lost without it
	Cure     string  `json:"cure,omitempty"`   // what to do about it
}
