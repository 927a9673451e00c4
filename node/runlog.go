package node

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/hostlog"
)

// runLog writes to the host's own log which run changes it: a line when the run begins
// to, and one when it has ended, so that the host's administrators see it without
// the controller.
type runLog struct {
	hostlog.Log

	mu      sync.Mutex
	begun   time.Time // zero: nothing to end
	by      api.Holder
	results map[api.Outcome]int
}

const program = "vsnode"

// begin logs that a run changes the host, once.
func (l *runLog) begin(by api.Holder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun.IsZero() {
		return
	}
	l.begun, l.by, l.results = time.Now(), by, map[api.Outcome]int{}
	l.Write(program, l.head()+" begins")
}

// head is "run 20261128T120000Z-00000000 of root@ctl (apply)".
func (l *runLog) head() string {
	return fmt.Sprintf("run %s of %s (%s)", l.by.Run, l.by.Owner, l.by.Reason)
}

// add counts what came of steps.
func (l *runLog) add(results []api.StepResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range results {
		if l.results != nil {
			l.results[r.Outcome]++
		}
	}
}

// end logs that the run has ended.
func (l *runLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun.IsZero() {
		return
	}
	var parts []string
	for _, o := range []api.Outcome{api.Changed, api.Unchanged, api.Skipped, api.Failed} {
		if n := l.results[o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	text := " ended after " + time.Since(l.begun).Round(time.Millisecond).String()
	if parts != nil {
		text += ", steps: " + strings.Join(parts, ", ")
	}
	l.Write(program, l.head()+text)
	l.begun = time.Time{}
}

// Close ends the session: the host's log gets the end of its run. The kernel gives back
// the lease.
func (h *Host) Close() { h.log.end() }
