package history

import (
	"context"
	"encoding/json"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// A shared store also has the runs under way, so that everybody sees who is changing
// hosts and who waits for whom. It is information only: the lease of a host keeps two
// runs from changing it at once.

const (
	// announceEvery is the interval at which a run reports that it is alive.
	announceEvery = 30 * time.Second
	// silentAfter is how long after that a run counts as interrupted.
	silentAfter = 4 * announceEvery
)

// announcer updates the row of a run that is under way.
type announcer struct {
	waiting chan string // what the run waits for, when that changes; of one
	stop    context.CancelFunc
	done    chan struct{}
}

// announce starts updating the row of a run in the background. Errors are ignored: the
// end of the run reports them.
func announce(ctx context.Context, k Keeper, r report.HistoryRecord) *announcer {
	ctx, stop := context.WithCancel(ctx)
	a := &announcer{waiting: make(chan string, 1), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		s, err := k.open(ctx)
		if err != nil {
			return
		}
		defer s.Close()
		tick := time.NewTicker(announceEvery)
		defer tick.Stop()
		for {
			r.Seen = time.Now()
			if s.putRunning(ctx, r) != nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case r.Waiting = <-a.waiting:
			case <-tick.C:
			}
		}
	}()
	return a
}

// wait sets what the run waits for; "" means nothing.
func (a *announcer) wait(what string) {
	for {
		select {
		case a.waiting <- what:
			return
		default:
		}
		select {
		case <-a.waiting: // it is old
		default:
		}
	}
}

// close stops the updates. Updates still on their way to the store cannot replace the
// end of the run.
func (a *announcer) close() {
	a.stop()
	timer := time.NewTimer(stall)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
	}
}

// putRunning adds or replaces the row of a run that is under way, unless the store has
// its end.
func (s *store) putRunning(ctx context.Context, r report.HistoryRecord) error {
	head, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, putRow+` WHERE runs.status = 'running'`, row(r, head)...)
	return err
}

// waitingFor returns what a run waits for after an event. was is what it waited for
// before.
func waitingFor(e report.Event, was string) string {
	switch {
	case e.Host == "" && e.Kind == report.Progress:
		return e.Message
	case e.Host == "" || e.Kind == report.HostPlan || e.Step != nil:
		return ""
	}
	return was
}
