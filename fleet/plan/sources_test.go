package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// fleet returns planned hosts of these names, which have no images and want
// bookworm; set changes what they have.
func fleet(set func(map[string]*api.State), names ...string) []Host {
	states := map[string]*api.State{}
	for _, name := range names {
		s := state()
		s.Images = nil
		states[name] = &s
	}
	if set != nil {
		set(states)
	}
	var hosts []Host
	for _, name := range names {
		h := &inventory.Host{Name: name, Guests: []*inventory.Guest{www()}}
		hosts = append(hosts, Host{Inventory: h, State: *states[name], Plan: Make(h, *states[name], api.FilesAnswer{}, Rules{Image: images})})
	}
	return hosts
}

func TestSources(t *testing.T) {
	has := func(s *api.State, id string) { s.Images = append(s.Images, built(bookworm, id)) }
	for _, row := range []struct {
		name   string
		set    func(map[string]*api.State)
		others []Host
		steps  string // the first of each host, one per line; of a host that lacks nothing, none
	}{
		{
			"one host builds it for all", nil, nil,
			`a image.build: no host has it
			 b image.import: a builds it
			 c image.import: a builds it`,
		},
		{
			"a host that has it", func(s map[string]*api.State) { has(s["c"], "b1") }, nil,
			`a image.import: c has it (b1)
			 b image.import: c has it (b1)`,
		},
		{
			"a host of the inventory that is not among them",
			nil, fleet(func(s map[string]*api.State) { has(s["x"], "b9") }, "x"),
			`a image.import: x has it (b9)
			 b image.import: x has it (b9)
			 c image.import: x has it (b9)`,
		},
		{
			"one of them rather than another of the inventory",
			func(s map[string]*api.State) { has(s["b"], "b1") }, fleet(func(s map[string]*api.State) { has(s["x"], "b9") }, "x"),
			`a image.import: b has it (b1)
			 c image.import: b has it (b1)`,
		},
		{
			"what most hosts have, not what a single one claims",
			nil, fleet(func(s map[string]*api.State) { has(s["x"], "b7"); has(s["y"], "b8"); has(s["z"], "b8") }, "x", "y", "z"),
			`a image.import: y has it (b8)
			 b image.import: y has it (b8)
			 c image.import: y has it (b8)`,
		},
		{
			"a host of another architecture has it, which serves nobody else",
			func(s map[string]*api.State) { has(s["a"], "b1"); s["a"].Host.Arch = "arm64" }, nil,
			`b image.build: no host has it
			 c image.import: b builds it`,
		},
		{
			"one host of each architecture builds it", func(s map[string]*api.State) { s["a"].Host.Arch = "arm64" }, nil,
			`a image.build: no host has it
			 b image.build: no host has it
			 c image.import: b builds it`,
		},
		{
			"a host with the tool and with space",
			func(s map[string]*api.State) {
				s["a"].Host.Methods = nil
				s["b"].Host.FreeBytes = 1 << 20
			}, nil,
			`a image.import: c builds it
			 b image.import: c builds it
			 c image.build: no host has it`,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			hosts := fleet(row.set, "a", "b", "c")
			sources := Sources(hosts, row.others, nil)
			var got []string
			for _, h := range hosts {
				before := len(h.Plan.Steps)
				p := h.Plan.Provide(h.Inventory.Name, sources)
				if len(h.Plan.Steps) != before {
					t.Errorf("the plan of %s was changed in place", h.Inventory.Name)
				}
				if first := p.Steps[:len(p.Steps)-before]; len(first) > 0 {
					got = append(got, fmt.Sprintf("%s %s: %s", h.Inventory.Name, first[0].Kind, first[0].Why))
					for _, m := range sources {
						if got, lacks := p.Step(h.Inventory.Name, m), slices.Contains(m.Lack, h.Inventory.Name); lacks != (got == 0) || !lacks != (got == -1) {
							t.Errorf("the step of %s for what %q lack is %d", h.Inventory.Name, m.Lack, got)
						}
					}
				}
			}
			if want := lines(row.steps); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// What a host has in place of the image is enough, if a source has it as well.
func TestBases(t *testing.T) {
	image := func(name, method, id, description string) api.Image {
		spec := api.ImageSpec{Name: name, Method: method, Args: Spec(bookworm).Args}
		return api.Image{ID: id, Spec: spec, Key: spec.Key(), Description: description}
	}
	wanted := built(bookworm, "b2")
	same := built(bookworm, "b1")
	same.Description = "d"
	for _, row := range []struct {
		name   string
		source []api.Image
		target []api.Image
		want   string
	}{
		{"the version before", []api.Image{same}, []api.Image{same}, "a has it (b2), as the difference to @1"},
		{"the newest that both have", []api.Image{same}, []api.Image{image(bookworm.Name, "x", "newer", "d"), same}, "a has it (b2), as the difference to @1"},
		{"one of the same name", []api.Image{image(bookworm.Name, "x", "n", "d")}, []api.Image{image("other", bookworm.Method, "o", "d"), image(bookworm.Name, "x", "n", "d")}, "a has it (b2), as the difference to n"},
		{"one that is built alike", []api.Image{image("other", bookworm.Method, "o", "d")}, []api.Image{image("other", bookworm.Method, "o", "d")}, "a has it (b2), as the difference to o"},
		{"none that is something else", []api.Image{image("other", "x", "o", "d")}, []api.Image{image("other", "x", "o", "d")}, "a has it (b2)"},
		{"none that the source does not have", nil, []api.Image{same}, "a has it (b2)"},
		{"no plain tree of the target", []api.Image{same}, []api.Image{built(bookworm, "b1")}, "a has it (b2)"},
		{"no plain tree of the source", []api.Image{built(bookworm, "b1")}, []api.Image{same}, "a has it (b2)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			hosts := fleet(func(s map[string]*api.State) {
				s["a"].Images = append([]api.Image{wanted}, row.source...)
				s["b"].Images = row.target
			}, "a", "b")
			for i := range hosts {
				hosts[i].Plan = Plan{images: []need{{key: "k", spec: Spec(bookworm), specKey: Spec(bookworm).Key(), digest: "sha256:b2"}}}
			}
			hosts[0].Plan = Plan{}
			p := hosts[1].Plan.Provide("b", Sources(hosts, nil, numbers{"sha256:b1": 1}))
			if len(p.Steps) != 1 || p.Steps[0].Why != row.want {
				t.Errorf("got %v, want %q", p.Steps, row.want)
			}
		})
	}
}

type numbers map[string]int

func (numbers) Current(string, string, string) string { return "" }
func (n numbers) Number(id string) int                { return n[id] }

// Steps that come before the others move the cuts between those.
func TestProvideMovesCuts(t *testing.T) {
	p := Plan{Steps: []api.Step{{Name: "a"}, {Name: "b"}}, Cuts: []int{1}, images: []need{needOf(bookworm, nil, ""), needOf(trixie, nil, "")}}
	h := Host{Inventory: &inventory.Host{Name: "web01"}, Plan: p}
	got := written(p.Provide("web01", Sources([]Host{h}, nil, nil)))
	want := []string{"image.build trixie: no host has it", "image.build bookworm: no host has it", " a: ", "--", " b: "}
	if !slices.Equal(got, want) || p.Cuts[0] != 1 {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNobodyMayBuild(t *testing.T) {
	named := *bookworm
	named.Builders = []*inventory.Host{{Name: "build"}}
	h := &inventory.Host{Name: "web01", Guests: []*inventory.Guest{www()}}
	s := state()
	s.Images = nil
	p := Make(h, s, api.FilesAnswer{}, Rules{Image: func(string) *inventory.Image { return &named }})
	sources := Sources([]Host{{h, s, p}}, nil, nil)
	p = p.Provide("web01", sources)
	if len(p.Refused) != 1 || p.Refused[0].Guest != "www" || p.Refused[0].Err != sources[0].Err || p.Steps[0].Why != "it cannot be built" {
		t.Errorf("refused %v, steps %v", p.Refused, p.Steps)
	}
}

// currentVersion has one version of each image.
type currentVersion string

func (v currentVersion) Current(string, string, string) string { return string(v) }
func (v currentVersion) Number(string) int                     { return 0 }

// The next version by newer packages is made on a host that has the last one.
func TestTheNextVersionByNewerPackages(t *testing.T) {
	image := *bookworm
	image.Update = inventory.UpdatePackages
	steps := func(versions Versions, holder string) (list []string) {
		t.Helper()
		hosts := fleet(func(s map[string]*api.State) {
			if holder != "" {
				s[holder].Images = append(s[holder].Images, built(bookworm, "b1"))
			}
		}, "a", "b")
		for i, h := range hosts {
			hosts[i].Plan = Renew(&image, versions, h.State.Host.Arch)
		}
		for _, m := range Sources(hosts, nil, nil) {
			if m.Err != nil {
				return []string{m.Err.Error()}
			}
			for _, h := range hosts {
				s := h.Plan.Provide(h.name(), []Image{m}).Steps[0]
				list = append(list, fmt.Sprintf("%s %s %v %s: %s", h.name(), s.Kind, s.Anew, s.Upgrade, s.Why))
			}
		}
		return list
	}
	for _, row := range []struct {
		what     string
		versions Versions
		holder   string
		want     []string
	}{
		{"the host that has it", currentVersion("sha256:b1"), "b", []string{"a image.import false : b builds it", "b image.build true sha256:b1: its next version, by newer packages in a copy of b1"}},
		{"the first version is built", currentVersion(""), "", []string{"a image.build true : its next version", "b image.import false : a builds it"}},
		{"no host has it any more", currentVersion("sha256:b1"), "", []string{"image bookworm: none of the hosts that may build it has its version b1, whose packages are to be upgraded: bring it to one with vsfleet image push, or give the image update: build"}},
	} {
		t.Run(row.what, func(t *testing.T) {
			if got := steps(row.versions, row.holder); !slices.Equal(got, row.want) {
				t.Errorf("got %q\nwant %q", got, row.want)
			}
		})
	}
}
