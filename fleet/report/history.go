package report

import (
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// KeptStatus is the status of a recorded run as a whole.
type KeptStatus string

// Statuses of recorded runs.
const (
	KeptOK          KeptStatus = "ok"
	KeptFailed      KeptStatus = "failed"      // the exit status was not 0
	KeptRunning     KeptStatus = "running"     // it has not ended
	KeptInterrupted KeptStatus = "interrupted" // somebody interrupted it, or vsfleet ended before the run did: results that did not arrive are unknown
)

// InventoryRecord identifies the inventory of a run.
type InventoryRecord struct {
	Files    []string `json:"files,omitempty"`
	Digest   string   `json:"digest,omitempty"`   // of their contents
	Revision string   `json:"revision,omitempty"` // of git
	Dirty    bool     `json:"dirty,omitempty"`    // they differ from that revision
}

// HistoryRecord is a recorded run, for lists.
type HistoryRecord struct {
	ID       string                  `json:"id"`
	When     time.Time               `json:"when"`
	Took     float64                 `json:"tookSeconds"`
	Who      string                  `json:"who"` // user@machine of the controller
	Verb     string                  `json:"verb"`
	Status   KeptStatus              `json:"status"`
	Exit     *int                    `json:"exit"`  // null: not known
	Hosts    string                  `json:"hosts"` // as a set: web[01-03]
	Outcomes map[outcome.Outcome]int `json:"outcomes"`
	Args     []string                `json:"args"` // of the command line, without secrets
	Redacted bool                    `json:"redacted,omitempty"`
	Dir      string                  `json:"directory"`
	Of       string                  `json:"rerunOf,omitempty"`
	Version  string                  `json:"version"` // of vsfleet

	Inventory InventoryRecord `json:"inventory"`
	Error     string          `json:"error,omitempty"`   // that ended the run as a whole
	Waiting   string          `json:"waiting,omitempty"` // what a running run waits for
	Seen      time.Time       `json:"seen,omitzero"`     // of a running run in a store that others share: when it last said so
}

// KeptRecord is the whole record of a run.
type KeptRecord struct {
	HistoryRecord
	Report  Run            `json:"report"`
	Outputs []OutputRecord `json:"outputs,omitempty"`
	Cut     bool           `json:"cut,omitempty"`     // more was written than is kept
	Damaged []string       `json:"damaged,omitempty"` // lines of the journal that could not be read
}

// Host returns the record of the hosts that match is, and of guests on them that are
// named by their places ("web01/www").
func (k KeptRecord) Host(is func(name string) bool) KeptRecord {
	var hosts []Host
	for _, h := range k.Report.Hosts {
		if is(h.Name) {
			hosts = append(hosts, h)
		}
	}
	var outputs []OutputRecord
	for _, o := range k.Outputs {
		if is(o.Place()) {
			outputs = append(outputs, o)
		}
	}
	k.Report.Hosts, k.Outputs = hosts, outputs
	return k
}
