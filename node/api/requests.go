package api

import "time"

// Preamble is the line that vsnode writes before its first message, whether it
// serves or streams.
const Preamble = "\x00vsnode-serve-1\n"

// Method is the name of a request, with the types of the request and the answer, which
// the compiler checks at both ends.
type Method[Request, Answer any] string

// None is an empty request or answer.
type None struct{}

// Methods of `vsnode serve`.
const (
	MethodState       Method[None, State]               = "host.state"
	MethodCheck       Method[None, Check]               = "host.check"
	MethodStat        Method[None, Stat]                = "host.stat"
	MethodApply       Method[Apply, ApplyResult]        = "host.apply" // Event notifications on the way
	MethodLease       Method[Lease, LeaseAnswer]        = "host.lease"
	MethodRelease     Method[None, None]                = "host.release"
	MethodLocks       Method[None, Locks]               = "host.locks"
	MethodLock        Method[Lock, None]                = "host.lock"
	MethodUnlock      Method[Unlock, Unlocked]          = "host.unlock"
	MethodConfirm     Method[Confirm, Confirmed]        = "host.confirm"
	MethodInstall     Method[None, Installed]           = "host.install"
	MethodFiles       Method[FilesRequest, FilesAnswer] = "guest.files"
	MethodUsage       Method[None, Usage]               = "guest.usage"
	MethodStale       Method[StaleRequest, StaleAnswer] = "guest.stale"
	MethodGenerations Method[None, Generations]         = "guest.generations"
	MethodRemoveImage Method[RemoveImage, RemovedImage] = "image.remove"
	MethodHashify     Method[Hashify, Hashified]        = "guest.hashify"
	MethodVolumes     Method[None, Volumes]             = "volume.list"
	MethodDelVolume   Method[DeleteVolume, Deleted]     = "volume.delete"
	MethodCollect     Method[Collect, Collected]        = "image.gc"
	MethodArrived     Method[ExportImage, Arrived]      = "image.arrived"
	MethodCheckStore  Method[None, StoreCheck]          = "image.check"
)

// Notifications.
const (
	NotifyEvent = "event" // node to controller: Event
	NotifyAlive = "alive" // controller to node, if there is nothing else to send
)

// A controller sends something at least every AliveEvery. If it has been silent for
// Silence, it counts as gone, even if the connection looks open (a machine without
// power or asleep): its requests are undone and its lease ends.
const (
	AliveEvery = 30 * time.Second
	Silence    = 5 * time.Minute
)

// Holder identifies the holder of a host's lease, which is the right to change the
// host.
type Holder struct {
	Run    string    `json:"run"`    // of the controller; it begins with its time
	Owner  string    `json:"owner"`  // user@machine of the controller
	PID    int       `json:"pid"`    // of vsfleet, there
	Reason string    `json:"reason"` // "apply", "guest stop"
	Since  time.Time `json:"since,omitzero"`
	Node   int       `json:"node,omitempty"` // pid of vsnode, on the host
	// Until is the end of the HostLock of a person; zero: it is the lease of a run.
	Until time.Time `json:"until,omitzero"`
}

// HostLock keeps all runs off a host until a time, whatever becomes of whoever took it.
type HostLock struct {
	Run    string    `json:"run"` // that took it
	Owner  string    `json:"owner"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until"`
}

// Lock requests a HostLock, which begins now.
type Lock struct {
	Run    string        `json:"run"`
	Owner  string        `json:"owner"`
	Reason string        `json:"reason"`
	For    time.Duration `json:"for"`
}

// Locks describes who may change a host.
type Locks struct {
	Lease *Holder   `json:"lease,omitempty"` // the run that is changing it
	Heard time.Time `json:"heard,omitzero"`  // when that run's controller was last heard
	Lock  *HostLock `json:"lock,omitempty"`
}

// Unlock requests the end of whatever keeps runs off a host.
type Unlock struct {
	Wait time.Duration `json:"wait"` // for a run that is changing it, to finish or undo its steps
}

// Unlocked is what Unlock has ended.
type Unlocked struct {
	Lease *Holder   `json:"lease,omitempty"`
	Lock  *HostLock `json:"lock,omitempty"`
}

// Lease requests the lease of the host, until the session ends or gives it back.
type Lease struct {
	Holder Holder        `json:"holder"`
	Wait   time.Duration `json:"wait"` // for the current holder; 0: do not wait
}

// LeaseAnswer reports whether the session has the lease, and who holds it otherwise.
type LeaseAnswer struct {
	Held bool   `json:"held"`
	By   Holder `json:"by"`
	// Reverted is what the host has put back of an earlier run.
	Reverted *Reverted `json:"reverted,omitempty"`
}

// Confirm confirms, over a connection that was made after a run's steps, that its
// controller still reaches the host.
type Confirm struct {
	Run string `json:"run"`
}

// Confirmed is what came of a confirmation.
type Confirmed struct {
	Reverted *Reverted `json:"reverted,omitempty"` // it came too late
}

// Reverted is what a host has put back by itself, because nobody confirmed a run's
// steps.
type Reverted struct {
	Run    string    `json:"run"`
	Owner  string    `json:"owner"`  // of the run
	Reason string    `json:"reason"` // of the run
	Guests []string  `json:"guests"`
	Time   time.Time `json:"time"`
	Error  string    `json:"error,omitempty"` // what could not be put back
}

// Installed describes where vsnode was installed for administrators of the host.
type Installed struct {
	Path  string   `json:"path"`
	Links []string `json:"links"` // names of links to it, beside it
}

// Collect requests the removal of images that nothing uses, and of objects that no image has.
type Collect struct {
	All bool `json:"all,omitempty"` // the newest image of each name, too
	Dry bool `json:"dry,omitempty"` // only count
	// Keep are the IDs of images that stay, whoever uses them.
	Keep []string `json:"keep,omitempty"`
}

// Collected is what a Collect has removed.
type Collected struct {
	Images  []Image  `json:"images,omitempty"`
	Objects int      `json:"objects"`
	Bytes   int64    `json:"bytes"` // that the objects took on the disk
	Notes   []string `json:"notes,omitempty"`
}

// StoreCheck is what reading all of a host's store has found.
type StoreCheck struct {
	Images  int      `json:"images"`
	Objects int      `json:"objects"`
	Damaged []Damage `json:"damaged,omitempty"`
}

// Damage is something in the store that is not what it should be.
type Damage struct {
	What   string   `json:"what"`
	Images []string `json:"images,omitempty"` // IDs of those that have it
	Users  []string `json:"users,omitempty"`  // of these images
}

// RemoveImage requests the removal of an image that no guest uses.
type RemoveImage struct {
	Image string `json:"image"` // its ID, the beginning of its digest, or its name
}

// RemovedImage identifies the image that was removed.
type RemovedImage struct {
	ID string `json:"id,omitempty"` // empty: the host does not have it
}

// Hashify requests that files of guests with a content that others have too are kept once.
type Hashify struct {
	Guests []string `json:"guests,omitempty"` // none: all
	Dry    bool     `json:"dry,omitempty"`    // only report what there is
}

// Hashified is what a Hashify has done, by guest.
type Hashified struct {
	Guests []HashifiedGuest `json:"guests"`
}

// HashifiedGuest is what a guest has given up.
type HashifiedGuest struct {
	Name    string `json:"name"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`             // on the disk, that these files took
	Added   int64  `json:"added"`             // that new objects take in their place
	Later   bool   `json:"later,omitempty"`   // it runs: at its next start
	Problem string `json:"problem,omitempty"` // why it was left as it is
}

// Volumes are those of a host, by name.
type Volumes struct {
	Volumes []Volume `json:"volumes"`
}

// A Volume is a directory that outlives the guests that use it.
type Volume struct {
	Name   string   `json:"name"`
	Bytes  int64    `json:"bytes"`  // on disk
	Guests []string `json:"guests"` // that are configured with it, or run with it
}

// DeleteVolume requests the deletion of a volume that no guest has.
type DeleteVolume struct {
	Name string `json:"name"`
}

// Deleted reports whether there was something to delete.
type Deleted struct {
	Deleted bool `json:"deleted"`
}

// Generations are those that a host keeps, by guest, each guest's newest first.
type Generations struct {
	Kept []Generation `json:"kept"`
}

// Generation is how a guest was before a run changed it: what StepRevert puts back.
type Generation struct {
	Guest   string    `json:"guest"`
	Number  int       `json:"number"` // a later one of the guest has a greater number
	Run     string    `json:"run"`
	Owner   string    `json:"owner"`  // of the run
	Reason  string    `json:"reason"` // of the run: "apply"
	Kept    time.Time `json:"kept"`
	Created bool      `json:"created,omitempty"` // there was no guest
	Running bool      `json:"running,omitempty"`
	Config  bool      `json:"config,omitempty"` // the run has changed the configuration
	Files   []string  `json:"files,omitempty"`  // that the run has written
	Layer   bool      `json:"layer,omitempty"`  // all of the guest's own files are kept
}
