package history

import (
	"encoding/json"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// Head describes the run of a journal. It is written when the run begins, and again
// when more is known.
type Head struct {
	Args      []string               `json:"args"` // the command line
	Redacted  bool                   `json:"redacted,omitempty"`
	Dir       string                 `json:"dir,omitempty"`
	Of        string                 `json:"of,omitempty"` // the run of which this is a rerun
	Version   string                 `json:"version,omitempty"`
	Inventory report.InventoryRecord `json:"inventory"`
}

// End is the last line of a journal.
type End struct {
	Exit  int    `json:"exit"`
	Error string `json:"error,omitempty"` // that ended the run as a whole
	Cut   bool   `json:"cut,omitempty"`   // events or output were left out
}

// line is a line of a journal: an event, or one of the others.
type line struct {
	Head *Head `json:"head,omitempty"`
	End  *End  `json:"end,omitempty"`
	report.Event
}

// decode reads a line. Unknown fields are ignored: a later vsfleet may have written
// them.
func decode(text []byte) (line, error) {
	var l line
	err := json.Unmarshal(text, &l)
	return l, err
}
