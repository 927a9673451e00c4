package rollout

import (
	"context"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/batch"
	"github.com/vsfleet/vsfleet/inventory"
)

// Strategy is how a run works through its hosts. The zero value takes all hosts at
// once, Fleet.Forks of them at a time, and no failure stops the run.
//
// A run with Serial or Canary first compares all hosts, without their leases. Hosts
// that have nothing to change end there; the others form the batches. Each batch goes
// along the whole road of its kind of run by itself: it takes the leases of its hosts
// and compares them again, and gives the leases back at its end.
type Strategy struct {
	// Serial has the sizes of the batches, in order: 1, 10%, 100%. The last one
	// repeats until all hosts had their turn. Nil: one batch.
	Serial []Size
	// Canary are hosts that come first, in a batch of their own. Those that are not
	// in the run are left out. A canary that cannot be reached counts as failed.
	Canary []*inventory.Host
	// Pause is the time between the end of a batch and the begin of the next one.
	Pause time.Duration
	// Ask is called before each batch but the first, after Pause; may be nil. An error
	// stops the run, and is the reason of that.
	Ask func(ctx context.Context, next report.Batch) error

	// MaxFail is how many hosts may fail (percentages are of the run's hosts): one
	// more, and the run stops. Failed and reverted hosts count, those that could not be
	// reached do not. Hosts under way go on to their end; those whose turn had not
	// come are [outcome.Stopped]. Unset: in a run of one batch failures do not stop
	// anything; in a run of several, the first one does.
	MaxFail Size
	// OnFailure is what becomes of a guest whose change fails.
	OnFailure OnFailure

	// Retries is how often a host is tried again that could not be reached, was lost
	// or took too long. Each time it goes along the whole road again, some seconds
	// later: with its batch if the connection was lost, at the end of the run if it
	// could not be reached at all, so that the others do not wait for it.
	Retries int
	// RetrySteps also tries a host again of which a step or a health gate failed.
	RetrySteps bool
	// HostTimeout bounds the time that a host's changes take, health gates included.
	// Then the host undoes the step under way. 0: no bound.
	HostTimeout time.Duration
	// Budget bounds how many hosts are disrupted at the same time.
	Budget []Budget
}

// OnFailure is what becomes of a guest whose change fails.
type OnFailure string

// What becomes of a guest whose change fails.
const (
	Revert OnFailure = "revert" // it is put back to what it was, if that is possible; "" means the same
	Keep   OnFailure = "keep"   // it stays as it is, for somebody to look at it
)

// Budget bounds how many hosts with the same value of a label may be disrupted at the
// same time. A host is disrupted from its first step until its health gates have been
// passed. One that fails stays disrupted: if that uses up the budget, the remaining
// hosts with that value are [outcome.Stopped]. Hosts without the label are not bound.
type Budget struct {
	Label string
	Most  Size // percentages are of the run's hosts with that value; at least 1
}

// Size is a number of hosts, or a percentage of them. The zero value is unset.
type Size = batch.Size

// ParseSize reads "3" or "10%".
func ParseSize(text string) (Size, error) { return batch.ParseSize(text) }
