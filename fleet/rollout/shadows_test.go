package rollout

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// A plan has what a guest hides of its next image; an apply says so before the guest is
// touched.
func TestWhatAGuestHidesOfItsNextImage(t *testing.T) {
	f := newFleet(t, "a")
	host := f.inv.Hosts[0]
	host.Guests[0].Shadowed = "reset /usr"
	h := f.hosts["a"].has(bookworm)
	now := there()
	now.Image = "sha256:" + strings.Repeat("0", 64)
	h.state.Guests = []api.GuestState{now}
	h.shadows = map[string]api.StaleGuest{"www": {
		Name: "www", Hidden: 3, Attributes: 1, Behind: 1, Packages: []api.StalePackage{{Name: "libc6", Has: "3", Newer: "2"}},
		Shadows: []api.Shadow{{Path: "/var/lib/dpkg/status", Kind: api.ShadowChanged}, {Path: "/usr/bin/a", Kind: api.ShadowRemoved}, {Path: "/srv/b", Kind: api.ShadowAttributes}},
	}}
	want := []string{
		"has its own dpkg database, /var/lib/dpkg/status: merged with the image's",
		"hides 1 file that the image changes: /usr/bin/a (removed, reset)",
		"takes the new data of 1 file of which it changed only the owner, mode or times",
		"has its own version of 1 package that the image changes: libc6 3 (image: 2)",
	}
	plan := func() report.Run {
		t.Helper()
		run, err := f.fleet().start("", f.inv.Hosts).against(nil, imageNamed).follow(within(t), toPlan...)
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	steps := plan().Hosts[0].Steps
	if len(steps) == 0 || steps[0].Shadows == nil || !slices.Equal(steps[0].Shadows.Lines(), want) {
		t.Fatalf("the plan is %+v", steps)
	}
	for _, s := range steps[1:] {
		if s.Shadows != nil {
			t.Errorf("%s has it, too", s.Kind)
		}
	}

	var mu sync.Mutex
	var seen []string
	over := f.fleet()
	over.Watch = func(e report.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == report.Warning || e.Kind == report.Started && e.State == "change" {
			seen = append(seen, e.Message)
		}
	}
	if _, err := over.start("apply", f.inv.Hosts).against(nil, imageNamed).follow(within(t), toApply...); err != nil || !slices.Equal(seen, append(want, "")) {
		t.Errorf("seen: %q", seen)
	}

	// An image that the host lacks yet.
	h.images, h.state.Images = map[string]string{}, nil
	if notes := plan().Hosts[0].Notes; !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "is known once the host has it: vsfleet image push") }) {
		t.Errorf("notes: %q", notes)
	}
}
