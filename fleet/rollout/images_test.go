package rollout

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/versions"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// over is a run over some of the hosts, with an image that is as the test wants
// it; it returns the warnings, too.
func (f *fakeFleet) over(ctx context.Context, image *inventory.Image, names ...string) (report.Run, []string) {
	var mu sync.Mutex
	var warnings []string
	fleet := f.fleet()
	fleet.Watch = func(e report.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == report.Warning {
			warnings = append(warnings, e.Host+": "+e.Message)
		}
	}
	var hosts []*inventory.Host
	for _, h := range f.inv.Hosts {
		if slices.Contains(names, h.Name) {
			hosts = append(hosts, h)
		}
	}
	r, _ := fleet.start("apply", hosts).against(f.inv.Hosts, func(string) *inventory.Image { return image }).follow(ctx, toApply...)
	return r, warnings
}

func TestABuilderThatFailsIsReplaced(t *testing.T) {
	for _, row := range []struct {
		name    string
		set     func(*fakeFleet)
		builder string // whose image all have in the end
		warned  string
		classes string
	}{
		{"a full disk: the next one builds, and the failure is named once", func(f *fakeFleet) {
			f.hosts["lab1"].failStep = "image.build bookworm"
		}, "lab2", "lab1: it failed here, and lab2 built it: image.build bookworm: it does not work", "lab1 changed, lab2 changed, lab3 changed"},
		{"a disk that is known to be nearly full is asked last", func(f *fakeFleet) {
			f.hosts["lab1"].state.Host.FreeBytes = 1 << 20
			f.hosts["lab2"].state.Host.FreeBytes = 1 << 30
			f.hosts["lab3"].state.Host.FreeBytes = 1 << 40
		}, "lab3", "", "lab1 changed, lab2 changed, lab3 changed"},
		{"those with enough are asked in their order", func(f *fakeFleet) {
			for i, name := range []string{"lab1", "lab2", "lab3"} {
				f.hosts[name].state.Host.FreeBytes = int64(i+3) << 30
			}
		}, "lab1", "", "lab1 changed, lab2 changed, lab3 changed"},
		{"what is broken for all is tried on three, and said once", func(f *fakeFleet) {
			for _, h := range f.hosts {
				h.failStep = "image.build bookworm"
			}
		}, "", "", "lab1 failed, lab2 failed, lab3 failed, lab4 failed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			names := []string{"lab1", "lab2", "lab3"}
			if row.builder == "" {
				names = append(names, "lab4")
			}
			f := newFleet(t, names...)
			for _, h := range f.hosts {
				h.variant = h.name
			}
			row.set(f)
			r, warnings := f.over(within(t), bookworm, names...)
			if got := outcomes(r); got != row.classes {
				t.Errorf("got %s, want %s: %v", got, row.classes, r.Hosts[0].Error)
			}
			if got := strings.Join(warnings, ", "); got != row.warned {
				t.Errorf("warned %q, want %q", got, row.warned)
			}
			if row.builder == "" {
				said := map[string]bool{}
				for _, h := range r.Hosts {
					said[h.Error] = true
				}
				if len(said) != 1 || !said["image bookworm: build on lab[1-3]: image.build bookworm: it does not work"] {
					t.Errorf("said %v", said)
				}
				return
			}
			for _, h := range f.hosts {
				if h.state.Guests[0].Image != idOf(bookworm, row.builder) {
					t.Errorf("%s has not what %s built", h.name, row.builder)
				}
			}
		})
	}
}

func TestAnImageComesFromWhereverItIs(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3")
	for _, h := range f.hosts {
		h.variant = h.name
	}
	ctx := within(t)
	f.over(ctx, bookworm, "lab1")
	f.hosts["lab3"].unreachable = true // it is not in the run, and no matter
	r, _ := f.over(ctx, bookworm, "lab2")
	if got := outcomes(r); got != "lab2 changed" {
		t.Fatalf("%s: %v", got, r.Hosts[0].Error)
	}
	if s := r.Hosts[0].Steps[0]; s.Kind != api.StepImport || !strings.HasPrefix(s.Why, "lab1 has it (") {
		t.Errorf("lab2 begins with %s: %s", s.Kind, s.Why)
	}
	if got := f.hosts["lab2"].state.Guests[0].Image; got != idOf(bookworm, "lab1") {
		t.Errorf("lab2 has %s", got)
	}
	if h := f.hosts["lab1"]; h.lease.Run != "" || len(h.log) != 3 {
		t.Errorf("lab1 was changed: %q", h.log)
	}
}

// Hosts get the difference to what each has, sent once for all that have the same, and the
// whole image where that fails.
func TestAnImageComesAsTheDifferenceToWhatIsThere(t *testing.T) {
	names := []string{"lab1", "lab2", "lab3", "lab4", "lab5"}
	f := newFleet(t, names...)
	before := *bookworm
	before.Packages = []string{"of before"}
	for _, name := range names[:4] {
		h := f.hosts[name]
		h.variant = "old"
		if name == "lab4" {
			h.variant = "older"
		}
		h.has(&before)
		h.state.Images[0].Description = "d"
		h.variant = "new"
	}
	source := f.hosts["lab1"]
	source.hold(&before, bookworm.Name+content+"older")
	source.state.Images[1].Description = "d"
	source.has(bookworm)
	f.hosts["lab3"].badBase = true
	r, warnings := f.over(within(t), bookworm, names...)
	if got := outcomes(r); got != "lab1 changed, lab2 changed, lab3 changed, lab4 changed, lab5 changed" {
		t.Fatalf("%s: %v", got, r.Hosts)
	}
	for name, want := range map[string]string{"lab2": idOf(bookworm, "old"), "lab3": idOf(bookworm, "old"), "lab4": idOf(bookworm, "older"), "lab5": ""} {
		h := f.hosts[name]
		if got := h.log[0]; got != "difference to "+want && (want != "" || strings.HasPrefix(got, "difference")) {
			t.Errorf("%s got the %s, want that to %q", name, got, want)
		}
		if got := h.state.Guests[0].Image; got != idOf(bookworm, "new") {
			t.Errorf("%s has %s", name, got)
		}
	}
	if source.exported != 3 { // to old, to older, whole
		t.Errorf("the image was read %d times", source.exported)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "lab3: not as the difference to ") || !strings.HasSuffix(warnings[0], ", but whole: object 0123 is damaged") {
		t.Errorf("warned %q", warnings)
	}
	whole := r.Hosts[4].Steps[0].Sent
	if whole < int64(len(content)) || r.Hosts[2].Steps[0].Sent <= whole {
		t.Errorf("sent %d and %d bytes", whole, r.Hosts[2].Steps[0].Sent)
	}
}

// Who was cut off gets the rest, and who keeps plain trees gets whole images.
func TestAnImageContinuesWhereItBrokeOff(t *testing.T) {
	names := []string{"lab1", "lab2", "lab3", "lab4"}
	f := newFleet(t, names...)
	before := *bookworm
	before.Packages = []string{"of before"}
	for _, name := range names {
		h := f.hosts[name]
		h.variant = "old"
		h.has(&before)
		h.state.Images[0].Description = "d"
		h.variant = "new"
	}
	f.hosts["lab1"].has(bookworm)
	f.hosts["lab3"].arrived = 7
	f.hosts["lab4"].plainTrees = true
	r, warnings := f.over(within(t), bookworm, names...)
	if got := outcomes(r); got != "lab1 changed, lab2 changed, lab3 changed, lab4 changed" || len(warnings) > 0 {
		t.Fatalf("%s: %v, warned %q", got, r.Hosts, warnings)
	}
	old := idOf(bookworm, "old")
	for name, want := range map[string]string{"lab2": "difference to " + old, "lab3": "difference to " + old + " from 7", "lab4": "image import"} {
		if got := f.hosts[name].log[0]; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestDifferingImagesAreSaidAndPinned(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3", "lab4")
	for name, variant := range map[string]string{"lab1": "hostile", "lab2": "good", "lab3": "good"} {
		h := f.hosts[name]
		h.variant = variant
		h.has(bookworm)
	}
	ctx, all := within(t), []string{"lab1", "lab2", "lab3", "lab4"}
	r, _ := f.over(ctx, bookworm, all...)
	hostile, good := idOf(bookworm, "hostile"), idOf(bookworm, "good")
	want := "image bookworm differs: lab1 has " + hostile + ", lab[2-3] have " + good + "; name the right one in the inventory: images: {bookworm: {digest: …}}"
	if len(r.Notes) != 1 || r.Notes[0] != want {
		t.Errorf("noted %q, want %q", r.Notes, want)
	}
	if got := f.hosts["lab4"].state.Guests[0].Image; got != good {
		t.Errorf("lab4 has %s, which the fewest had", got)
	}

	pinned := *bookworm
	pinned.Digest = hostile // for the test: it is the one that the fewest have
	r, _ = f.over(ctx, &pinned, all...)
	if got := outcomes(r); got != "lab1 ok, lab2 changed, lab3 changed, lab4 changed" {
		t.Errorf("%s: %v", got, r.Hosts[1].Error)
	}
	if s := r.Hosts[1].Steps; s[0].Kind != api.StepImport || !strings.HasPrefix(s[0].Why, "lab1 has it (") || !strings.Contains(s[1].Why, "image bookworm (") {
		t.Errorf("lab2's plan is %+v", s)
	}
	for _, h := range f.hosts {
		if got := h.state.Guests[0].Image; got != hostile {
			t.Errorf("%s has %s", h.name, got)
		}
	}
	if r, _ := f.over(ctx, &pinned, all...); outcomes(r) != "lab1 ok, lab2 ok, lab3 ok, lab4 ok" || r.Notes != nil {
		t.Errorf("%s, noted %q", outcomes(r), r.Notes)
	}
}

func TestWhoBuildsAnImage(t *testing.T) {
	for _, row := range []struct {
		name    string
		digest  string
		on      []string // the hosts that may build it
		run     []string
		fail    string // a host that cannot
		classes string
		builder string
		problem string
	}{
		{name: "a named one, which needs it itself", on: []string{"lab2"}, run: []string{"lab1", "lab2"}, builder: "lab2", classes: "lab1 changed, lab2 changed"},
		{name: "a named one, which has no guest of it", on: []string{"build"}, run: []string{"lab1", "lab2", "build"}, builder: "build",
			classes: "lab1 changed, lab2 changed, build changed"},
		{name: "the next of those that are named", on: []string{"build", "lab2"}, fail: "build", run: []string{"lab1", "lab2", "build"}, builder: "lab2",
			classes: "lab1 changed, lab2 changed, build ok"},
		{name: "nobody, if none of those is there", on: []string{"build"}, run: []string{"lab1", "lab2"},
			classes: "lab1 failed, lab2 failed", problem: "none of the hosts that may build it (build_on)"},
		{name: "anybody, if it becomes what is pinned", digest: idOf(bookworm, "lab1"), run: []string{"lab1", "lab2"}, builder: "lab1", classes: "lab1 changed, lab2 changed"},
		{name: "nobody, if it becomes another", digest: idOf(bookworm, "lab2"), run: []string{"lab1", "lab2"},
			classes: "lab1 failed, lab2 failed", problem: "lab1 built " + idOf(bookworm, "lab1") + ", and the inventory wants " + idOf(bookworm, "lab2")},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFleet(t, "lab1", "lab2", "build")
			f.inv.Hosts[2].Guests = nil
			for _, h := range f.hosts {
				h.variant = h.name
				if h.name == row.fail {
					h.failStep = "image.build bookworm"
				}
			}
			image := *bookworm
			image.Digest = row.digest
			for _, h := range f.inv.Hosts {
				if slices.Contains(row.on, h.Name) {
					image.Builders = append(image.Builders, h)
				}
			}
			r, _ := f.over(within(t), &image, row.run...)
			if got := outcomes(r); got != row.classes {
				t.Errorf("got %s, want %s: %v", got, row.classes, r.Hosts[0].Error)
			}
			for _, name := range []string{"lab1", "lab2"} {
				switch guests := f.hosts[name].state.Guests; {
				case row.builder == "" && len(guests) > 0:
					t.Errorf("%s has %+v", name, guests)
				case row.builder != "" && (len(guests) != 1 || guests[0].Image != idOf(bookworm, row.builder)):
					t.Errorf("%s has %+v, want what %s built", name, guests, row.builder)
				}
			}
			if problems := r.Hosts[0].Error; !strings.Contains(problems, row.problem) {
				t.Errorf("%v", problems)
			}
		})
	}
}

func TestAnExportThatFailsHasASecondSource(t *testing.T) {
	f := newFleet(t, "lab1", "lab2", "lab3", "lab4")
	f.hosts["lab1"].has(bookworm).exportLimit = 100_000
	f.hosts["lab2"].has(bookworm)
	r, warnings := f.over(within(t), bookworm, "lab1", "lab2", "lab3", "lab4")
	if got := outcomes(r); got != "lab1 changed, lab2 changed, lab3 changed, lab4 changed" {
		t.Errorf("%s: %v", got, r.Hosts[2].Error)
	}
	slices.Sort(warnings)
	if want := []string{
		"lab3: export from lab1: export: input/output error",
		"lab4: export from lab1: export: input/output error",
	}; !slices.Equal(warnings, want) {
		t.Errorf("warned %q, want %q", warnings, want)
	}
}

func TestAnImageOfARegistryIsPulledOnce(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	tag := strings.TrimPrefix(server.URL, "http://") + "/debian:bookworm"
	image := &inventory.Image{Name: "bookworm", Method: "oci", Args: []string{"-r", tag}}
	upload := func(text string) {
		ref, err := name.ParseReference(tag)
		if err != nil {
			t.Fatal(err)
		}
		img, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte(text), types.OCIUncompressedLayer))
		if err == nil {
			img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
		}
		if err == nil {
			err = remote.Write(ref, img)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	steps := func(f *fakeFleet) string {
		var list []string
		for _, name := range []string{"lab1", "lab2"} {
			for _, step := range f.hosts[name].log {
				if strings.HasPrefix(step, "image") {
					list = append(list, name+" "+step)
				}
			}
			f.hosts[name].log = nil
		}
		return strings.Join(list, ", ")
	}
	pulled := func(t *testing.T) *fakeFleet {
		f := newFleet(t, "lab1", "lab2")
		for _, h := range f.hosts {
			h.state.Host.Arch = "amd64"
		}
		return f
	}
	f := pulled(t)
	t.Run("a tag that is not there fails on one host, and the other needs it", func(t *testing.T) {
		r, _ := f.over(within(t), image, "lab1", "lab2")
		if len(r.Hosts) != 2 || !strings.Contains(strings.Join(results(r.Hosts[0]), " "), "no such image or tag") {
			t.Errorf("%q, %q", results(r.Hosts[0]), results(r.Hosts[1]))
		}
	})
	upload("one")
	t.Run("one host builds it, the next takes it from there", func(t *testing.T) {
		r, _ := f.over(within(t), image, "lab1", "lab2")
		if got := steps(f); got != "lab1 image.make bookworm, lab2 image import" {
			t.Errorf("%s; %q, %q", got, results(r.Hosts[0]), results(r.Hosts[1]))
		}
	})
	t.Run("a host that cannot is replaced, and nothing is pulled again", func(t *testing.T) {
		f := pulled(t)
		f.hosts["lab1"].makeFails = "it does not work"
		_, warnings := f.over(within(t), image, "lab1", "lab2")
		if got := steps(f); got != "lab1 image import, lab2 image.make bookworm" || !slices.Equal(warnings, []string{"lab1: it failed here, and lab2 built it: it does not work"}) {
			t.Errorf("%s; %q", got, warnings)
		}
	})
	update := func(t *testing.T) (outcomes string) {
		var all []string
		fleet := f.fleet()
		keeper, err := versions.Open(filepath.Join(t.TempDir(), versions.FileName), "me@here")
		if err != nil {
			t.Fatal(err)
		}
		fleet.Versions = keeper
		for _, h := range fleet.Update(within(t), f.inv, f.inv.Hosts, image).Hosts {
			all = append(all, results(h)...)
		}
		return strings.Join(all, ", ")
	}
	t.Run("an update of a tag that has not moved pulls nothing", func(t *testing.T) {
		if got := update(t); steps(f) != "" || got != "image.build bookworm unchanged, image.import bookworm unchanged" {
			t.Error(got)
		}
	})
	upload("two")
	t.Run("an update of a tag that has moved gives all the next version", func(t *testing.T) {
		if got, steps := update(t), steps(f); steps != "lab1 image.make bookworm, lab2 image import" {
			t.Errorf("%s; %s", got, steps)
		}
	})
}
