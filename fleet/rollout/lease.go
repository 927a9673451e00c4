package rollout

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// A run that changes hosts holds their leases from the question for their states to
// the last step, so that no other run changes what it compared. Two runs that want
// the same hosts may each get some of them. So that they do not wait for one another
// for ever, the younger one gives back all its leases before it waits; the older one
// keeps its own. The ids of runs begin with their times, by which they are compared:
// clocks that differ make it unfair, not wrong.

// LockedError is returned for a host that another run was changing for longer than
// this one was to wait.
type LockedError struct {
	Host string
	By   api.Holder
	same bool // this very run
}

func (e *LockedError) Error() string {
	if e.same {
		return fmt.Sprintf("%s is in the inventory twice: another of its names leads to the same machine; leave one out", e.Host)
	}
	if !e.By.Until.IsZero() {
		return fmt.Sprintf("locked: %s; vsfleet lock release %s ends that", holds(e.By), e.Host)
	}
	text := fmt.Sprintf("locked: %s; wait longer with --lock-wait", holds(e.By))
	if e.By.Node > 0 {
		text += fmt.Sprintf(", or end that run (vsfleet lock release %s; on the host: kill %d)", e.Host, e.By.Node)
	}
	return text
}

// ErrorKind is the [outcome.Kind] of the error.
func (e *LockedError) ErrorKind() string { return string(outcome.KindLocked) }

// holds returns who holds a lease: "held by root@ctl since 12:00:03 (apply)".
func holds(by api.Holder) string {
	if by.Owner == "" {
		return "held by a run that has just begun"
	}
	if !by.Until.IsZero() {
		return fmt.Sprintf("kept by %s until %s (%s)", by.Owner, by.Until.Local().Format(time.DateTime), by.Reason)
	}
	return fmt.Sprintf("held by %s, process %d, since %s (%s)", by.Owner, by.PID, by.Since.Local().Format(time.DateTime), by.Reason)
}

// connect connects to a host and asks for its state.
func (r *run) connect(ctx context.Context, h *host) error {
	h.begun = time.Now()
	within, cancel := fanout.WithTimeout(ctx, r.Timeout)
	defer cancel()
	node, err := r.Connect(within, h.want)
	if err != nil {
		return fanout.TimeoutOr(within, err)
	}
	h.node = newConn(node)
	return r.askState(ctx, h, 0)
}

// askState takes the lease of a host, if the run is to change it, and asks for
// its state. If another run has the lease, askState waits for it no longer than
// wait, and then notes who has it in h.busy.
func (r *run) askState(ctx context.Context, h *host, wait time.Duration) error {
	limit := r.Timeout
	if limit > 0 {
		limit += wait
	}
	within, cancel := fanout.WithTimeout(ctx, limit)
	defer cancel()
	if r.reason != "" && !r.surveying && !h.leased {
		answer, err := h.node.Lease(within, api.Lease{Wait: wait, Holder: api.Holder{
			Run: r.id, Owner: r.Owner, PID: os.Getpid(), Reason: r.reason,
		}})
		switch {
		case err != nil:
			return fanout.TimeoutOr(within, err)
		case !answer.Held:
			h.busy = &answer.By
			return nil
		}
		h.leased, h.busy = true, nil
		r.noteReverted(h, answer.Reverted)
	}
	var err error
	h.state, err = h.node.State(within)
	return fanout.TimeoutOr(within, err)
}

// lock waits until the run has the leases of all hosts. Hosts whose lease it does
// not get in time fail.
func (r *run) lock(ctx context.Context) error {
	deadline := time.Now().Add(r.LockWait)
	named := map[string]bool{}
	for {
		busy := r.busy(ctx, deadline)
		left := time.Until(deadline)
		if left <= 0 || ctx.Err() != nil {
			for _, h := range busy {
				r.fail(ctx, h, &LockedError{Host: h.name, By: *h.busy})
			}
			busy = nil
		}
		if len(busy) == 0 {
			r.endUnleased(ctx)
			return nil
		}
		r.nameHolders(busy, named)
		older := slices.IndexFunc(busy, func(h *host) bool { return h.busy.Run < r.id })
		if older < 0 {
			r.askStates(ctx, busy, left)
			continue
		}
		r.release(ctx)
		r.askStates(ctx, busy[older:older+1], left)
		r.askStates(ctx, slices.DeleteFunc(r.remaining(), func(h *host) bool { return h.leased || h == busy[older] }), 0)
	}
}

// busy returns the hosts that other runs have leased. Those that a person keeps beyond
// the deadline fail: a wait for them would be in vain.
func (r *run) busy(ctx context.Context, deadline time.Time) []*host {
	var list []*host
	for _, h := range r.remaining() {
		switch {
		case h.busy == nil:
		case h.busy.Run == r.id:
			r.fail(ctx, h, &LockedError{Host: h.name, By: *h.busy, same: true})
		case h.busy.Until.After(deadline):
			r.fail(ctx, h, &LockedError{Host: h.name, By: *h.busy})
		default:
			list = append(list, h)
		}
	}
	return list
}

// askStates asks hosts again, as askState does.
func (r *run) askStates(ctx context.Context, hosts []*host, wait time.Duration) {
	r.each(ctx, hosts, func(ctx context.Context, h *host) {
		if err := r.askState(ctx, h, wait); err != nil {
			r.fail(ctx, h, err)
		}
	})
}

// endUnleased ends the hosts whose leases the run had given back when it was
// interrupted: what it knows of them is old.
func (r *run) endUnleased(ctx context.Context) {
	for _, h := range r.remaining() {
		if !h.leased {
			r.fail(ctx, h, context.Cause(ctx))
		}
	}
}

// nameHolders sends an event for each run that this one waits for, once.
func (r *run) nameHolders(busy []*host, named map[string]bool) {
	for _, h := range busy {
		if named[h.busy.Run] {
			continue
		}
		named[h.busy.Run] = true
		others := 0
		for _, other := range busy {
			if other != h && other.busy.Run == h.busy.Run {
				others++
			}
		}
		name := h.name
		if others > 0 {
			name += fmt.Sprintf(" and %d more", others)
		}
		r.watch(report.Event{Kind: report.Progress, Message: fmt.Sprintf("waiting for %s: %s", name, holds(*h.busy))})
	}
}

// release gives back all leases. The states of the hosts are asked for again when
// the leases are.
func (r *run) release(ctx context.Context) {
	leased := slices.DeleteFunc(r.remaining(), func(h *host) bool { return !h.leased })
	r.each(ctx, leased, func(ctx context.Context, h *host) {
		h.leased, h.state = false, api.State{}
		if err := h.node.Release(ctx); err != nil {
			r.fail(ctx, h, err)
		}
	})
}

// Lock keeps all runs off hosts for a time. It waits for those that are changing them.
func (f *Fleet) Lock(ctx context.Context, hosts []*inventory.Host, reason string, period time.Duration) report.Run {
	lock := api.Lock{Run: report.NewID(time.Now()), Owner: f.Owner, Reason: reason, For: period}
	return f.Each(ctx, "lock take", hosts, func(ctx context.Context, n Node) (string, error) { return "locked", n.Lock(ctx, lock) })
}
