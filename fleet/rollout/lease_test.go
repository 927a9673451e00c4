package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Two inventories that say something else of the same hosts: whoever is last,
// all hosts are as one of them says.
func TestTwoAppliesDoNotMix(t *testing.T) {
	const n = 12
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("lab", i))
	}
	f := newFleet(t, names...)
	for _, h := range f.hosts {
		h.has(bookworm)
		h.before = func(string) { time.Sleep(time.Millisecond) } // so that they would meet
	}
	// The second has the hosts in the other order, and other hostnames.
	second := make([]*inventory.Host, n)
	for i, h := range f.inv.Hosts {
		second[n-1-i] = &inventory.Host{Name: h.Name, Guests: []*inventory.Guest{www(func(g *inventory.Guest) { g.Hostname = "second" })}}
	}
	ctx := within(t)
	var both sync.WaitGroup
	for _, hosts := range [][]*inventory.Host{f.inv.Hosts, second} {
		both.Go(func() {
			fleet := f.fleet()
			fleet.LockWait = time.Minute
			r := applied(ctx, fleet, hosts)
			for _, h := range r.Hosts {
				if h.Status != outcome.Changed && h.Status != outcome.OK {
					t.Errorf("%s %s: %v", h.Name, h.Status, h.Error)
				}
			}
		})
	}
	both.Wait()
	var hostnames []string
	for _, h := range f.hosts {
		hostnames = append(hostnames, h.state.Guests[0].Hostname)
	}
	if slices.Sort(hostnames); len(slices.Compact(hostnames)) != 1 {
		t.Errorf("the fleet is a mix: %q", hostnames)
	}
}

func TestARunWaitsForWhoeverChangesAHost(t *testing.T) {
	other := api.Holder{Run: "0", Owner: "root@ctl", PID: 4711, Reason: "apply", Since: time.Now(), Node: 99}
	for _, row := range []struct {
		name  string
		run   string // of the holder: "0" is older than any, "9" younger
		wait  time.Duration
		frees bool
		want  string
	}{
		{"an older run that ends", "0", time.Minute, true, "lab1 changed, lab2 changed, lab3 changed"},
		{"a younger run that ends", "9", time.Minute, true, "lab1 changed, lab2 changed, lab3 changed"},
		{"an older run that does not end", "0", 20 * time.Millisecond, false, "lab1 changed, lab2 failed, lab3 changed"},
		{"a younger run that does not end", "9", 20 * time.Millisecond, false, "lab1 changed, lab2 failed, lab3 changed"},
		{"nobody", "0", 0, false, "lab1 changed, lab2 failed, lab3 changed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFleet(t, "lab1", "lab2", "lab3")
			other.Run = row.run
			busy := f.hosts["lab2"]
			busy.lease = other
			var said []string
			var mu sync.Mutex
			fleet := f.fleet()
			fleet.LockWait = row.wait
			fleet.Watch = func(e report.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == report.Progress && e.Host == "" {
					said = append(said, e.Message)
					if row.frees {
						busy.mu.Lock()
						busy.lease = api.Holder{}
						busy.mu.Unlock()
					}
				}
			}
			ctx := within(t)
			run := applied(ctx, fleet, f.inv.Hosts)
			if got := outcomes(run); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
			if row.wait > 0 && (len(said) != 1 || !strings.Contains(said[0], "waiting for lab2: held by root@ctl, process 4711, since ")) {
				t.Errorf("it said %q", said)
			}
			if row.frees {
				return
			}
			if h := run.Hosts[1]; h.Class != outcome.KindLocked || !strings.Contains(h.Error, "(apply)") || !strings.Contains(h.Error, "kill 99") {
				t.Errorf("it does not say who holds lab2: %v", h.Result)
			}
			if busy.log != nil {
				t.Errorf("lab2 was changed: %q", busy.log)
			}
		})
	}
}

func TestReadersNeedNoLease(t *testing.T) {
	f := newFleet(t, "lab1", "lab2")
	f.hosts["lab1"].lease = api.Holder{Run: "0"}
	fleet := f.fleet()
	r, _ := fleet.start("", f.inv.Hosts).against(nil, imageNamed).follow(within(t), toPlan...)
	if got := outcomes(r); got != "lab1 changed, lab2 changed" {
		t.Error(got)
	}
}

func TestOneMachineUnderTwoNamesIsRefused(t *testing.T) {
	f := newFleet(t, "lab1", "lab2")
	f.hosts["lab2"] = f.hosts["lab1"]
	fleet := f.fleet()
	fleet.LockWait, fleet.Forks = time.Minute, 1
	r := applied(within(t), fleet, f.inv.Hosts)
	if err := r.Hosts[1].Error; r.Hosts[0].Class != "" || !strings.Contains(err, "twice") {
		t.Errorf("lab1 %v, lab2 %v", r.Hosts[0].Error, err)
	}
}

func TestAnInterruptedWaitLeavesNothing(t *testing.T) {
	f := newFleet(t, "lab1", "lab2")
	f.hosts["lab2"].lease = api.Holder{Run: "0", Owner: "root@ctl"}
	ctx, cancel := context.WithCancel(within(t))
	fleet := f.fleet()
	fleet.LockWait = time.Minute
	fleet.Watch = func(e report.Event) {
		if e.Kind == report.Progress && e.Host == "" {
			cancel()
		}
	}
	r := applied(ctx, fleet, f.inv.Hosts)
	if got := outcomes(r); got != "lab1 skipped, lab2 skipped" {
		t.Error(got)
	}
	if l := f.hosts["lab1"].lease; l.Run != "" {
		t.Errorf("lab1's lease is left: %+v", l)
	}
}
