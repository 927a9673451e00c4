package history

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/linux"
)

// Bounds of the output that is recorded.
const (
	mostOutput    = 64 << 10 // of each stream of a command
	mostRunOutput = 16 << 20 // of a run
)

// Recorder records one run. It creates the journal at the first event, which only runs
// that change something send; other commands are not recorded. Set the fields before
// the first event.
type Recorder struct {
	Keeper
	Args    []string // the command line
	Of      string   // the run of which this is a rerun
	Version string   // of vsfleet
	// Inventory describes the inventory of the run.
	Inventory func(context.Context) report.InventoryRecord
	// Secrets returns the secrets of hosts when a run on them begins. Unless all is
	// true, the output of commands is not recorded.
	Secrets func(hosts []string) (values []string, all bool)

	mu       sync.Mutex
	journal  *journal // nil: not begun
	off      bool     // there is no journal, and there will be none
	id       string
	secrets  *secrets
	unknown  bool // there are secrets that secrets does not know
	head     Head
	outputs  int
	cut      bool
	warnings []string
	shared   *announcer // nil: no store that is shared
	waiting  string
	asking   context.CancelFunc // ends the question for the inventory
	asked    chan struct{}
}

// Watch records an event. It may be called by many goroutines.
func (r *Recorder) Watch(e report.Event) {
	r.mu.Lock()
	if !r.off && e.Kind == report.Started && e.Host == "" && e.Verb != "plan" && e.Verb != "" {
		r.learn(e.Hosts)
		if r.journal == nil {
			r.begin(e)
		}
	}
	j := r.journal
	if j == nil {
		r.mu.Unlock()
		return
	}
	e.Run = r.id // of all runs of a command the first one's
	if e.Output != nil {
		e.Output = r.bounded(*e.Output)
	}
	if waiting := waitingFor(e, r.waiting); r.shared != nil && waiting != r.waiting {
		r.waiting = waiting
		r.shared.wait(r.secrets.text(waiting))
	}
	secrets := r.secrets
	r.mu.Unlock()
	progress := e.Kind == report.Progress || e.State != "" && e.Kind != report.Warning
	sync := e.Kind == report.HostPlan || e.Kind == report.Done && e.State == "" || e.Host == ""
	j.add(secrets.json(encode(line{Event: e})), sync, progress)
}

// learn adds the secrets of the hosts of a run.
func (r *Recorder) learn(hosts []string) {
	var values []string
	if r.Secrets != nil {
		all := false
		values, all = r.Secrets(hosts)
		r.unknown = r.unknown || !all
	}
	r.secrets = newSecrets(values)
}

// bounded returns the part of an output that is recorded.
func (r *Recorder) bounded(o report.OutputRecord) *report.OutputRecord {
	for _, text := range []*string{&o.Stdout, &o.Stderr} {
		most := min(mostOutput, mostRunOutput-r.outputs)
		if r.unknown {
			most = 0
		}
		if len(*text) > most {
			*text, o.Cut, r.cut = strings.ToValidUTF8((*text)[:most], ""), true, true
		}
		r.outputs += len(*text)
	}
	return &o
}

// begin creates the journal of a run. If that fails, the run goes on without a journal.
func (r *Recorder) begin(e report.Event) {
	r.off = true
	if r.None() {
		return
	}
	j, err := createJournal(r.journals(), e.Run)
	if err != nil {
		r.warnings = append(r.warnings, fmt.Sprintf("this run is not kept in the history: %v", err))
		return
	}
	r.journal, r.id, r.off = j, e.Run, false
	r.head = Head{Of: r.Of, Version: r.Version}
	r.head.Args, r.head.Redacted = r.secrets.args(r.Args)
	r.head.Dir, _ = os.Getwd() // empty: it was removed
	j.add(r.secrets.json(encode(line{Head: &r.head})), true, false)
	if r.Store != "" {
		var c report.Collector
		c.Add(e)
		run, _ := c.Run()
		record := summary(run, r.head, nil)
		record.Status = report.KeptRunning
		r.shared = announce(r.context(), r.Keeper, record)
	}
	if r.Inventory == nil {
		return
	}
	// git may take a while, and the run does not wait for it.
	ctx, cancel := context.WithTimeout(r.context(), inventoryTimeout)
	r.asking, r.asked = cancel, make(chan struct{})
	secrets := r.secrets
	go func() {
		defer close(r.asked)
		head := r.head
		head.Inventory = r.Inventory(ctx)
		j.add(secrets.json(encode(line{Head: &head})), false, false)
	}()
}

// inventoryTimeout is how long git may take to describe the inventory.
const inventoryTimeout = 5 * time.Second

// End records the end of the run, if one has begun, with the exit status of vsfleet and
// the error that ended the whole run. It then stores the journal, and those of vsfleets
// that were killed. It returns warnings for the user.
func (r *Recorder) End(ctx context.Context, exit int, failed error) (warnings []string) {
	r.mu.Lock()
	j, cut := r.journal, r.cut
	r.off, warnings = true, r.warnings
	r.mu.Unlock()
	if j == nil {
		return warnings
	}
	if r.shared != nil {
		r.shared.close()
	}
	if r.asked != nil {
		timer := time.AfterFunc(stall, r.asking)
		<-r.asked
		timer.Stop()
		r.asking()
	}
	end := End{Exit: exit, Cut: cut || j.isCut()}
	if failed != nil {
		end.Error = r.secrets.text(failed.Error())
	}
	j.add(encode(line{End: &end, Event: report.Event{Run: r.id, Time: time.Now()}}), true, false)
	lost, err := j.close()
	switch {
	case err != nil:
		warnings = append(warnings, fmt.Sprintf("the history of this run (%s) has gaps: %v", r.id, err))
	case lost && !end.Cut:
		warnings = append(warnings, fmt.Sprintf("the history of this run (%s) has gaps", r.id))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience())
	defer cancel()
	if err := r.store(ctx, j.lock); err != nil {
		warnings = append(warnings, fmt.Sprintf("the history of this run stays in %s, and a later vsfleet takes it into the store: %v", j.file.Name(), err))
	}
	return warnings
}

// store stores the journal of this run, then those that other vsfleets left.
func (r *Recorder) store(ctx context.Context, own *linux.Lock) error {
	defer own.Unlock()
	s, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := takeIn(ctx, s, own); err != nil {
		return err
	}
	if err := r.takeInLeft(ctx, s); err != nil {
		return nil // the next one tries again, and its own is in
	}
	_, err = s.prune(ctx, r.Keep, pruneAtOnce)
	return err
}
