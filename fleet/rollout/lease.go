package rollout

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/node/api"
)

// A run that changes hosts has their leases from the question to the last
// step, so that no other run changes what it compared. Two runs that want the
// same hosts each get some of them first. So that they do not wait for one
// another for ever, the younger one gives back all that it has and waits with
// empty hands; the older one keeps what it has. Which is older is told by the
// runs' ids, which begin with their times: clocks that differ make it unfair,
// not wrong.

// LockedError is that somebody else was changing a host for longer than the run
// wanted to wait.
type LockedError struct {
	Host string
	By   api.Holder
	same bool // this very run
}

func (e *LockedError) Error() string {
	if e.same {
		return fmt.Sprintf("%s is in the inventory twice: another of its names leads to the same machine; leave one out", e.Host)
	}
	text := fmt.Sprintf("%s is locked: %s; wait longer with --lock-wait", e.Host, holds(e.By))
	if e.By.Node > 0 {
		text += fmt.Sprintf(", or end that run (on the host: kill %d)", e.By.Node)
	}
	return text
}

// ErrorKind is the [outcome.Kind] of the error.
func (e *LockedError) ErrorKind() string { return string(outcome.KindLocked) }

// holds says who holds a lease: "held by root@ctl since 12:00:03 (apply)".
func holds(by api.Holder) string {
	if by.Owner == "" {
		return "held by a run that has just begun"
	}
	return fmt.Sprintf("held by %s, process %d, since %s (%s)", by.Owner, by.PID, by.Since.Local().Format(time.DateTime), by.Reason)
}

// question takes the lease of a host, if the run is to change it, and asks for
// its state. Where another run has the lease, question waits for it at most so
// long, and leaves h.busy behind.
func (r *run) question(ctx context.Context, h *host, wait time.Duration) {
	limit := r.Timeout
	if limit > 0 {
		limit += wait
	}
	within, cancel := fanout.Within(ctx, limit)
	defer cancel()
	if r.reason != "" && !h.leased {
		answer, err := h.node.Lease(within, api.Lease{Wait: wait, Holder: api.Holder{
			Run: r.id, Owner: r.Owner, PID: os.Getpid(), Reason: r.reason,
		}})
		switch {
		case err != nil:
			h.busy = nil
			r.fail(ctx, h, fanout.Late(within, err))
			return
		case !answer.Held:
			h.busy = &answer.By
			return
		}
		h.leased, h.busy = true, nil
	}
	var err error
	if h.State, err = h.node.State(within); err != nil {
		r.fail(ctx, h, fanout.Late(within, err))
		return
	}
	r.watch(Event{Host: h.Host, Answered: true})
}

// waitForLeases waits until the run has the leases of all hosts that it
// reached. Hosts whose lease it does not get in time have failed.
func (r *run) waitForLeases(ctx context.Context) {
	deadline := time.Now().Add(r.LockWait)
	told := map[string]bool{}
	for {
		var busy []*host
		older := -1 // index of one whose holder is older than this run
		for _, h := range r.reached() {
			if h.busy == nil {
				continue
			}
			if h.busy.Run == r.id {
				r.fail(ctx, h, &LockedError{Host: h.Host, By: *h.busy, same: true})
				continue
			}
			if h.busy.Run < r.id {
				older = len(busy)
			}
			busy = append(busy, h)
		}
		left := time.Until(deadline)
		switch {
		case len(busy) == 0:
			r.endUnleased(ctx)
			return
		case left <= 0 || ctx.Err() != nil:
			for _, h := range busy {
				r.fail(ctx, h, &LockedError{Host: h.Host, By: *h.busy})
			}
			r.endUnleased(ctx)
			return
		}
		r.tellWait(busy, told)
		if older < 0 {
			r.each(ctx, busy, func(ctx context.Context, h *host) { r.question(ctx, h, left) })
			continue
		}
		r.release(ctx)
		r.question(ctx, busy[older], left)
		again := slices.DeleteFunc(r.reached(), func(h *host) bool { return h.leased || h == busy[older] })
		r.each(ctx, again, func(ctx context.Context, h *host) { r.question(ctx, h, 0) })
	}
}

// endUnleased ends the hosts that an interrupt left without their lease, after
// the run had given it back: what is known of them is old.
func (r *run) endUnleased(ctx context.Context) {
	for _, h := range r.reached() {
		if r.reason != "" && !h.leased {
			r.fail(ctx, h, context.Cause(ctx))
		}
	}
}

// tellWait says whom the run waits for, each once.
func (r *run) tellWait(busy []*host, told map[string]bool) {
	for _, h := range busy {
		if told[h.busy.Run] {
			continue
		}
		told[h.busy.Run] = true
		others := 0
		for _, other := range busy {
			if other != h && other.busy.Run == h.busy.Run {
				others++
			}
		}
		name := h.Host
		if others > 0 {
			name += fmt.Sprintf(" and %d more", others)
		}
		r.watch(Event{Message: fmt.Sprintf("waiting for %s: %s", name, holds(*h.busy))})
	}
}

// release gives all leases back. What the hosts said is old by the time that
// they are taken again.
func (r *run) release(ctx context.Context) {
	leased := slices.DeleteFunc(r.reached(), func(h *host) bool { return !h.leased })
	r.each(ctx, leased, func(ctx context.Context, h *host) {
		h.leased, h.State = false, api.State{}
		if err := h.node.Release(ctx); err != nil {
			r.fail(ctx, h, err)
		}
	})
}
