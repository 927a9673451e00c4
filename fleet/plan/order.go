package plan

import (
	"cmp"
	"container/heap"
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
	runs     *api.Guest // what it still runs with, where that is not old
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
	var all []change
	for _, group := range groups {
		all = append(all, group...)
	}
	givers := index(all)
	from := make([][]int, len(all))   // whom each takes from
	takers := make([][]int, len(all)) // the other way round
	waits := make([]int, len(all))    // of from, how many have not had their turn
	for i, c := range all {
		from[i] = givers.of(c, all)
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
			next = first // those that are left go round in circles
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

// ints is a heap.
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

// holders are the guests by what they have: a host may have a thousand, and
// each is not to be compared with each.
type holders struct {
	context map[int][]int
	own     map[netip.Addr][]int // addresses in mode own
	any     map[netip.Addr][]int // in any mode
	ports   []holding            // by the first port
	wide    []int                // those with ranges of many ports
}

type holding struct {
	ports port.Range
	by    int
}

// few is the most ports that a range in holders.ports has.
const few = 64

func index(all []change) holders {
	h := holders{context: map[int][]int{}, own: map[netip.Addr][]int{}, any: map[netip.Addr][]int{}}
	for i, c := range all {
		for _, g := range c.before() {
			h.context[g.Context] = append(h.context[g.Context], i)
			for _, a := range g.Network.Addresses {
				h.any[a.Addr()] = append(h.any[a.Addr()], i)
				if g.Network.Mode == api.ModeOwn {
					h.own[a.Addr()] = append(h.own[a.Addr()], i)
				}
			}
			for _, r := range ranges(g.Network) {
				if r.Last-r.First < few {
					h.ports = append(h.ports, holding{r, i})
				} else {
					h.wide = append(h.wide, i)
				}
			}
		}
	}
	slices.SortFunc(h.ports, func(a, b holding) int { return cmp.Compare(a.ports.First, b.ports.First) })
	return h
}

// of are the guests that c takes something from.
func (h holders) of(c change, all []change) []int {
	return slices.DeleteFunc(h.near(c), func(i int) bool {
		return !slices.ContainsFunc(all[i].before(), c.takes)
	})
}

// near are those that it may take something from: few.
func (h holders) near(c change) []int {
	found := append(slices.Clone(h.wide), h.context[c.new.Context]...)
	addresses := h.own
	if c.new.Network.Mode == api.ModeOwn {
		addresses = h.any
	}
	for _, a := range c.new.Network.Addresses {
		found = append(found, addresses[a.Addr()]...)
	}
	for _, r := range ranges(c.new.Network) {
		first := max(int(r.First)-few, 0)
		i, _ := slices.BinarySearchFunc(h.ports, first, func(p holding, first int) int { return cmp.Compare(int(p.ports.First), first) })
		for ; i < len(h.ports) && h.ports[i].ports.First <= r.Last; i++ {
			found = append(found, h.ports[i].by)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// before is what a guest has until its steps are taken: what is configured, and
// what it still runs with.
func (c change) before() []api.Guest {
	var list []api.Guest
	if c.old.Name != "" {
		list = append(list, c.old)
	}
	if c.runs != nil {
		list = append(list, *c.runs)
	}
	return list
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
