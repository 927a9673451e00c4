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
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func TestApplyBuildsOnceAndCarriesTheImageToTheOthers(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3")
	r := f.apply(within(t))
	if got, want := outcomes(r), "lab1 changed, lab2 changed, lab3 changed"; got != want {
		t.Fatalf("got %s, want %s: %v", got, want, r.Hosts)
	}
	for name, want := range map[string][]string{
		"lab1": {"image.build bookworm", "guest.create www", "guest.start www"},
		"lab2": {"image import", "guest.create www", "guest.start www"},
		"lab3": {"image import", "guest.create www", "guest.start www"},
	} {
		if got := f.hosts[name].log; !slices.Equal(got, want) {
			t.Errorf("%s did %q, want %q", name, got, want)
		}
	}
	if id := f.hosts["lab2"].state.Guests[0].Image; id == "" || id != f.hosts["lab1"].state.Images[0].ID {
		t.Errorf("lab2's guest has the image %q", id)
	}
}

func TestASecondApplyChangesNothingAndAsksNothing(t *testing.T) {
	f := newFleet(t, "lab1", "lab2")
	f.apply(within(t))
	before := f.hosts["lab1"].requests
	r := f.apply(within(t))
	if got, want := outcomes(r), "lab1 ok, lab2 ok"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if f.hosts["lab1"].requests != before {
		t.Error("a host with nothing to do was asked to do something")
	}
}

func TestAnImageThatAHostHasIsNotBuiltAgain(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3")
	f.hosts["lab3"].has(bookworm)
	r := f.apply(within(t))
	for name, h := range f.hosts {
		if slices.Contains(h.log, "image.build bookworm") {
			t.Errorf("%s built it", name)
		}
	}
	if s := r.Hosts[0].Steps[0]; s.Kind != api.StepImport || s.Why != "lab3 has it (f165b1ae7e0a)" {
		t.Errorf("lab1 begins with %s: %s", s.Kind, s.Why)
	}
}

func TestTwoMissingImagesAreBuiltByTwoHosts(t *testing.T) {
	f := newFleet(t, "lab1", "lab2")
	for _, h := range f.inv.Hosts {
		h.Guests = append(h.Guests, www(named("x", 121), func(g *inventory.Guest) { g.Image = "trixie" }))
	}
	r := f.apply(within(t))
	if got, want := outcomes(r), "lab1 changed, lab2 changed"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	for name, h := range f.hosts {
		if n := strings.Count(strings.Join(h.log, ","), "image.build"); n != 1 {
			t.Errorf("%s built %d images, want 1", name, n)
		}
		if len(h.state.Guests) != 2 || len(h.state.Images) != 2 {
			t.Errorf("%s has %d guests and %d images, want 2 and 2", name, len(h.state.Guests), len(h.state.Images))
		}
	}
}

func TestAnImageIsBuiltWhereItCanBe(t *testing.T) {
	for _, tt := range []struct {
		name   string
		set    func(*fakeFleet)
		builds map[string]bool // who is asked to build
		want   string
	}{
		{
			"by a host that has the tool", func(f *fakeFleet) {
				f.hosts["lab1"].state.Host.Methods = []string{"template"}
			},
			map[string]bool{"lab2": true}, "lab1 changed, lab2 changed, lab3 changed",
		},
		{
			"by the next one, if the first lacks something", func(f *fakeFleet) {
				f.hosts["lab1"].failStep, f.hosts["lab1"].elsewhere = "image.build bookworm", true
			},
			map[string]bool{"lab2": true}, "lab1 changed, lab2 changed, lab3 changed",
		},
		{
			"by the next one, if the first is lost", func(f *fakeFleet) { f.hosts["lab1"].dieAt = "image.build bookworm" },
			map[string]bool{"lab2": true}, "lab1 failed, lab2 changed, lab3 changed",
		},
		{
			"by nobody, if all lack something", func(f *fakeFleet) {
				for _, h := range f.hosts {
					h.failStep, h.elsewhere = "image.build bookworm", true
				}
			},
			nil, "lab1 failed, lab2 failed, lab3 failed",
		},
		{
			"once for each architecture", func(f *fakeFleet) { f.hosts["lab3"].state.Host.Arch = "arm64" },
			map[string]bool{"lab1": true, "lab3": true}, "lab1 changed, lab2 changed, lab3 changed",
		},
		{
			"once more, if only a host of another architecture has it", func(f *fakeFleet) {
				f.hosts["lab3"].has(bookworm).state.Host.Arch = "arm64"
			},
			map[string]bool{"lab1": true}, "lab1 changed, lab2 changed, lab3 changed",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, "lab1", "lab2", "lab3")
			tt.set(f)
			r := f.apply(within(t))
			if got := outcomes(r); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			for name, h := range f.hosts {
				if got := slices.Contains(h.log, "image.build bookworm"); got != tt.builds[name] {
					t.Errorf("%s built it: %v, want %v", name, got, tt.builds[name])
				}
			}
			for _, h := range r.Hosts {
				if h.Status == outcome.Failed && h.Error == "" {
					t.Errorf("%s failed without a reason", h.Name)
				}
			}
		})
	}
}

// Each export is a session of the source's one connection, of which sshd gives ten.
func TestManyImagesAreNotExportedAtOnce(t *testing.T) {
	f := newFleet(t, "lab1", "lab2")
	f.inv.Hosts[1].Guests = nil
	f.hosts["lab1"].exportTakes = 20 * time.Millisecond // so that they would meet
	for i := range 12 {
		name := fmt.Sprint("box", i)
		f.hosts["lab1"].has(imageNamed(name))
		f.inv.Hosts[1].Guests = append(f.inv.Hosts[1].Guests,
			www(named(name, 200+i), func(g *inventory.Guest) { g.Image = name }))
	}
	if got, want := outcomes(f.apply(within(t))), "lab1 changed, lab2 changed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := len(f.hosts["lab2"].state.Images); got != 12 {
		t.Errorf("lab2 has %d images", got)
	}
	if most := f.hosts["lab1"].mostExports; most > exportsAtOnce {
		t.Errorf("%d exports at once", most)
	}
}

func TestFaultsStayWhereTheyAre(t *testing.T) {
	tests := []struct {
		name     string
		fault    func(*fakeFleet)
		outcomes string
		lab2     []string
	}{
		{
			"an unreachable host stops no other",
			func(f *fakeFleet) { f.hosts["lab2"].unreachable = true },
			"lab1 changed, lab2 unreachable, lab3 changed", nil,
		},
		{
			"an image that cannot be built is missed by its guests only",
			func(f *fakeFleet) {
				for _, h := range f.hosts {
					h.failStep = "image.build bookworm"
				}
				f.inv.Hosts[1].Guests = append(f.inv.Hosts[1].Guests, www(named("x", 121), func(g *inventory.Guest) { g.Image = "trixie" }))
			},
			"lab1 failed, lab2 failed, lab3 failed",
			[]string{
				"image.build trixie changed",
				"image.import bookworm failed: image bookworm: build on lab[1-3]: image.build bookworm: it does not work",
				"guest.create www skipped: image bookworm: build on lab[1-3]: image.build bookworm: it does not work",
				"guest.start www skipped: image bookworm: build on lab[1-3]: image.build bookworm: it does not work",
				"guest.create x changed",
				"guest.start x changed",
			},
		},
		{
			"a guest that fails stops no other guest",
			func(f *fakeFleet) {
				f.hosts["lab2"].failStep = "guest.create www"
				f.inv.Hosts[1].Guests = append(f.inv.Hosts[1].Guests, www(named("x", 121)))
			},
			"lab1 changed, lab2 failed, lab3 changed",
			[]string{
				"image.import bookworm changed",
				"guest.create www failed: guest.create www: it does not work",
				"guest.start www skipped: an earlier step of the guest did not succeed",
				"guest.create x changed",
				"guest.start x changed",
			},
		},
		{
			"a guest that is refused stops no other guest",
			func(f *fakeFleet) {
				f.hosts["lab2"].state.Host.Controllers = nil
				f.inv.Hosts[1].Guests = append(f.inv.Hosts[1].Guests, www(named("x", 121), func(g *inventory.Guest) { g.Limits.CPUs = 1 }))
			},
			"lab1 changed, lab2 failed, lab3 changed",
			[]string{"image.import bookworm changed", "guest.create www changed", "guest.start www changed"},
		},
		{
			"a target that breaks off after so many bytes stops no other",
			func(f *fakeFleet) { f.hosts["lab2"].importLimit = 100_000 },
			"lab1 changed, lab2 failed, lab3 changed",
			[]string{
				"image.import bookworm failed: image bookworm: no route to host",
				"guest.create www skipped: image bookworm: no route to host",
				"guest.start www skipped: image bookworm: no route to host",
			},
		},
		{
			"a source that breaks off after so many bytes leaves no half image",
			func(f *fakeFleet) { f.hosts["lab1"].exportLimit = 100_000 },
			"lab1 changed, lab2 failed, lab3 failed",
			[]string{
				"image.import bookworm failed: image bookworm: export from lab1: export: input/output error",
				"guest.create www skipped: image bookworm: export from lab1: export: input/output error",
				"guest.start www skipped: image bookworm: export from lab1: export: input/output error",
			},
		},
		{
			"a host that dies in the middle is not said to have done it",
			func(f *fakeFleet) { f.hosts["lab2"].dieAt = "guest.start www" },
			"lab1 changed, lab2 failed, lab3 changed",
			[]string{
				"image.import bookworm changed",
				"guest.create www failed: the host gave no answer: what came of it is not known; run the same again to find out and finish",
				"guest.start www failed: the host gave no answer: what came of it is not known; run the same again to find out and finish",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, "lab1", "lab2", "lab3")
			tt.fault(f)
			r := f.apply(within(t))
			if got := outcomes(r); got != tt.outcomes {
				t.Errorf("got %s, want %s", got, tt.outcomes)
			}
			if got := results(r.Hosts[1]); !slices.Equal(got, tt.lab2) {
				t.Errorf("lab2:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.lab2, "\n"))
			}
			if r.Hosts[1].Error == "" {
				t.Error("lab2 failed without a reason")
			}
			for name, h := range f.hosts {
				for _, image := range h.state.Images {
					if h.images[image.ID] != image.Spec.Name+content {
						t.Errorf("%s has half an image", name)
					}
				}
			}
		})
	}
}

func TestASlowTargetStopsNoOther(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3")
	f.hosts["lab2"].stall = make(chan struct{})
	f.hosts["lab3"].before = func(step string) {
		if step == "guest.start www" {
			close(f.hosts["lab2"].stall) // lab2 moves when lab3 is as good as done
		}
	}
	if got, want := outcomes(f.apply(within(t))), "lab1 changed, lab2 changed, lab3 changed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestATargetThatStandsStillIsGivenUp(t *testing.T) {
	defer func(was time.Duration) { stallTimeout = was }(stallTimeout)
	stallTimeout = 200 * time.Millisecond
	f := newFleet(t, "lab1", "lab2", "lab3")
	f.hosts["lab2"].stall = make(chan struct{})
	rep := f.apply(within(t))
	if got, want := outcomes(rep), "lab1 changed, lab2 failed, lab3 changed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, h := range rep.Hosts {
		if h.Name == "lab2" && !strings.Contains(h.Error, "nothing has moved for 200ms") {
			t.Errorf("error %v", h.Error)
		}
	}
}

func TestAnInterruptedApplyBeginsNoMoreHosts(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3")
	for _, h := range f.hosts {
		h.has(bookworm)
	}
	ctx, interrupt := context.WithCancelCause(within(t))
	f.hosts["lab1"].before = func(step string) {
		if step == "guest.start www" {
			interrupt(errors.New("interrupted"))
		}
	}
	fleet := f.fleet()
	fleet.Forks = 1
	rep := applied(ctx, fleet, f.inv.Hosts)
	if got, want := outcomes(rep), "lab1 failed, lab2 skipped, lab3 skipped"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := results(rep.Hosts[0]), []string{"guest.create www changed", "guest.start www skipped: interrupted"}; !slices.Equal(got, want) {
		t.Errorf("lab1: %q, want %q", got, want)
	}
	if f.hosts["lab2"].requests != 0 {
		t.Error("lab2 was begun")
	}
}

func TestAnInterruptedComparisonLeavesTheOtherHostsWithoutAPlan(t *testing.T) {
	f := newFleet(t, "lab1", "lab2")
	ctx, interrupt := context.WithCancelCause(within(t))
	defer interrupt(nil)
	for _, h := range f.inv.Hosts {
		h.Guests[0].Files = []inventory.File{{Path: "/etc/motd", Content: []byte("a")}}
		f.hosts[h.Name].asked = func(api.FilesRequest) { interrupt(errors.New("interrupted")) }
	}
	fleet := f.fleet()
	fleet.Forks = 1
	r := applied(ctx, fleet, f.inv.Hosts)
	if got, want := outcomes(r), "lab1 skipped, lab2 skipped"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if h := r.Hosts[1]; len(h.Steps) > 0 || h.State != "lock" {
		t.Errorf("lab2 ended in %s with the steps %v", h.State, h.Steps)
	}
}

func TestWhatATakeoverWaitsForIsARequestOfItsOwn(t *testing.T) {
	f := newFleet(t, "lab1")
	f.hosts["lab1"].has(bookworm)
	f.inv.Hosts[0].Guests = []*inventory.Guest{
		www(named("new", 120, tcp(80))),
		www(named("old", 120, tcp(80)), func(g *inventory.Guest) { g.State = inventory.Absent }),
	}
	f.hosts["lab1"].state.Guests = []api.GuestState{there(isNamed("old", 120, tcp(80)))}
	if got, want := outcomes(f.apply(within(t))), "lab1 changed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := f.hosts["lab1"].requests; got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
}

func TestPlanChangesNothing(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3")
	f.hosts["lab3"].unreachable = true
	fleet := f.fleet()
	r, _ := fleet.start("", f.inv.Hosts).against(nil, imageNamed).follow(within(t), toPlan...)
	if got, want := outcomes(r), "lab1 changed, lab2 changed, lab3 unreachable"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for name, h := range f.hosts {
		if h.requests != 0 || len(h.log) != 0 {
			t.Errorf("%s did %q", name, h.log)
		}
	}
}

func TestHostsAreReachedSoManyAtOnce(t *testing.T) {
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("host%02d", i))
	}
	f := newFleet(t, names...)
	fleet := f.fleet()
	var mu sync.Mutex
	ended := map[string]outcome.Outcome{}
	fleet.Watch = func(e report.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == report.Done && e.Result != nil {
			ended[e.Host] = e.Result.Status
		}
	}
	fleet.start("", f.inv.Hosts).against(nil, imageNamed).follow(within(t), toPlan...)
	if f.most > fleet.Forks {
		t.Errorf("%d connections at once, want at most %d", f.most, fleet.Forks)
	}
	if len(ended) != len(names) {
		t.Errorf("%d hosts were reported as done, want %d", len(ended), len(names))
	}
}

// A guest of eleven steps, a lost answer: one line.
func TestOneLostAnswerIsOneProblem(t *testing.T) {
	f := newFleet(t, "lab1")
	h := f.inv.Hosts[0]
	for i := range 11 {
		h.Guests = append(h.Guests, www(named(fmt.Sprint("g", i), 200+i)))
	}
	f.hosts["lab1"].has(bookworm).dieAt = "guest.start g5"
	r := f.apply(within(t))
	if got := strings.Split(r.Hosts[0].Error, "\n"); len(got) != 2 || !strings.Contains(got[1], "the host gave no answer") {
		t.Errorf("%d problems: %v", len(got), got)
	}
}

func TestDeletesAreConfirmed(t *testing.T) {
	for _, row := range []struct {
		name     string
		answer   error
		outcomes string
	}{
		{"yes", nil, "lab1 changed, lab2 ok, lab3 unreachable"},
		{"no", errors.New("nothing was changed"), "lab1 skipped, lab2 skipped, lab3 unreachable"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFleet(t, "lab1", "lab2", "lab3")
			for _, h := range f.inv.Hosts {
				h.Guests[0].State = inventory.Absent
			}
			f.hosts["lab1"].state.Guests = []api.GuestState{there()}
			f.hosts["lab3"].unreachable = true
			fleet := f.fleet()
			var asked []string
			fleet.Confirm = func(_ context.Context, changes Changes) error {
				asked = changes.Deletes
				return row.answer
			}
			r, err := fleet.Apply(within(t), f.inv, f.inv.Hosts)
			if got := outcomes(r); got != row.outcomes || err != row.answer {
				t.Errorf("%s, %v", got, err)
			}
			if want := []string{"lab1/www"}; !slices.Equal(asked, want) {
				t.Errorf("asked about %q", asked)
			}
			if left := len(f.hosts["lab1"].state.Guests); left != 0 && row.answer == nil || left != 1 && row.answer != nil {
				t.Errorf("%d guests are left", left)
			}
		})
	}
}

func TestAHostEndsInTheStateThatStopsIt(t *testing.T) {
	for _, row := range []struct {
		name    string
		set     func(*fakeFleet, *Fleet)
		reached string
	}{
		{"a host that cannot be reached", func(f *fakeFleet, _ *Fleet) { f.hosts["lab1"].unreachable = true }, "connect"},
		{"a host that another run is changing", func(f *fakeFleet, _ *Fleet) { f.hosts["lab1"].lease = api.Holder{Run: "0"} }, "lock"},
		{"a host whose guests nobody agrees to delete", func(f *fakeFleet, fleet *Fleet) {
			f.inv.Hosts[0].Guests[0].State = inventory.Absent
			f.hosts["lab1"].state.Guests = []api.GuestState{there()}
			fleet.Confirm = func(context.Context, Changes) error { return errors.New("no") }
		}, "confirm"},
		{"a host whose steps were taken, whatever came of them", func(f *fakeFleet, _ *Fleet) { f.hosts["lab1"].failStep = "guest.start www" }, "verify"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFleet(t, "lab1")
			fleet := f.fleet()
			row.set(f, fleet)
			if h := applied(within(t), fleet, f.inv.Hosts).Hosts[0]; h.State != row.reached || h.Status == outcome.OK || h.Status == outcome.Changed {
				t.Errorf("%s in %s, want it to end in %s: %v", h.Status, h.State, row.reached, h.Error)
			}
		})
	}
}
