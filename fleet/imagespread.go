package fleet

import (
	"cmp"
	"maps"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/versions"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Spread returns how far hosts differ in their images, by the images' names.
func Spread(inv *inventory.Inventory, known versions.File, answers Answers[api.State]) []report.ImageSpread {
	names := map[string]bool{}
	for _, answer := range answers {
		for _, i := range answer.Value.Images {
			names[i.Spec.Name] = true
		}
		for _, image := range inv.ImagesOf(answer.Host) {
			names[image.Name] = true
		}
	}
	var list []report.ImageSpread
	for _, name := range slices.Sorted(maps.Keys(names)) {
		s := spread{name: name, image: inv.Image(name), known: known, wanted: map[string]kept{}}
		list = append(list, s.record(inv, answers))
	}
	return list
}

// kept identifies an image that hosts have: by its version, or by its ID if it has none.
type kept struct {
	version int
	id      string
}

// A spread is about one image.
type spread struct {
	name   string
	image  *inventory.Image // nil: the inventory has none of the name
	known  versions.File
	wanted map[string]kept // by architecture
}

func (s *spread) kept(id string) kept {
	if name, v, ok := s.known.Find(id); ok && name == s.name {
		return kept{version: v.Number}
	}
	return kept{id: id}
}

// want returns what the hosts of an architecture should have: the current version, or what
// most of them have.
func (s *spread) want(arch string, answers Answers[api.State]) kept {
	if s.image != nil {
		if v, ok := s.known.Current(s.name, plan.Spec(s.image).Key(), arch); ok {
			return kept{version: v.Number}
		}
		if s.image.Digest != "" {
			return kept{id: s.image.Digest}
		}
	}
	count := map[kept]int{}
	for _, answer := range answers {
		if answer.Value.Host.Arch == arch {
			for k := range s.of(answer.Value) {
				count[k]++
			}
		}
	}
	var most kept
	for k, n := range count {
		if n > count[most] || n == count[most] && cmp.Or(k.version-most.version, cmp.Compare(k.id, most.id)) > 0 {
			most = k
		}
	}
	return most
}

// of returns what a host has of the image, with an ID of each.
func (s *spread) of(state api.State) map[kept]string {
	has := map[kept]string{}
	for _, i := range state.Images {
		if i.Spec.Name == s.name {
			has[s.kept(i.ID)] = i.ID
		}
	}
	return has
}

func (s *spread) record(inv *inventory.Inventory, answers Answers[api.State]) report.ImageSpread {
	r := report.ImageSpread{Name: s.name, Hosts: len(answers), IDs: []string{}, Have: []string{}, Others: []report.OtherImage{}, Lack: []string{}, Unknown: []string{}}
	others := map[kept]*report.OtherImage{}
	for _, answer := range answers {
		host := answer.Host.Name
		if answer.Outcome != outcome.OK {
			r.Unknown = append(r.Unknown, host)
			continue
		}
		arch := answer.Value.Host.Arch
		if _, known := s.wanted[arch]; !known {
			s.wanted[arch] = s.want(arch, answers)
		}
		want, has := s.wanted[arch], s.of(answer.Value)
		r.Version = max(r.Version, want.version)
		if id, ok := has[want]; ok {
			r.Have = append(r.Have, host)
			if !slices.Contains(r.IDs, id) {
				r.IDs = append(r.IDs, id)
			}
		} else if len(has) > 0 {
			newest := slices.MaxFunc(slices.Collect(maps.Keys(has)), func(a, b kept) int {
				return cmp.Or(a.version-b.version, cmp.Compare(a.id, b.id))
			})
			if others[newest] == nil {
				others[newest] = &report.OtherImage{Version: newest.version, ID: has[newest]}
			}
			others[newest].Hosts = append(others[newest].Hosts, host)
		} else if s.image != nil && slices.Contains(inv.ImagesOf(answer.Host), s.image) {
			r.Lack = append(r.Lack, host)
		}
		s.countGuests(&r, answer.Value, want)
	}
	for _, o := range others {
		r.Others = append(r.Others, *o)
	}
	slices.SortFunc(r.Others, func(a, b report.OtherImage) int { return cmp.Or(b.Version-a.Version, cmp.Compare(a.ID, b.ID)) })
	return r
}

// countGuests counts the guests of a host that are made of the image.
func (s *spread) countGuests(r *report.ImageSpread, state api.State, want kept) {
	ids := map[string]bool{}
	for _, i := range state.Images {
		ids[i.ID] = ids[i.ID] || i.Spec.Name == s.name
	}
	for _, g := range state.Guests {
		if ids[g.Image] {
			r.Guests++
			if s.kept(g.Image) == want {
				r.Current++
			}
		}
	}
}
