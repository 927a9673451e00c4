package report

import "time"

// EventKind is what an event is about.
type EventKind string

// Kinds of events.
const (
	Started  EventKind = "started"
	Progress EventKind = "progress" // what is done at the moment
	Warning  EventKind = "warning"  // a person has to see it
	Done     EventKind = "done"
)

// Event is sent while a run is under way: of one step, of one state of a host,
// of the host as a whole (Step and State are empty), or of the run (Host is empty,
// too).
type Event struct {
	Run     string    `json:"run,omitempty"` // its ID
	Time    time.Time `json:"time,omitzero"`
	Kind    EventKind `json:"kind"`
	Host    string    `json:"host,omitempty"`
	State   string    `json:"state,omitempty"` // as in Host
	Step    *Step     `json:"step,omitempty"`  // of Kind Done: with its result
	Message string    `json:"message,omitempty"`
	Done    int64     `json:"done,omitempty"` // of Total; 0 of 0: not known
	Total   int64     `json:"total,omitempty"`
	Result  *Result   `json:"result,omitempty"` // of Kind Done, of the host as a whole
}
