package report

import "fmt"

// Batch is a part of the hosts of a run. A batch ends before the next one begins.
type Batch struct {
	Number int      `json:"number"`           // from 1
	Of     int      `json:"of"`               // batches, as far as is known
	Canary bool     `json:"canary,omitempty"` // the hosts that come first
	Retry  int      `json:"retry,omitempty"`  // of hosts that were in a batch before: how many times
	Hosts  []string `json:"hosts"`
}

// String returns the name of the batch, as "batch 2/5".
func (b Batch) String() string {
	switch {
	case b.Retry > 0:
		return fmt.Sprintf("retry %d", b.Retry)
	case b.Canary:
		return fmt.Sprintf("batch %d/%d (canary)", b.Number, b.Of)
	}
	return fmt.Sprintf("batch %d/%d", b.Number, b.Of)
}
