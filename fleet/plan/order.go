package plan

import (
	"container/heap"
	"slices"

	"github.com/vsfleet/vsfleet/internal/claim"
	"github.com/vsfleet/vsfleet/node/api"
)

// change is the steps of one guest, with its configuration before and after them,
// which is nil if there is none.
type change struct {
	old, new *api.Guest
	runs     *api.Guest // what it still runs with, if that is not old
	steps    []api.Step
}

// order puts the steps of the guests into the plan. A guest that gives something
// up comes before the one that takes it over, with a cut between them. Apart from
// that the groups and their guests keep their order.
//
// Two guests that swap what they have cannot be ordered. They keep their order,
// and the host reports the conflict: to give one of them up in the middle of a
// run is for a person to decide.
func (p *Plan) order(groups ...[]change) {
	all := slices.Concat(groups...)
	have := givers(all)
	from := make([][]int, len(all))   // whom each takes from
	takers := make([][]int, len(all)) // the other way round
	waits := make([]int, len(all))    // how many of from are still to come
	for i, c := range all {
		from[i] = c.takesFrom(have, i)
		waits[i] = len(from[i])
		for _, j := range from[i] {
			takers[j] = append(takers[j], i)
		}
	}
	var ready ints // a heap: the first of them is next
	for i := range all {
		if waits[i] == 0 {
			heap.Push(&ready, i)
		}
	}
	wave := 1 // since the last cut
	in := make([]int, len(all))
	for first, left := 0, len(all); left > 0; left-- {
		next := -1
		for next < 0 || in[next] != 0 {
			if len(ready) > 0 {
				next = heap.Pop(&ready).(int)
				continue
			}
			for in[first] != 0 {
				first++
			}
			next = first // the rest is a circle
		}
		if slices.ContainsFunc(from[next], func(j int) bool { return in[j] == wave }) {
			p.Cuts = append(p.Cuts, len(p.Steps))
			wave++
		}
		in[next] = wave
		p.Steps = append(p.Steps, all[next].steps...)
		for _, i := range takers[next] {
			if waits[i]--; waits[i] == 0 {
				heap.Push(&ready, i)
			}
		}
	}
}

// ints is a heap of integers, see container/heap.
type ints []int

func (h ints) Len() int           { return len(h) }
func (h ints) Less(i, j int) bool { return h[i] < h[j] }
func (h ints) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ints) Push(x any)        { *h = append(*h, x.(int)) }
func (h *ints) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// givers returns a table of what the guests have, by their indices. A host may
// have a thousand guests, too many to compare each with each.
func givers(all []change) *claim.Table[int] {
	var have claim.Table[int]
	for i, c := range all {
		for _, g := range c.before() {
			for cl := range g.Claims() {
				have.Add(i, cl)
			}
		}
	}
	return &have
}

// takesFrom returns the guests that the i-th takes something from.
func (c change) takesFrom(have *claim.Table[int], i int) []int {
	var found []int
	for _, cl := range c.gains() {
		for _, other := range have.Conflicts(cl) {
			if other.Owner != i {
				found = append(found, other.Owner)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// before returns what a guest has until its steps are taken: its configuration,
// and what it still runs with.
func (c change) before() []*api.Guest {
	return slices.DeleteFunc([]*api.Guest{c.old, c.runs}, func(g *api.Guest) bool { return g == nil })
}

// gains returns the claims that a guest will have and does not have yet.
func (c change) gains() []claim.Claim {
	if c.new == nil {
		return nil
	}
	var had []claim.Claim
	if c.old != nil {
		had = slices.Collect(c.old.Claims())
	}
	return slices.DeleteFunc(slices.Collect(c.new.Claims()), func(cl claim.Claim) bool { return slices.Contains(had, cl) })
}
