package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/batch"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// six returns hosts lab1 to lab6 that have the image already; lab1 to lab3 are in fra,
// the others in ber.
func six(t *testing.T) *fakeFleet {
	defer func(was time.Duration) { t.Cleanup(func() { firstBackoff = was }) }(firstBackoff)
	firstBackoff = time.Millisecond
	f := newFleet(t, "lab1", "lab2", "lab3", "lab4", "lab5", "lab6")
	for i, h := range f.inv.Hosts {
		h.Labels = map[string]string{"site": []string{"fra", "ber"}[i/3]}
		f.hosts[h.Name].has(bookworm)
	}
	return f
}

// times makes a host unreachable for its first connections.
func unreachableTimes(f *fakeFleet, name string, n int) func(*Fleet) {
	return func(fleet *Fleet) {
		connect := fleet.Connect
		var mu sync.Mutex
		fleet.Connect = func(ctx context.Context, h *inventory.Host) (Node, error) {
			mu.Lock()
			defer mu.Unlock()
			if h.Name == name && n > 0 {
				n--
				return nil, errUnreachable
			}
			return connect(ctx, h)
		}
	}
}

func sizes(t *testing.T, text string) []Size {
	t.Helper()
	list, err := batch.ParseSizes(text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

const start = "guest.start www"

func TestStrategies(t *testing.T) {
	for _, row := range []struct {
		name     string
		strategy Strategy
		serial   string
		canary   string
		fault    func(*testing.T, *fakeFleet, *Fleet)
		outcomes string // of lab1 to lab6, by their first letters
		batches  string // that were begun
		stopped  string // a part of why
	}{
		{"no strategy: a failure stops nothing", Strategy{}, "", "", failing("lab2"), "c f c c c c", "", ""},
		{"batches: all is well", Strategy{}, "1,2,100%", "", nil, "c c c c c c", "lab1 lab2,3 lab4,5,6", ""},
		{"the first failure stops a run in batches", Strategy{}, "1,2,100%", "", failing("lab2"), "c f s s s s", "lab1 lab2,3", "lab2 failed; a run in batches goes on"},
		{"failures that may be", Strategy{MaxFail: batch.Count(1)}, "2", "", failing("lab2"), "c f c c c c", "lab1,2 lab3,4 lab5,6", ""},
		{"one failure more than may be", Strategy{MaxFail: batch.Count(1)}, "2", "", failing("lab1", "lab4"), "f c c f s s", "lab1,2 lab3,4", "lab[1,4] failed, more than the 1 of 6 hosts that may (--max-fail 1)"},
		{"a percentage that may fail is rounded down", Strategy{MaxFail: batch.Percent(20)}, "3", "", failing("lab1", "lab2"), "f f s s s s", "lab1,2,3", "--max-fail 20%"},
		{"a stop rule without batches", Strategy{MaxFail: batch.Count(0)}, "", "", failing("lab2"), "c f s s s s", "", "lab2 failed, more than the 0 of 6"},
		{"a host that is down stops nothing", Strategy{}, "1", "", down("lab1", "lab4"), "u c c u c c", "lab2 lab3 lab5 lab6", ""},
		{"a host that was refused a guest before the run stops nothing", Strategy{}, "3", "", func(t *testing.T, f *fakeFleet, _ *Fleet) {
			f.inv.Hosts[1].Guests[0].Limits.CPUs = 1
			f.hosts["lab2"].state.Host.Controllers = nil
		}, "c f c c c c", "lab1,3,4 lab5,6", ""},
		{"hosts with nothing to change are in no batch", Strategy{}, "2", "", func(t *testing.T, f *fakeFleet, _ *Fleet) {
			for _, name := range []string{"lab1", "lab2", "lab5"} {
				applied(within(t), f.fleet(), slices.DeleteFunc(slices.Clone(f.inv.Hosts), func(h *inventory.Host) bool { return h.Name != name }))
			}
		}, "o o c c o c", "lab3,4 lab6", ""},
		{"a canary comes first", Strategy{}, "", "lab5", nil, "c c c c c c", "lab5 lab1,2,3,4,6", ""},
		{"a canary that fails stops the run whatever may fail", Strategy{MaxFail: batch.Count(5)}, "", "lab5", failing("lab5"), "s s s s f s", "lab5", "canary lab5: failed 1"},
		{"a canary that is down stops the run", Strategy{}, "", "lab5", down("lab5"), "s s s s u s", "", "canary lab5: unreachable 1"},
		{"a canary that comes back in time", Strategy{Retries: 2}, "", "lab5", func(_ *testing.T, f *fakeFleet, fleet *Fleet) { unreachableTimes(f, "lab5", 2)(fleet) }, "c c c c c c", "lab5 lab1,2,3,4,6", ""},
		{"a host that could not be reached is tried again at the end", Strategy{Retries: 1}, "3", "", func(_ *testing.T, f *fakeFleet, fleet *Fleet) { unreachableTimes(f, "lab2", 1)(fleet) }, "c c c c c c", "lab1,3,4 lab5,6 lab2", ""},
		{"a host that stays down after all tries", Strategy{Retries: 2}, "", "", down("lab2"), "c u c c c c", "", ""},
		{"a lost host is tried again with its batch", Strategy{Retries: 1}, "2", "", dying("lab1", 1), "c c c c c c", "lab1,2 lab3,4 lab5,6", ""},
		{"a host that is lost again has failed", Strategy{Retries: 1}, "2", "", dying("lab1", 2), "f c s s s s", "lab1,2", "lab1 failed"},
		{"a failed step is not tried again", Strategy{Retries: 3}, "", "", failing("lab1"), "f c c c c c", "", ""},
		{"a failed step is tried again if that is asked for", Strategy{Retries: 1, RetrySteps: true}, "2", "", func(_ *testing.T, f *fakeFleet, _ *Fleet) {
			h := f.hosts["lab1"]
			h.failStep = start
			h.before = func(step string) {
				if h.requests > 1 {
					h.failStep = ""
				}
			}
		}, "c c c c c c", "lab1,2 lab3,4 lab5,6", ""},
		{"a host that takes too long", Strategy{HostTimeout: 300 * time.Millisecond}, "2", "", func(_ *testing.T, f *fakeFleet, _ *Fleet) {
			f.hosts["lab3"].before = func(step string) {
				if step == start {
					time.Sleep(400 * time.Millisecond) // longer than the host may take
				}
			}
		}, "c c f s s s", "lab1,2 lab3,4", "lab3 failed"},
		{"who is asked says no", Strategy{Ask: func(_ context.Context, next report.Batch) error {
			if next.Number == 3 {
				return errors.New("you said no")
			}
			return nil
		}}, "2", "", nil, "c c c c s s", "lab1,2 lab3,4", "you said no"},
		{"a budget without failures holds up nobody for ever", Strategy{Budget: []Budget{{"site", batch.Count(1)}}}, "", "", nil, "c c c c c c", "", ""},
		{"failed hosts use up the budget of their site", Strategy{MaxFail: batch.Percent(100), Budget: []Budget{{"site", batch.Count(1)}}}, "1", "", failing("lab1"), "f s s c c c", "lab1 lab2 lab3 lab4 lab5 lab6", ""},
		{"a budget that is larger", Strategy{Budget: []Budget{{"site", batch.Count(2)}}}, "", "", failing("lab1"), "f c c c c c", "", ""},
		{"a budget lasts over batches", Strategy{MaxFail: batch.Percent(100), Budget: []Budget{{"site", batch.Percent(34)}}}, "1", "", failing("lab2"), "c f s c c c", "lab1 lab2 lab3 lab4 lab5 lab6", ""},
		{"a label that hosts lack bounds nothing", Strategy{Budget: []Budget{{"rack", batch.Count(1)}}}, "", "", failing("lab1"), "f c c c c c", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := six(t)
			fleet := f.fleet()
			fleet.Forks = 1
			fleet.Strategy = row.strategy
			if row.serial != "" {
				fleet.Strategy.Serial = sizes(t, row.serial)
			}
			for _, h := range f.inv.Hosts {
				if h.Name == row.canary {
					fleet.Strategy.Canary = append(fleet.Strategy.Canary, h)
				}
			}
			if row.fault != nil {
				row.fault(t, f, fleet)
			}
			run := applied(within(t), fleet, f.inv.Hosts)
			var got, batches []string
			for _, h := range run.Hosts {
				letter := string(h.Status[0])
				if h.Status == outcome.NotStarted {
					letter = "-"
				}
				got = append(got, letter)
			}
			if text := strings.Join(got, " "); text != row.outcomes {
				t.Errorf("outcomes %s, want %s: %s", text, row.outcomes, run.Hosts[1].Error)
			}
			for _, b := range run.Batches {
				batches = append(batches, "lab"+strings.ReplaceAll(strings.Join(b.Hosts, ","), "lab", ""))
			}
			if text := strings.Join(batches, " "); text != row.batches {
				t.Errorf("batches %s, want %s", text, row.batches)
			}
			if !strings.Contains(run.Stopped, row.stopped) || row.stopped == "" && run.Stopped != "" {
				t.Errorf("stopped because %q, want %q", run.Stopped, row.stopped)
			}
			if strings.Contains(row.outcomes, "s") != (outcome.ExitCode(false, run.Outcomes()...) == outcome.ExitStopped) {
				t.Errorf("exit status %d", outcome.ExitCode(false, run.Outcomes()...))
			}
			for _, h := range run.Hosts {
				if h.Status == outcome.Stopped && (len(f.hosts[h.Name].log) > 0 || h.Error == "" || h.Class != outcome.KindStopped) {
					t.Errorf("%s did %q; %+v", h.Name, f.hosts[h.Name].log, h.Result)
				}
			}
			for name, h := range f.hosts {
				if h.lease.Run != "" {
					t.Errorf("%s is still leased", name)
				}
			}
		})
	}
}

func failing(names ...string) func(*testing.T, *fakeFleet, *Fleet) {
	return func(_ *testing.T, f *fakeFleet, _ *Fleet) {
		for _, name := range names {
			f.hosts[name].failStep = start
		}
	}
}

func down(names ...string) func(*testing.T, *fakeFleet, *Fleet) {
	return func(_ *testing.T, f *fakeFleet, _ *Fleet) {
		for _, name := range names {
			f.hosts[name].unreachable = true
		}
	}
}

// dying breaks the connection at the first starts of a guest.
func dying(name string, times int) func(*testing.T, *fakeFleet, *Fleet) {
	return func(_ *testing.T, f *fakeFleet, _ *Fleet) {
		h := f.hosts[name]
		h.dieAt = start
		h.before = func(step string) {
			if step == start {
				if times--; times < 0 {
					h.dieAt = ""
				}
			}
		}
	}
}

// A canary that has nothing to change proves nothing: the run says so and asks.
func TestACanaryWithNothingToChange(t *testing.T) {
	for _, row := range []struct {
		name string
		ask  error
		want string
	}{
		{"go on", nil, "lab1 ok, lab2 changed"},
		{"do not", errors.New("you did not want it"), "lab1 ok, lab2 stopped"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := six(t)
			on := f.hosts["lab1"]
			on.state.Guests = []api.GuestState{there(func(g *api.GuestState) { g.Image = on.state.Images[0].ID })}
			fleet := f.fleet()
			fleet.Strategy.Canary = f.inv.Hosts[:1]
			asked, said := 0, ""
			fleet.Strategy.Ask = func(context.Context, report.Batch) error { asked++; return row.ask }
			fleet.Watch = func(e report.Event) { said += e.Message + "\n" }
			// With its survey, as Apply has it.
			r := fleet.start("apply", f.inv.Hosts[:2]).against(nil, imageNamed)
			r.survey = beforeApply
			run, _ := r.follow(within(t), toApply...)
			if got := outcomes(run); got != row.want || asked != 1 || !strings.Contains(said, "the canary lab1 has nothing to change") {
				t.Errorf("got %s, asked %d times: %s", got, asked, said)
			}
		})
	}
}

func TestABudgetBoundsWhatIsDisruptedAtOnce(t *testing.T) {
	f := six(t)
	fleet := f.fleet()
	fleet.Forks = 6
	fleet.Strategy.Budget = []Budget{{"site", batch.Count(1)}}
	var mu sync.Mutex
	now, most, sites := map[string]int{}, 0, 0
	for _, h := range f.inv.Hosts {
		site := h.Labels["site"]
		f.hosts[h.Name].before = func(step string) {
			mu.Lock()
			defer mu.Unlock()
			if step == start {
				now[site]++
				most, sites = max(most, now[site]), max(sites, len(now))
				mu.Unlock()
				time.Sleep(5 * time.Millisecond) // so that they would meet
				mu.Lock()
				if now[site]--; now[site] == 0 {
					delete(now, site)
				}
			}
		}
	}
	if run := applied(within(t), fleet, f.inv.Hosts); outcome.Worst(run.Outcomes()...) != outcome.Changed {
		t.Error(outcomes(run))
	}
	if most != 1 || sites != 2 {
		t.Errorf("%d hosts of a site at once, want 1; %d sites at once, want 2", most, sites)
	}
}

// What a batch was compared with is not older than the batch: another run may have
// changed the hosts meanwhile.
func TestABatchIsComparedWhenItBegins(t *testing.T) {
	f := six(t)
	fleet := f.fleet()
	fleet.Strategy.Serial = sizes(t, "3")
	fleet.Strategy.Ask = func(ctx context.Context, next report.Batch) error {
		if want := []string{"lab4", "lab5", "lab6"}; !slices.Equal(next.Hosts, want) || next.Number != 2 || next.Of != 2 {
			t.Errorf("asked about %+v", next)
		}
		for _, h := range f.hosts {
			if h.lease.Run != "" {
				t.Errorf("%s is leased while somebody is asked", h.name)
			}
		}
		f.hosts["lab4"].state.Guests = []api.GuestState{there(func(g *api.GuestState) { g.Image = f.hosts["lab4"].state.Images[0].ID })}
		return nil
	}
	run := applied(within(t), fleet, f.inv.Hosts)
	if got, want := outcomes(run), "lab1 changed, lab2 changed, lab3 changed, lab4 ok, lab5 changed, lab6 changed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnImageIsBuiltOnceForAllBatches(t *testing.T) {
	for _, row := range []struct {
		name    string
		builder string // of build_on; empty: any
	}{
		{"by a host of the first batch", ""},
		{"by a host whose batch comes later", "lab6"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := six(t)
			image := *bookworm
			if row.builder != "" {
				image.Builders = []*inventory.Host{f.inv.Hosts[5]}
			}
			for _, h := range f.hosts {
				h.state.Images = nil
			}
			fleet := f.fleet()
			fleet.Strategy.Serial = sizes(t, "1,2")
			r := fleet.start("apply", f.inv.Hosts).against(f.inv.Hosts, func(string) *inventory.Image { return &image })
			run, _ := r.follow(within(t), toApply...)
			if worst := outcome.Worst(run.Outcomes()...); worst != outcome.Changed {
				t.Errorf("%s: %s", outcomes(run), run.Hosts[0].Error)
			}
			var built []string
			for name, h := range f.hosts {
				if slices.Contains(h.log, "image.build bookworm") {
					built = append(built, name)
				}
			}
			if want := []string{max(row.builder, "lab1")}; !slices.Equal(built, want) {
				t.Errorf("built on %q, want %q", built, want)
			}
			if len(run.Hosts) != 6 {
				t.Errorf("%d hosts in the report", len(run.Hosts))
			}
		})
	}
}

func TestAnInterruptBetweenAndInBatches(t *testing.T) {
	for _, row := range []struct {
		name string
		at   func(*fakeFleet, *Fleet, func())
		want string
	}{
		{"in the second batch", func(f *fakeFleet, _ *Fleet, interrupt func()) {
			f.hosts["lab3"].before = func(step string) {
				if step == start {
					interrupt()
				}
			}
		}, "lab1 changed, lab2 changed, lab3 failed, lab4 skipped, lab5 skipped, lab6 skipped"},
		{"in the pause", func(f *fakeFleet, fleet *Fleet, interrupt func()) {
			fleet.Strategy.Pause = time.Hour
			fleet.Watch = func(e report.Event) {
				if e.Kind == report.Progress && e.Batch != nil {
					interrupt()
				}
			}
		}, "lab1 changed, lab2 changed, lab3 skipped, lab4 skipped, lab5 skipped, lab6 skipped"},
		{"while somebody is asked", func(f *fakeFleet, fleet *Fleet, interrupt func()) {
			fleet.Strategy.Ask = func(ctx context.Context, _ report.Batch) error {
				interrupt()
				return context.Cause(ctx)
			}
		}, "lab1 changed, lab2 changed, lab3 skipped, lab4 skipped, lab5 skipped, lab6 skipped"},
		{"before a host is tried again", func(f *fakeFleet, fleet *Fleet, interrupt func()) {
			fleet.Strategy.Retries = 3
			f.hosts["lab2"].dieAt = start
			fleet.Watch = func(e report.Event) {
				if strings.HasPrefix(e.Message, "trying again") {
					interrupt()
				}
			}
		}, "lab1 changed, lab2 failed, lab3 skipped, lab4 skipped, lab5 skipped, lab6 skipped"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := six(t)
			fleet := f.fleet()
			fleet.Forks = 1
			fleet.Strategy.Serial = sizes(t, "2")
			ctx, cancel := context.WithCancelCause(within(t))
			row.at(f, fleet, func() { cancel(outcome.ErrInterrupted) })
			if got := outcomes(applied(ctx, fleet, f.inv.Hosts)); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestGuestsInBatches(t *testing.T) {
	f := six(t)
	var guests []inventory.Instance
	for _, h := range f.inv.Hosts {
		f.hosts[h.Name].state.Guests = []api.GuestState{there()}
		guests = append(guests, inventory.Instance{Host: h, Guest: h.Guests[0]})
	}
	f.hosts["lab3"].failStep = "guest.restart www"
	fleet := f.fleet()
	fleet.Forks = 1
	fleet.Strategy.Serial = sizes(t, "1,3")
	run := fleet.Guests(within(t), plan.Restart, guests)
	if got, want := outcomes(run), "lab1 changed, lab2 changed, lab3 failed, lab4 stopped, lab5 stopped, lab6 stopped"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEachInBatches(t *testing.T) {
	f := six(t)
	fleet := f.fleet()
	fleet.Forks = 1
	fleet.Strategy = Strategy{Serial: sizes(t, "2"), MaxFail: batch.Count(0)}
	n := 0
	run := fleet.Each(within(t), "trust", f.inv.Hosts, func(context.Context, Node) (string, error) {
		if n++; n == 3 {
			return "", errors.New("it does not work")
		}
		return fmt.Sprint(n), nil
	})
	if got, want := outcomes(run), "lab1 ok, lab2 ok, lab3 failed, lab4 stopped, lab5 stopped, lab6 stopped"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDeletesOfAllBatchesAreConfirmedOnce(t *testing.T) {
	f := six(t)
	for _, h := range f.inv.Hosts {
		h.Guests[0].State = inventory.Absent
		f.hosts[h.Name].state.Guests = []api.GuestState{there()}
	}
	fleet := f.fleet()
	fleet.Strategy.Serial = sizes(t, "2")
	var asked [][]string
	fleet.Confirm = func(_ context.Context, changes Changes) error {
		asked = append(asked, changes.Deletes)
		return nil
	}
	run, err := fleet.Apply(within(t), f.inv, f.inv.Hosts)
	if err != nil || outcome.Worst(run.Outcomes()...) != outcome.Changed || len(asked) != 1 || len(asked[0]) != 6 {
		t.Errorf("%s, %v, asked %q", outcomes(run), err, asked)
	}
}

func TestASavedPlanInBatches(t *testing.T) {
	f := six(t)
	for _, h := range f.hosts {
		h.state.Images = nil // lab1 builds it, the others copy it
	}
	fleet := f.fleet()
	saved, _ := fleet.start("", f.inv.Hosts).against(nil, imageNamed).follow(within(t), toPlan...)
	fleet.Saved = &saved
	fleet.Strategy.Serial = sizes(t, "2")
	fleet.Strategy.Ask = func(_ context.Context, next report.Batch) error {
		if next.Number == 3 {
			f.hosts["lab6"].state.Guests = []api.GuestState{there()}
		}
		return nil
	}
	run, err := fleet.start("apply", f.inv.Hosts).against(nil, imageNamed).follow(within(t), toApply...)
	var stale *report.StaleError
	if !errors.As(err, &stale) || len(stale.Hosts) != 1 || stale.Hosts[0].Host != "lab6" {
		t.Errorf("what changed before the third batch: %v", err)
	}
	if got, want := outcomes(run), "lab1 changed, lab2 changed, lab3 changed, lab4 changed, lab5 skipped, lab6 skipped"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
