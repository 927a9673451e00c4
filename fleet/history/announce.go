package history

import (
	"context"
	"encoding/json"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// A store that a team shares also has the runs that are under way, so that everybody
// sees who changes hosts, and who waits for whom. This is for people: what keeps two
// runs from changing a host is the host's lease.

const (
	// announceEvery is the interval at which a run says that it is still there.
	announceEvery = 30 * time.Second
	// silentAfter is how long after that a run counts as interrupted.
	silentAfter = 4 * announceEvery
)

// announcer keeps the row of a run that is under way.
type announcer struct {
	waiting chan string // what the run waits for, when that changes; of one
	stop    context.CancelFunc
	done    chan struct{}
}

// announce begins to keep the row of a run, beside the run. Errors are ignored: the end of
// the run tells of them.
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

// wait says what the run waits for; "": nothing.
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

// close ends it. What is still on its way to the store cannot replace the run's end.
func (a *announcer) close() {
	a.stop()
	timer := time.NewTimer(stall)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
	}
}

// putRunning adds or replaces the row of a run that is under way, unless its end is there.
func (s *store) putRunning(ctx context.Context, r report.HistoryRecord) error {
	head, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, putRow+` WHERE runs.status = 'running'`, row(r, head)...)
	return err
}

// waitingFor returns what a run waits for after an event, if it waited for was before.
func waitingFor(e report.Event, was string) string {
	switch {
	case e.Host == "" && e.Kind == report.Progress:
		return e.Message
	case e.Host == "" || e.Kind == report.HostPlan || e.Step != nil:
		return ""
	}
	return was
}
