package rollout

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// StoppedError is the error of a host whose turn did not come because the run had
// stopped, or because the budget of its label was used up.
type StoppedError struct{ Why string }

func (e *StoppedError) Error() string { return "not begun: " + e.Why }

// ErrorKind is the [outcome.Kind] of the error.
func (e *StoppedError) ErrorKind() string { return string(outcome.KindStopped) }

// rule decides whether a run goes on, and which hosts may be disrupted now. Its methods
// may be called by several goroutines.
type rule struct {
	many  bool // several batches
	most  Size // hosts that may fail
	total int

	mu      sync.Mutex
	failed  []string
	why     *StoppedError // nil: the run goes on
	budgets []budget
	changed chan struct{} // closed when a budget has become free, or the run has stopped
}

// budget is a Budget for one value of its label.
type budget struct {
	key       [2]string // label and value
	most      int
	disrupted []*host // under way, or failed
	lost      int     // of these, failed
}

func newRule(r *run) *rule {
	s := r.Strategy
	rule := &rule{many: len(s.Serial)+len(s.Canary) > 0, most: s.MaxFail, total: len(r.hosts), changed: make(chan struct{})}
	for _, b := range s.Budget {
		count := map[string]int{}
		for _, h := range r.hosts {
			if value, ok := h.want.Labels[b.Label]; ok {
				count[value]++
			}
		}
		for value, n := range count {
			rule.budgets = append(rule.budgets, budget{key: [2]string{b.Label, value}, most: max(b.Most.Of(n), 1)})
		}
	}
	return rule
}

// stopped returns why the run has stopped, or nil.
func (r *rule) stopped() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.why == nil {
		return nil
	}
	return r.why
}

// stop has the run begin no more hosts.
func (r *rule) stop(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halt(why)
}

func (r *rule) halt(why string) {
	if r.why == nil {
		r.why = &StoppedError{why}
		r.wake()
	}
}

func (r *rule) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// ended takes note of the outcome of a host.
func (r *rule) ended(h *host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	interrupted := outcome.KindOf(h.err) == outcome.KindInterrupted
	broken := h.acted && h.outcome == outcome.Failed && !interrupted
	for i := range r.budgets {
		b := &r.budgets[i]
		switch at := slices.Index(b.disrupted, h); {
		case at < 0:
		case broken:
			b.lost++
		default:
			b.disrupted = slices.Delete(b.disrupted, at, at+1)
		}
	}
	r.wake()
	if !broken && (h.outcome != outcome.Reverted || interrupted) {
		return
	}
	r.failed = append(r.failed, h.name)
	switch may := r.most.Of(r.total); {
	case r.most.IsSet() && len(r.failed) > may:
		r.halt(fmt.Sprintf("%s failed, more than the %d of %d hosts that may (--max-fail %s)", nodeset.Fold(r.failed), may, r.total, r.most))
	case !r.most.IsSet() && r.many:
		r.halt(fmt.Sprintf("%s failed; a run in batches goes on after that only with --max-fail", h.name))
	}
}

// judgeCanaries stops the run if one of its canaries is not as it should be.
func (r *rule) judgeCanaries(hosts []*host) {
	bad := slices.DeleteFunc(slices.Clone(hosts), func(h *host) bool {
		return !h.canary || slices.Contains([]outcome.Outcome{"", outcome.OK, outcome.Changed, outcome.NotStarted}, h.outcome)
	})
	if len(bad) > 0 {
		r.stop(fmt.Sprintf("canary %s: %s", nodeset.Fold(names(bad)), counts(bad)))
	}
}

// disrupt waits until a host may be disrupted.
func (r *rule) disrupt(ctx context.Context, h *host) error {
	for {
		free, changed, err := r.tryDisrupt(h)
		if free || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryDisrupt counts a host as disrupted if all its budgets allow it. Otherwise changed
// is closed when it is worth to ask again.
func (r *rule) tryDisrupt(h *host) (free bool, changed chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.why != nil {
		return false, nil, r.why
	}
	free = true
	for i := range r.budgets {
		b := &r.budgets[i]
		switch {
		case !b.bounds(h) || slices.Contains(b.disrupted, h):
		case b.lost >= b.most:
			return false, nil, &StoppedError{fmt.Sprintf("%s failed, and at most %d with %s=%s may be disrupted at the same time (--budget)",
				nodeset.Fold(names(b.disrupted)), b.most, b.key[0], b.key[1])}
		case len(b.disrupted) >= b.most:
			free = false
		}
	}
	if !free {
		return false, r.changed, nil
	}
	for i := range r.budgets {
		if b := &r.budgets[i]; b.bounds(h) && !slices.Contains(b.disrupted, h) {
			b.disrupted = append(b.disrupted, h)
		}
	}
	return true, nil, nil
}

func (b *budget) bounds(h *host) bool {
	value, ok := h.want.Labels[b.key[0]]
	return ok && value == b.key[1]
}
