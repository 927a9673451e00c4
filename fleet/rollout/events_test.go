package rollout

import (
	"encoding/json"
	"reflect"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

// recorded is a watcher that keeps events as JSON.
type recorded struct {
	mu    sync.Mutex
	lines [][]byte
}

func (r *recorded) watch(e report.Event) {
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

// collect returns the report that the first n events make.
func (r *recorded) collect(t *testing.T, n int) (report.Run, bool) {
	t.Helper()
	var c report.Collector
	for _, line := range r.lines[:n] {
		var e report.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		c.Add(e)
	}
	return c.Run()
}

// asJSON is what of a report is kept; how long it took differs by the time of the
// last event.
func asJSON(t *testing.T, run report.Run) string {
	t.Helper()
	run.Took = 0
	b, err := json.MarshalIndent(run, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEventsHoldTheWholeReport(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3", "lab4")
	f.hosts["lab1"].has(bookworm)
	f.hosts["lab2"].failStep = "guest.start www"
	f.hosts["lab3"].unreachable = true
	f.inv.Hosts[0].Guests = append(f.inv.Hosts[0].Guests, www(named("mail", 130, tcp(25))))
	fleet, kept := f.fleet(), &recorded{}
	fleet.Watch, fleet.Owner = kept.watch, "root@ctl"
	run := applied(within(t), fleet, f.inv.Hosts)
	run.When = run.When.UTC()
	got, ended := kept.collect(t, len(kept.lines))
	got.When = got.When.UTC()
	if !ended {
		t.Error("the last event does not end the run")
	}
	if want := asJSON(t, run); asJSON(t, got) != want {
		t.Error(cmp.Diff(want, asJSON(t, got)))
	}
	var first, last report.Event
	for i, e := range map[int]*report.Event{0: &first, len(kept.lines) - 1: &last} {
		if err := json.Unmarshal(kept.lines[i], e); err != nil {
			t.Fatal(err)
		}
	}
	if first.Verb != "apply" || first.Who != "root@ctl" || first.Run != run.ID || len(first.Hosts) != 4 {
		t.Errorf("the first event is %+v", first)
	}
	if !reflect.DeepEqual(last.Outcomes, run.Counts()) {
		t.Errorf("the last event counts %v, want %v", last.Outcomes, run.Counts())
	}

	// What breaks off anywhere makes a report as well, and claims nothing.
	for n := range kept.lines {
		part, ended := kept.collect(t, n)
		if ended {
			t.Fatalf("the first %d of %d events end the run", n, len(kept.lines))
		}
		for i, h := range part.Hosts {
			if h.Status != "" && h.Status != run.Hosts[i].Status {
				t.Errorf("%s is %s after %d events, and %s in the end", h.Name, h.Status, n, run.Hosts[i].Status)
			}
		}
	}
}

func TestThePlanOfAHostIsTold(t *testing.T) {
	f := newFleet(t, "lab1")
	f.hosts["lab1"].has(bookworm)
	f.hosts["lab1"].dieAt = "guest.start www"
	fleet, kept := f.fleet(), &recorded{}
	fleet.Watch = kept.watch
	applied(within(t), fleet, f.inv.Hosts)
	for n := range kept.lines {
		run, _ := kept.collect(t, n)
		if len(run.Hosts) == 0 || len(run.Hosts[0].Steps) == 0 {
			continue
		}
		for _, s := range run.Hosts[0].Steps {
			if s.Why == "" || s.Status == outcome.Changed {
				t.Errorf("before anything was done: %+v", s)
			}
		}
		return
	}
	t.Error("the steps are in no event")
}
