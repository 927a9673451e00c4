package plan

import (
	"fmt"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
)

// Base is an image that both sides of a copy have.
type Base struct {
	ID   string
	Name string // what tells it from the image itself: "@1"
}

// chooseBases chooses what each host that lacks the image has in its place: the newest
// image of the same spec, else of the same name, else of the same build without packages and
// files, that one of the sources has as well. Plain trees serve for none.
func (m *Image) chooseBases(hosts, others []Host, sources []string, versions Versions) {
	known := map[string]bool{}
	for _, h := range slices.Concat(hosts, others) {
		for _, have := range h.State.Images {
			known[have.ID] = known[have.ID] || have.Description != "" && slices.Contains(sources, h.name())
		}
	}
	m.Bases = map[string]Base{}
	for _, h := range hosts {
		if !slices.Contains(m.Lack, h.name()) {
			continue
		}
		var best api.Image
		for _, have := range h.State.Images { // newest first, of each name
			if known[have.ID] && have.Description != "" && have.ID != m.ID && m.likeness(have) > m.likeness(best) {
				best = have
			}
		}
		if best.ID == "" {
			continue
		}
		base := Base{best.ID, short(best.ID)}
		if versions != nil {
			if n := versions.Number(best.ID); n > 0 {
				base.Name = fmt.Sprintf("%s@%d", best.Spec.Name, n)
				if best.Spec.Name == m.Spec.Name {
					base.Name = fmt.Sprintf("@%d", n)
				}
			}
		}
		m.Bases[h.name()] = base
	}
}

// likeness returns how much an image is likely to share with the one that is wanted.
func (m *Image) likeness(have api.Image) int {
	switch {
	case have.ID == "":
		return 0
	case have.Key == m.need.specKey:
		return 3
	case have.Spec.Name == m.Spec.Name:
		return 2
	case have.Spec.Method == m.Spec.Method && slices.Equal(have.Spec.Args, m.Spec.Args):
		return 1
	}
	return 0
}
