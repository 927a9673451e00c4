package play

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/playbooks"
)

// Player carries out playbooks.
type Player struct {
	// Fleet is how hosts are reached. Its strategy applies to plays that have none of
	// their own, setting by setting.
	Fleet     *rollout.Fleet
	Inventory *inventory.Inventory
	Among     []*inventory.Host // plays work on those of their hosts that are among these
	Vars      map[string]any    // as playbooks.Fleet has them
	Check     bool              // change nothing

	// Read returns the content of a file for copy and template, named from the playbook.
	Read func(path string) ([]byte, error)
	// Ask asks a person; its error is a no.
	Ask func(ctx context.Context, question string) error
	// Step asks before each step whether it is to be taken; nil: do not ask.
	Step func(ctx context.Context, title string, hosts []string) (bool, error)
	// Reach opens a new connection to a host with one key and no other.
	Reach func(ctx context.Context, host *inventory.Host, identity string) error
}

// Hosts returns the hosts that plays of a playbook work on, each once, in the order of
// the inventory. A play none of whose hosts is among some is an error.
func Hosts(book *playbooks.Book, inv *inventory.Inventory, among []*inventory.Host) ([]*inventory.Host, error) {
	var all []*inventory.Host
	for _, p := range book.Plays {
		hosts, err := hostsOf(p, inv, among)
		if err != nil {
			return nil, err
		}
		all = append(all, hosts...)
	}
	list := slices.DeleteFunc(slices.Clone(inv.Hosts), func(h *inventory.Host) bool { return !slices.Contains(all, h) })
	if len(list) == 0 {
		return nil, errors.New("--limit leaves no host for any play")
	}
	return list, nil
}

func hostsOf(p *playbooks.Play, inv *inventory.Inventory, among []*inventory.Host) ([]*inventory.Host, error) {
	hosts, err := inv.Select(p.Hosts)
	if err != nil {
		return nil, &playbooks.Error{Pos: p.Pos, Msg: "hosts: " + err.Error()}
	}
	return slices.DeleteFunc(hosts, func(h *inventory.Host) bool { return !slices.Contains(among, h) }), nil
}

// Play carries out a playbook. A host that fails in one play is left out of those after
// it. The error is a mistake in the playbook that only a run can show.
func (p *Player) Play(ctx context.Context, book *playbooks.Book) (report.Run, error) {
	all, err := Hosts(book, p.Inventory, p.Among)
	if err != nil {
		return report.Run{}, err
	}
	b := &bookRun{Player: p, book: book, hosts: map[string]*report.Host{}, watch: p.Fleet.Watch}
	verb := "play " + book.Name
	begun := time.Now()
	b.Run = report.Run{ID: report.NewID(begun), Who: p.Fleet.Owner, Verb: verb, When: begun}
	if p.Check {
		b.Verb = "plan" // as of all runs that change nothing
	}
	if err := b.sources(); err != nil {
		return report.Run{}, err
	}
	head := b.Run
	for _, h := range all {
		head.Hosts = append(head.Hosts, report.Host{Name: h.Name})
	}
	b.emit(report.Began(head))
	for i, play := range book.Plays {
		if err := b.play(ctx, i, play, verb); err != nil {
			return b.Run, err
		}
		if b.Run.Stopped != "" || ctx.Err() != nil {
			break
		}
	}
	b.end(ctx, all)
	return b.Run, nil
}

// bookRun is one run of a playbook.
type bookRun struct {
	*Player
	report.Run
	book  *playbooks.Book
	watch func(report.Event)

	mu    sync.Mutex
	hosts map[string]*report.Host // what came of hosts so far
	ended map[string]bool         // hosts whose end was reported
}

// play carries out one play.
func (b *bookRun) play(ctx context.Context, at int, play *playbooks.Play, verb string) error {
	hosts, err := hostsOf(play, b.Inventory, b.Among)
	if err != nil {
		return err
	}
	hosts = slices.DeleteFunc(hosts, func(h *inventory.Host) bool { return !b.well(h.Name) })
	if len(hosts) == 0 {
		b.Notes = append(b.Notes, fmt.Sprintf("%s: no host for it is left", title(play)))
		return nil
	}
	fleet := *b.Fleet
	if fleet.Strategy, err = b.strategy(play); err != nil {
		return err
	}
	later := b.later(at)
	fleet.Watch = func(e report.Event) { b.pass(e, later) }
	fleet.Confirm = nil // a playbook deletes what it says
	if b.Check {
		verb = ""
	}
	run, err := fleet.Work(ctx, verb, b.Inventory, hosts, b.stages(play))
	b.merge(run)
	return err
}

func title(play *playbooks.Play) string {
	if play.Name != "" {
		return "play " + play.Name
	}
	return "play on " + play.Hosts
}

// well reports whether a host has not failed so far.
func (b *bookRun) well(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.hosts[name]
	return h == nil || h.Status == outcome.OK || h.Status == outcome.Changed
}

// later reports whether a host has a part in a later play.
func (b *bookRun) later(at int) func(name string) bool {
	names := map[string]bool{}
	for _, play := range b.book.Plays[at+1:] {
		hosts, err := hostsOf(play, b.Inventory, b.Among)
		if err != nil {
			continue // which that play reports
		}
		for _, h := range hosts {
			names[h.Name] = true
		}
	}
	return func(name string) bool { return names[name] }
}

// pass passes an event of a play on as one of the whole run. That a host has ended is
// said once, after its last play.
func (b *bookRun) pass(e report.Event, later func(string) bool) {
	whole := e.State == "" && e.Step == nil
	switch {
	case e.Host == "" && (e.Kind == report.Started || e.Kind == report.Done):
		return
	case e.Host != "" && whole && e.Kind == report.Done && e.Report != nil:
		if later(e.Host) && (e.Report.Status == outcome.OK || e.Report.Status == outcome.Changed) {
			return
		}
		merged := b.merged(*e.Report)
		e.Report, e.Result = &merged, &merged.Result
		b.mu.Lock()
		if b.ended == nil {
			b.ended = map[string]bool{}
		}
		b.ended[e.Host] = true
		b.mu.Unlock()
	}
	b.emit(e)
}

func (b *bookRun) emit(e report.Event) {
	if b.watch != nil {
		e.Run = b.ID
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		b.watch(e)
	}
}

// merged returns what came of a host in earlier plays and in this one.
func (b *bookRun) merged(now report.Host) report.Host {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.hosts[now.Name]
	if before == nil {
		return now
	}
	out := now
	out.Steps = slices.Concat(before.Steps, now.Steps)
	out.Refused = slices.Concat(before.Refused, now.Refused)
	out.Notes = slices.Concat(before.Notes, now.Notes)
	out.Took = before.Took + now.Took
	switch {
	case now.Status == outcome.NotStarted && before.Status == outcome.Changed:
		out.Status = outcome.Failed // it has changed, and is not as wanted
	case now.Status == outcome.OK:
		out.Status = before.Status
	}
	return out
}

// merge adds the report on a play.
func (b *bookRun) merge(run report.Run) {
	for _, h := range run.Hosts {
		merged := b.merged(h)
		b.mu.Lock()
		b.hosts[h.Name] = &merged
		b.mu.Unlock()
	}
	b.Notes = append(b.Notes, run.Notes...)
	b.Batches = append(b.Batches, run.Batches...)
	if run.Stopped != "" {
		b.Stopped = run.Stopped
	}
}

// end completes the report, with all hosts in the order of the inventory.
func (b *bookRun) end(ctx context.Context, all []*inventory.Host) {
	for _, h := range all {
		rep := b.hosts[h.Name]
		if rep == nil {
			// Its first play did not come.
			o, err := outcome.Stopped, error(&rollout.StoppedError{Why: b.Stopped})
			if b.Stopped == "" {
				o, err = outcome.NotStarted, context.Cause(ctx)
			}
			host := report.HostOf(h.Name, h.Address, o, err)
			rep = &host
		}
		b.Run.Hosts = append(b.Run.Hosts, *rep)
		if !b.ended[h.Name] {
			b.emit(report.Event{Kind: report.Done, Host: h.Name, Result: &rep.Result, Report: rep})
		}
	}
	b.Took = time.Since(b.When)
	b.emit(report.Ended(b.Run))
}

// strategy returns how a play goes through its hosts.
func (b *bookRun) strategy(play *playbooks.Play) (rollout.Strategy, error) {
	s, of := b.Fleet.Strategy, play.Strategy
	if of.Serial != nil {
		s.Serial = of.Serial
	}
	if of.Canary != "" {
		canaries, err := b.Inventory.Select(of.Canary)
		if err != nil {
			return s, &playbooks.Error{Pos: play.Pos, Msg: "canary: " + err.Error()}
		}
		s.Canary = canaries
	}
	if of.Pause > 0 {
		s.Pause = of.Pause
	}
	if of.MaxFail.IsSet() {
		s.MaxFail = of.MaxFail
	}
	if of.OnFailure != "" {
		s.OnFailure = rollout.OnFailure(of.OnFailure)
	}
	if of.Retries > 0 {
		s.Retries = of.Retries
	}
	if of.Timeout > 0 {
		s.HostTimeout = of.Timeout
	}
	if of.Confirm && s.Ask == nil {
		s.Ask = func(ctx context.Context, next report.Batch) error {
			return b.Ask(ctx, fmt.Sprintf("Go on with %s?", next))
		}
	}
	return s, nil
}
