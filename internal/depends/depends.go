package depends

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Graph holds the names that each name depends on. A name without an entry depends on
// nothing.
type Graph map[string][]string

// CycleError is a circle of names: each depends on the next, the last on the first.
type CycleError []string

func (e CycleError) Error() string {
	return fmt.Sprintf("guests depend on each other in a circle: %s → %s (remove one of them from apps/init/depends of the one before it)", strings.Join(e, " → "), e[0])
}

// NeedsError is the error for a name that was not begun, as what it depends on failed.
type NeedsError struct {
	On  string
	Err error
}

func (e *NeedsError) Error() string { return fmt.Sprintf("it depends on %s, which failed", e.On) }
func (e *NeedsError) Unwrap() error { return e.Err }

// All returns names and everything that they depend on, each once.
func (g Graph) All(names []string) []string {
	all := slices.Clone(names)
	seen := make(map[string]bool, len(names))
	for i := 0; i < len(all); i++ {
		if seen[all[i]] {
			all = slices.Delete(all, i, i+1)
			i--
			continue
		}
		seen[all[i]] = true
		all = append(all, g[all[i]]...)
	}
	return all
}

// Order returns names so that each comes after those among them that it depends on,
// directly or through others; otherwise the given order is kept. The error is a
// CycleError.
func (g Graph) Order(names []string) ([]string, error) {
	asked := make(map[string]bool, len(names))
	for _, name := range names {
		asked[name] = true
	}
	order := make([]string, 0, len(names))
	done := map[string]bool{}
	var path []string // from an asked name to the one that is visited
	var visit func(name string) error
	visit = func(name string) error {
		if i := slices.Index(path, name); i >= 0 {
			return CycleError(slices.Clone(path[i:]))
		}
		if done[name] {
			return nil
		}
		path = append(path, name)
		for _, on := range g[name] {
			if err := visit(on); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		done[name] = true
		if asked[name] {
			order = append(order, name)
		}
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// Reverse returns the graph of stops: each name depends on those that need it.
func (g Graph) Reverse() Graph {
	r := make(Graph, len(g))
	for name, on := range g {
		for _, o := range on {
			if !slices.Contains(r[o], name) {
				r[o] = append(r[o], name)
			}
		}
	}
	for _, needed := range r {
		slices.Sort(needed) // a map has no order
	}
	return r
}

// Walk calls do for each of names, at most parallel at a time, and for each only when do
// has returned for all names that it depends on, directly or through others. Where one
// of these failed, the name is not begun and its error is a NeedsError; names not begun
// when ctx ends have its error. Walk returns when all have an answer: the errors by name.
func (g Graph) Walk(ctx context.Context, names []string, parallel int, do func(name string) error) (map[string]error, error) {
	order, err := g.Order(names)
	if err != nil {
		return nil, err
	}
	type answer struct {
		name string
		err  error
	}
	answers := make(chan answer)
	errs := make(map[string]error, len(order))
	within := g.within(order)
	for busy := 0; len(order) > 0 || busy > 0; {
		for i := 0; i < len(order) && busy < max(parallel, 1); i++ {
			name := order[i]
			state, on := ready(within[name], errs)
			if state == waits && ctx.Err() == nil {
				continue
			}
			order = slices.Delete(order, i, i+1)
			i--
			switch {
			case ctx.Err() != nil:
				errs[name] = context.Cause(ctx)
			case state == failed:
				errs[name] = &NeedsError{on, errs[on]}
			default:
				busy++
				go func() { answers <- answer{name, do(name)} }()
			}
		}
		if busy > 0 {
			a := <-answers
			errs[a.name] = a.err
			busy--
		}
	}
	return errs, nil
}

// within returns, for each of names, those of names that it depends on, also through
// names that are not among them.
func (g Graph) within(names []string) Graph {
	w := make(Graph, len(names))
	for _, name := range names {
		for _, on := range g.All(g[name]) {
			if on != name && slices.Contains(names, on) {
				w[name] = append(w[name], on)
			}
		}
	}
	return w
}

const (
	begins = iota
	waits
	failed
)

// ready reports whether what a name depends on is done; of those that failed, it names
// one that did so itself where there is one.
func ready(on []string, errs map[string]error) (state int, which string) {
	for _, o := range on {
		err, answered := errs[o]
		switch needs := (*NeedsError)(nil); {
		case !answered:
			return waits, o
		case err == nil:
		case which == "" || !errors.As(err, &needs):
			state, which = failed, o
		}
	}
	return state, which
}
