package fleet

import (
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
)

// Recording sends the events of a run other than a rollout to [Access.Watch]. Its
// methods may be called by many goroutines.
type Recording struct {
	watch func(report.Event)
	mu    sync.Mutex // of run.Hosts
	run   report.Run
	index map[string]int // of hosts
}

// Record begins a run on hosts, or on guests named by their places.
func (a *Access) Record(verb string, names []string) *Recording {
	r := &Recording{watch: report.Watchers(a.Watch), run: report.Run{Who: Owner(), Verb: verb, When: time.Now()}, index: map[string]int{}}
	r.run.ID = report.NewID(r.run.When)
	for i, name := range names {
		r.index[name] = i
		r.run.Hosts = append(r.run.Hosts, report.Host{Name: name})
	}
	r.watch(report.Began(r.run))
	return r
}

// changed records a run that makes one guest.
func (a *Access) changed(verb string, to inventory.Instance, do func() error) report.Host {
	record := a.Record(verb, []string{place(to)})
	defer record.End()
	err := do()
	o := outcome.Of(err)
	if err == nil {
		o = outcome.Changed
	}
	h := report.HostOf(place(to), to.Host.Address, o, err)
	record.Done(h)
	return h
}

// Ended records the result and the output of a command in one place.
func (r *Recording) Ended(o Output) {
	if !o.Value.Empty() {
		r.watch(report.Event{Run: r.run.ID, Time: time.Now(), Kind: report.Written, Host: o.Value.Place(), Output: &o.Value})
	}
	r.Done(report.Host{Name: o.Value.Place(), Address: o.Host.Host.Address, Result: o.Value.Result})
}

// Done records the result of a host.
func (r *Recording) Done(h report.Host) {
	r.mu.Lock()
	if i, known := r.index[h.Name]; known {
		r.run.Hosts[i].Result = h.Result
	}
	r.mu.Unlock()
	r.watch(report.Event{Run: r.run.ID, Time: time.Now(), Kind: report.Done, Host: h.Name, Result: &h.Result, Report: &h})
}

// End ends the run.
func (r *Recording) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.run.Took = time.Since(r.run.When)
	r.watch(report.Ended(r.run))
}

// recorded returns a watch that also records the result of each host. host makes the
// report of a result.
func recorded[H, V any](r *Recording, watch fanout.Watch[H, V], host func(fanout.Result[H, V]) report.Host) fanout.Watch[H, V] {
	end := watch.End
	watch.End = func(i int, result fanout.Result[H, V]) {
		r.Done(host(result))
		if end != nil {
			end(i, result)
		}
	}
	return watch
}
