package claim

import (
	"slices"

	"github.com/vsfleet/vsfleet/internal/port"
)

// Table holds claims with their owners and finds those that conflict with another. A
// host may have a thousand guests, too many to compare each with each. The zero Table
// is empty.
type Table[Owner any] struct {
	entries []Entry[Owner]
	filed   map[key][]int // indexes of entries

	compared int // number of comparisons, for the test
}

// Entry is a claim of a Table.
type Entry[Owner any] struct {
	Owner Owner
	Claim Claim
}

// key is the key that claims are filed under.
type key struct {
	kind  Kind // Context, Own, Share, or Port for all that take ports
	n     int  // the context, or a block of ports
	at    Place
	any   bool // instead of at: every place that is named
	proto port.Proto
}

// A block is blockSize neighbouring ports; ranges that span more than two blocks are
// filed together, as wide.
const (
	blockSize = 64
	wide      = -1
)

// Add adds a claim.
func (t *Table[Owner]) Add(owner Owner, c Claim) {
	if t.filed == nil {
		t.filed = map[key][]int{}
	}
	file := func(k key) { t.filed[k] = append(t.filed[k], len(t.entries)) }
	switch c.Kind {
	case Context:
		file(key{kind: Context, n: c.Context})
	case Own:
		file(key{kind: Own, at: c.At})
	case Share:
		file(key{kind: Share, at: c.At})
	case Forward:
		if c.At != Everywhere {
			file(key{kind: Share, at: c.At})
		}
	}
	if c.takesPorts() {
		first, last := int(c.Ports.First)/blockSize, int(c.Ports.Last)/blockSize
		if last > first+1 {
			first, last = wide, wide
		}
		for n := first; n <= last; n++ {
			file(key{kind: Port, n: n, at: c.At, proto: c.Ports.Proto})
			if c.At != Everywhere {
				file(key{kind: Port, n: n, any: true, proto: c.Ports.Proto})
			}
		}
	}
	t.entries = append(t.entries, Entry[Owner]{owner, c})
}

// Conflicts returns the claims of the table that conflict with c, in the order
// in which they were added.
func (t *Table[Owner]) Conflicts(c Claim) []Entry[Owner] {
	var found []int
	look := func(k key) {
		t.compared += len(t.filed[k])
		for _, i := range t.filed[k] {
			if c.Conflicts(t.entries[i].Claim) {
				found = append(found, i)
			}
		}
	}
	switch c.Kind {
	case Context:
		look(key{kind: Context, n: c.Context})
	case Own:
		look(key{kind: Own, at: c.At})
		look(key{kind: Share, at: c.At})
	case Share, Forward:
		look(key{kind: Own, at: c.At})
	}
	if c.takesPorts() {
		at := key{kind: Port, at: c.At, proto: c.Ports.Proto}
		others := key{kind: Port, proto: c.Ports.Proto} // Everywhere
		others.any = c.At == Everywhere
		for _, k := range []key{at, others} {
			k.n = wide
			look(k)
			for k.n = int(c.Ports.First) / blockSize; k.n <= int(c.Ports.Last)/blockSize; k.n++ {
				look(k)
			}
		}
	}
	if found == nil {
		return nil
	}
	slices.Sort(found) // a claim may be filed under several keys
	var entries []Entry[Owner]
	for _, i := range slices.Compact(found) {
		entries = append(entries, t.entries[i])
	}
	return entries
}
