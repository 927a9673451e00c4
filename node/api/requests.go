package api

import "time"

// Preamble is the line that vsnode writes before its first message, whether it
// serves or streams.
const Preamble = "\x00vsnode-serve-1\n"

// Method names a request, by the types of what is asked and what is answered:
// both ends are held to them by the compiler.
type Method[Request, Answer any] string

// None is asked or answered where the method says all.
type None struct{}

// Methods of `vsnode serve`.
const (
	MethodState       Method[None, State]               = "host.state"
	MethodCheck       Method[None, Check]               = "host.check"
	MethodStat        Method[None, Stat]                = "host.stat"
	MethodApply       Method[Apply, ApplyResult]        = "host.apply" // Event notifications on the way
	MethodLease       Method[Lease, LeaseAnswer]        = "host.lease"
	MethodRelease     Method[None, None]                = "host.release"
	MethodInstall     Method[None, Installed]           = "host.install"
	MethodFiles       Method[FilesRequest, FilesAnswer] = "guest.files"
	MethodRemoveImage Method[RemoveImage, RemovedImage] = "image.remove"
)

// Notifications.
const (
	NotifyEvent = "event" // node to controller: Event
	NotifyAlive = "alive" // controller to node, where nothing else is to be said
)

// A controller says something at least every AliveEvery. One that has been
// silent for Silence is gone, even if the connection looks open (a machine
// without power or asleep): what it asked for is undone, its lease ends.
const (
	AliveEvery = 30 * time.Second
	Silence    = 5 * time.Minute
)

// Holder is who holds the lease of a host: the right to change it.
type Holder struct {
	Run    string    `json:"run"`    // of the controller; it begins with its time
	Owner  string    `json:"owner"`  // user@machine of the controller
	PID    int       `json:"pid"`    // of vsfleet, there
	Reason string    `json:"reason"` // "apply", "guest stop"
	Since  time.Time `json:"since,omitzero"`
	Node   int       `json:"node,omitempty"` // pid of vsnode, on the host
}

// Lease asks for the lease of the host, until the session ends or gives it back.
type Lease struct {
	Holder Holder        `json:"holder"`
	Wait   time.Duration `json:"wait"` // for whoever holds it; 0: do not wait
}

// LeaseAnswer reports whether the session has the lease, and who holds it otherwise.
type LeaseAnswer struct {
	Held bool   `json:"held"`
	By   Holder `json:"by"`
}

// Installed is where vsnode was put for administrators of the host.
type Installed struct {
	Path  string   `json:"path"`
	Links []string `json:"links"` // names of links to it, beside it
}

// RemoveImage asks for an image to be removed that no guest uses.
type RemoveImage struct {
	Image string `json:"image"` // its ID, the beginning of its digest, or its name
}

// RemovedImage is what was removed.
type RemovedImage struct {
	ID string `json:"id,omitempty"` // empty: the host does not have it
}
