package rollout

import (
	"net/netip"
	"slices"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
)

// change is the steps of one guest, with what it was (if it was) and what it
// will be (if it will be).
type change struct {
	name     string
	old, new api.Guest
	steps    []api.Step
}

// order lays the steps of the guests one after the other, those that give
// something up before those that take it over, and notes where one must wait
// for the other. Else the order is: deletes, changes, creates, each by name.
//
// Two guests that swap what they have cannot be ordered. They stay as they
// come, and the host says what is in the way: to give one of them up in the
// middle of a run is for a person to decide.
func (p *Plan) order(groups ...[]change) {
	var rest []change
	for _, group := range groups {
		rest = append(rest, group...)
	}
	var wave []change // since the last cut
	for len(rest) > 0 {
		next := 0
		for i := range rest {
			if !takesFromAny(rest[i], rest[:i]) && !takesFromAny(rest[i], rest[i+1:]) {
				next = i
				break
			}
		}
		c := rest[next]
		rest = append(rest[:next:next], rest[next+1:]...)
		if takesFromAny(c, wave) {
			p.cuts = append(p.cuts, len(p.Steps))
			wave = nil
		}
		wave = append(wave, c)
		p.Steps = append(p.Steps, c.steps...)
	}
}

func takesFromAny(c change, others []change) bool {
	for _, o := range others {
		if c.takes(o.old) {
			return true
		}
	}
	return false
}

// takes says whether a guest will have what it has not and another one has:
// its context, one of its addresses, a port. It is for the order only, so it
// is simpler than what a host refuses (equal ports count on whatever address),
// and mistaken only towards waiting.
func (c change) takes(from api.Guest) bool {
	g, old := c.new, c.old
	if g.Name == "" || from.Name == "" || g.Name == from.Name {
		return false
	}
	if g.Context != 0 && g.Context == from.Context && g.Context != old.Context {
		return true
	}
	if g.Network.Mode == api.ModeOwn || from.Network.Mode == api.ModeOwn {
		for _, a := range g.Network.Addresses {
			if hasAddress(from, a) && !hasAddress(old, a) {
				return true
			}
		}
	}
	had := ranges(old.Network)
	for _, want := range ranges(g.Network) {
		if slices.Contains(had, want) {
			continue
		}
		if slices.ContainsFunc(ranges(from.Network), want.Overlaps) {
			return true
		}
	}
	return false
}

func hasAddress(g api.Guest, a netip.Prefix) bool {
	return slices.ContainsFunc(g.Network.Addresses, func(b netip.Prefix) bool { return a.Addr() == b.Addr() })
}

// ranges are the ports of the host that a guest has.
func ranges(n api.Network) []port.Range {
	list := slices.Clone(n.Ports)
	for _, f := range n.Forwards {
		list = append(list, f.Range())
	}
	return list
}
