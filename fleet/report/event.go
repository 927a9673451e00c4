package report

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// EventKind is what an event is about.
type EventKind string

// Kinds of events.
const (
	Started  EventKind = "started"
	Progress EventKind = "progress" // what is done at the moment
	Warning  EventKind = "warning"  // a person has to see it
	HostPlan EventKind = "plan"     // the steps that a host is going to take
	Written  EventKind = "output"   // what a command wrote, when it has ended

	BatchBegun EventKind = "batch"      // Batch
	BatchDone  EventKind = "batch.done" // Batch
	Done       EventKind = "done"
)

// Event is sent while a run is under way: of one step, of one state of a host,
// of the host as a whole (Step and State are empty), or of the run (Host is empty,
// too). The first event of a run is of Kind Started and the last one of Kind Done,
// both of the run; all events together hold what the [Run] holds, see [Collector].
type Event struct {
	Run     string    `json:"run,omitempty"` // its ID
	Time    time.Time `json:"time,omitzero"`
	Kind    EventKind `json:"kind,omitempty"`
	Host    string    `json:"host,omitempty"`
	State   string    `json:"state,omitempty"` // as in Host
	Step    *Step     `json:"step,omitempty"`  // of Kind Done: with its result
	Message string    `json:"message,omitempty"`
	Done    int64     `json:"done,omitempty"` // of Total; 0 of 0: not known
	Total   int64     `json:"total,omitempty"`
	Result  *Result   `json:"result,omitempty"` // of Kind Done, of the host as a whole

	Batch  *Batch        `json:"batch,omitempty"`  // that begins, has ended, or is waited for
	Steps  []Step        `json:"steps,omitempty"`  // of Kind HostPlan
	Output *OutputRecord `json:"output,omitempty"` // of Kind Written
	Report *Host         `json:"report,omitempty"` // of Kind Done, of the host as a whole

	// Of the run, Kind Started:
	Who   string   `json:"who,omitempty"`
	Verb  string   `json:"verb,omitempty"`
	Hosts []string `json:"hosts,omitempty"`
	// Of the run, Kind Done:
	Outcomes map[outcome.Outcome]int `json:"outcomes,omitempty"`
	Notes    []string                `json:"notes,omitempty"`
	Stopped  string                  `json:"stopped,omitempty"`
}

// NewID returns the ID of a run that began at a time. IDs sort by time.
func NewID(begun time.Time) string {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return begun.UTC().Format("20060102T150405Z-") + hex.EncodeToString(b[:])
}

// Watchers returns a function that passes an event to each of several watchers.
// Watchers that are nil are skipped.
func Watchers(list ...func(Event)) func(Event) {
	return func(e Event) {
		for _, watch := range list {
			if watch != nil {
				watch(e)
			}
		}
	}
}

// Began returns the first event of a run.
func Began(r Run) Event {
	e := Event{Run: r.ID, Time: r.When, Kind: Started, Who: r.Who, Verb: r.Verb}
	for _, h := range r.Hosts {
		e.Hosts = append(e.Hosts, h.Name)
	}
	return e
}

// Ended returns the last event of a run.
func Ended(r Run) Event {
	return Event{Run: r.ID, Time: r.When.Add(r.Took), Kind: Done, Notes: r.Notes, Stopped: r.Stopped, Outcomes: r.Counts()}
}
