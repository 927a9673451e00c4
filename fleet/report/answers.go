package report

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/versions"
	"github.com/vsfleet/vsfleet/node/api"
)

// Ping is how a host answers.
type Ping struct {
	Host      api.Host
	Connect   time.Duration // to the end of authentication
	Start     time.Duration // of vsnode, with the push where it was missing
	RoundTrip time.Duration // of sshd
}

// PingRecord is how a host answers.
type PingRecord struct {
	Host      string  `json:"host"`
	Address   string  `json:"address"`
	Version   string  `json:"version"` // of vsnode
	Kernel    string  `json:"kernel"`
	OS        string  `json:"os"`
	Arch      string  `json:"arch"`
	Connect   float64 `json:"connectSeconds"`
	Start     float64 `json:"startSeconds"`
	RoundTrip float64 `json:"roundTripSeconds"`
	Result
}

// PingRecordOf returns the record of a host.
func PingRecordOf(host, address string, p Ping, result Result) PingRecord {
	return PingRecord{
		Host: host, Address: address, Version: p.Host.Version,
		Kernel: p.Host.Kernel, OS: p.Host.OS, Arch: p.Host.Arch,
		Connect: Seconds(p.Connect), Start: Seconds(p.Start), RoundTrip: Seconds(p.RoundTrip),
		Result: result,
	}
}

// GuestRecord is a guest as its host has it. A host that did not answer has one
// without a guest, whose status is the host's.
type GuestRecord struct {
	Host string `json:"host"`
	api.GuestState
	ImageName string       `json:"imageName"`
	Class     outcome.Kind `json:"class"`
	Error     string       `json:"error"`
}

// GuestRecords returns the records of the guests of a host, or why there are
// none.
func GuestRecords(host string, st api.State, result Result) []GuestRecord {
	if result.Status != outcome.OK {
		return []GuestRecord{{Host: host, GuestState: api.GuestState{Status: api.Status(result.Status)}, Class: result.Class, Error: result.Error}}
	}
	names := map[string]string{}
	for _, image := range st.Images {
		names[image.ID] = image.Spec.Name
	}
	var records []GuestRecord
	for _, g := range st.Guests {
		records = append(records, GuestRecord{Host: host, GuestState: g, ImageName: names[g.Image]})
	}
	return records
}

// UsageRecord is what a guest uses of one resource. A host that did not answer has one
// record without a guest.
type UsageRecord struct {
	Host    string `json:"host"`
	Guest   string `json:"guest"`
	Context int    `json:"context"`
	api.Counter
	Result
}

// UsageRecords returns the records of the guests on a host, or one with the error of the
// host.
func UsageRecords(host string, usage api.Usage, result Result) []UsageRecord {
	if result.Status != outcome.OK {
		return []UsageRecord{{Host: host, Result: result}}
	}
	var records []UsageRecord
	for _, g := range usage.Guests {
		for _, c := range g.Counters {
			records = append(records, UsageRecord{Host: host, Guest: g.Name, Context: g.Context, Counter: c, Result: result})
		}
	}
	return records
}

// CollectRecord is what a host has removed of its images.
type CollectRecord struct {
	Host string `json:"host"`
	api.Collected
	Result
}

// StoreRecord is what a host has found in its images.
type StoreRecord struct {
	Host string `json:"host"`
	api.StoreCheck
	Result
}

// StaleRecord is a guest that uses what newer versions have replaced. A host that did not
// answer has one record without a guest.
type StaleRecord struct {
	Host string `json:"host"`
	api.StaleGuest
	Version int    `json:"version,omitempty"` // of its image, by images.lock
	Wanted  string `json:"wanted,omitempty"`  // the ID of the image that it should have, if that is another
	Newer   int    `json:"newer,omitempty"`   // the version of that
	Result
}

// Stale reports whether the guest uses anything that has been replaced.
func (r StaleRecord) Stale() bool {
	return r.Wanted != "" || r.Runs != "" || r.Restart > 0 || r.Behind > 0
}

// StaleRecords returns the records of guests on a host that wanted chooses, or one with the
// error of the host.
func StaleRecords(host string, answer api.StaleAnswer, images map[string]string, known versions.File, wanted func(guest string) bool, result Result) []StaleRecord {
	if result.Status != outcome.OK {
		return []StaleRecord{{Host: host, Result: result}}
	}
	number := func(id string) int {
		_, v, _ := known.Find(id)
		return v.Number
	}
	var records []StaleRecord
	for _, g := range answer.Guests {
		if !wanted(g.Name) {
			continue
		}
		r := StaleRecord{Host: host, StaleGuest: g, Version: number(g.Image), Result: result}
		if id := images[g.Name]; id != g.Image {
			r.Wanted, r.Newer = id, number(id)
		}
		records = append(records, r)
	}
	return records
}

// GenerationRecord is a generation of a guest that a host keeps. A host that did not
// answer has one record without a guest.
type GenerationRecord struct {
	Host string `json:"host"`
	api.Generation
	Result
}

// GenerationRecords returns the records of the generations on a host, or one with the
// error of the host.
func GenerationRecords(host string, kept api.Generations, result Result) []GenerationRecord {
	if result.Status != outcome.OK {
		return []GenerationRecord{{Host: host, Result: result}}
	}
	var records []GenerationRecord
	for _, g := range kept.Kept {
		records = append(records, GenerationRecord{Host: host, Generation: g, Result: result})
	}
	return records
}

// HashifiedRecord is what a guest shares with others now, or could. A host that did not
// answer has one record without a guest.
type HashifiedRecord struct {
	Host string `json:"host"`
	api.HashifiedGuest
	Result
}

// HashifiedRecords returns the records of the guests of a host, or one with the error of
// the host.
func HashifiedRecords(host string, done api.Hashified, result Result) []HashifiedRecord {
	if result.Status != outcome.OK {
		return []HashifiedRecord{{Host: host, Result: result}}
	}
	var records []HashifiedRecord
	for _, g := range done.Guests {
		records = append(records, HashifiedRecord{Host: host, HashifiedGuest: g, Result: result})
	}
	return records
}

// VolumeRecord is a volume of a host. A host that did not answer has one record without
// a volume.
type VolumeRecord struct {
	Host string `json:"host"`
	api.Volume
	Result
}

// VolumeRecords returns the records of the volumes of a host, or one with the error of
// the host.
func VolumeRecords(host string, v api.Volumes, result Result) []VolumeRecord {
	if result.Status != outcome.OK {
		return []VolumeRecord{{Host: host, Result: result}}
	}
	var records []VolumeRecord
	for _, volume := range v.Volumes {
		records = append(records, VolumeRecord{Host: host, Volume: volume, Result: result})
	}
	return records
}

// LockRecord describes who may change a host.
type LockRecord struct {
	Host string `json:"host"`
	api.Locks
	Result
}

// Unlocked describes the locks and runs that were ended on a host.
func Unlocked(u api.Unlocked) string {
	var parts []string
	if u.Lease != nil {
		parts = append(parts, fmt.Sprintf("ended run %s of %s (%s)", u.Lease.Run, u.Lease.Owner, u.Lease.Reason))
	}
	if u.Lock != nil {
		parts = append(parts, fmt.Sprintf("released the lock of %s (%s)", u.Lock.Owner, u.Lock.Reason))
	}
	if parts == nil {
		return "it was not locked"
	}
	return strings.Join(parts, ", ")
}

// ImageRecord is an image of a host.
type ImageRecord struct {
	Host string `json:"host"`
	api.Image
	Version int  `json:"version,omitempty"` // by images.lock; 0: it names none with this ID
	Held    bool `json:"held,omitempty"`
	Guests  int  `json:"guests"` // that are made of it
	Result
}

// ImageRecords returns the records of the images of a host, or why there are
// none.
func ImageRecords(host string, st api.State, known versions.File, result Result) []ImageRecord {
	if result.Status != outcome.OK {
		return []ImageRecord{{Host: host, Result: result}}
	}
	uses := map[string]int{}
	for _, g := range st.Guests {
		uses[g.Image]++
	}
	var records []ImageRecord
	for _, image := range st.Images {
		_, v, _ := known.Find(image.ID)
		records = append(records, ImageRecord{Host: host, Image: image, Version: v.Number, Held: v.Held != nil, Guests: uses[image.ID], Result: result})
	}
	return records
}

// VersionRecord is a version of an image of the inventory.
type VersionRecord struct {
	Image string `json:"image"`
	versions.Version
	Current bool `json:"current"`
	// OtherSpec: it is of another spec than the inventory's, and would be current for that.
	OtherSpec bool `json:"otherSpec,omitempty"`
}

// String returns NAME@VERSION.
func (r VersionRecord) String() string { return r.Image + "@" + strconv.Itoa(r.Number) }

// VersionRecords returns the versions of images that the inventory knows, the newest first.
// names are those to show; none: all. specs are the keys of the inventory's specs by name.
func VersionRecords(known versions.File, specs map[string]string, names ...string) []VersionRecord {
	var records []VersionRecord
	for _, name := range slices.Sorted(maps.Keys(known.Images)) {
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		for _, v := range slices.Backward(known.Images[name]) {
			now, _ := known.Current(name, v.Key, v.Arch)
			current, key := now.Number == v.Number, specs[name]
			other := key != "" && key != v.Key
			records = append(records, VersionRecord{Image: name, Version: v, Current: current && !other, OtherSpec: current && other})
		}
	}
	return records
}

// TextRecord is what a host answered to a request that has no data.
type TextRecord struct {
	Host string `json:"host"`
	Text string `json:"text"`
	Result
}

// KeyRecord is a host key.
type KeyRecord struct {
	Host        string `json:"host"`
	Address     string `json:"address"` // as known_hosts has it
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"`
	State       string `json:"state"` // known, new, changed, hidden, missing
	Added       bool   `json:"added"` // to known_hosts, by this call
	Error       string `json:"error,omitempty"`
	// AlsoKnownAs are other hosts with this key, as known_hosts or the inventory name them.
	AlsoKnownAs []string `json:"alsoKnownAs,omitempty"`
}

// MostOutput is what is kept of each stream of a command.
const MostOutput = 1 << 20

// OutputRecord is what a command wrote on one host or in one guest.
type OutputRecord struct {
	Host   string  `json:"host"`
	Guest  string  `json:"guest,omitempty"`
	Exit   *int    `json:"exit"` // null where nobody knows
	Stdout string  `json:"stdout"`
	Stderr string  `json:"stderr"`
	Cut    bool    `json:"cut"` // there was more than is kept
	Took   float64 `json:"tookSeconds"`
	Result
}

// Place names the host, or the guest on it.
func (r OutputRecord) Place() string {
	if r.Guest == "" {
		return r.Host
	}
	return r.Host + "/" + r.Guest
}

// Empty reports whether the command was not even begun, or wrote nothing before
// it was given up: the errors at the end say why.
func (r OutputRecord) Empty() bool { return r.Exit == nil && r.Stdout == "" && r.Stderr == "" }

// LabRecord is a host of the lab.
type LabRecord struct {
	Host    string     `json:"host"`
	Address netip.Addr `json:"address"`
	Up      bool       `json:"up"`
	SSH     bool       `json:"ssh"`
	PID     int        `json:"pid"`
	Guests  int        `json:"guests"`
}

// ImageSpread is how far the hosts of a fleet differ in an image.
type ImageSpread struct {
	Name    string   `json:"name"`
	Version int      `json:"version,omitempty"` // the current one, by images.lock
	IDs     []string `json:"ids"`               // of it, one for each architecture; without a version that which most hosts have
	Hosts   int      `json:"hosts"`             // asked
	Have    []string `json:"have"`
	// Others have other versions only.
	Others  []OtherImage `json:"others"`
	Lack    []string     `json:"lack"`    // their guests need it, by the inventory, and they have no version
	Unknown []string     `json:"unknown"` // they did not answer
	Guests  int          `json:"guests"`  // made of any version
	Current int          `json:"current"` // of these, made of this one
}

// OtherImage is another version of an image than the current one, and who has it.
type OtherImage struct {
	Version int      `json:"version,omitempty"`
	ID      string   `json:"id"` // of one of them
	Hosts   []string `json:"hosts"`
}

// BackupRecord is a backup of a directory.
type BackupRecord struct {
	Backup  string    `json:"backup"` // HOST/GUEST/TIME.backup
	Host    string    `json:"host"`
	Guest   string    `json:"guest"`
	Taken   time.Time `json:"taken"`
	Running bool      `json:"running"` // the guest, before
	Image   string    `json:"image,omitempty"`
	Files   int       `json:"files"`
	Size    int64     `json:"size"`              // of what they hold
	Added   int64     `json:"added"`             // to the directory
	Problem string    `json:"problem,omitempty"` // why it cannot be read
}
