package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/node/api"
)

// Steps that could cut the controller off from a host (plan.Guarded) are guarded there:
// the host puts their guests back by itself, unless the controller confirms, over a
// connection that it makes after them, that it still reaches the host. The connection
// that the steps were sent over proves nothing: a packet filter may let it live on.

// guard returns the guard for steps of a host; nil: they need none.
func (r *run) guard(h *host, steps []api.Step) *api.Guard {
	if r.ConfirmWithin <= 0 {
		return nil
	}
	guests := plan.Guarded(steps, h.state.Guests, h.want.Port)
	if len(guests) == 0 {
		return nil
	}
	h.guarded = append(h.guarded, guests...)
	return &api.Guard{Guests: guests, Within: r.ConfirmWithin}
}

// reachEvery is the time between attempts to reach a host again.
const reachEvery = time.Second

// reachGrace is how long a host may take to put guests back and to be reachable.
var reachGrace = time.Minute

// reach confirms guarded steps. If the host has put its guests back before it could be
// reached again, their steps have failed. The run being interrupted does not keep it
// from confirming what has been done.
func (r *run) reach(ctx context.Context, h *host) {
	if len(h.guarded) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.ConfirmWithin+reachGrace)
	defer cancel()
	for {
		answer, err := r.confirmOnce(ctx, h)
		if err == nil {
			h.takeBack(answer.Reverted)
			return
		}
		if outcome.Of(err) != outcome.Unreachable {
			if h.node.broken() != nil {
				return // the host did not take the steps: its own error says why
			}
			h.unconfirmed = fmt.Errorf("confirm that the host can be reached: %w", err)
			return
		}
		if !sleep(ctx, reachEvery) {
			h.unconfirmed = &LostError{Guests: h.guarded, After: r.ConfirmWithin + reachGrace, Err: err}
			return
		}
	}
}

// confirmOnce makes one attempt, which may take as long as the host waits.
func (r *run) confirmOnce(ctx context.Context, h *host) (api.Confirmed, error) {
	ctx, cancel := context.WithTimeout(ctx, max(r.ConfirmWithin/2, 5*time.Second))
	defer cancel()
	connect := r.Reconnect
	if connect == nil {
		connect = r.Connect
	}
	node, err := connect(ctx, h.want)
	if err != nil {
		return api.Confirmed{}, unreached(ctx, err)
	}
	defer node.Close()
	answer, err := node.Confirm(ctx, api.Confirm{Run: r.id})
	return answer, unreached(ctx, err)
}

// unreached returns err, as that of a host that could not be reached if the time for it
// is over.
func unreached(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return silentError{err}
	}
	return err
}

// silentError is the error of a host that did not answer in time.
type silentError struct{ error }

func (e silentError) Unwrap() error     { return e.error }
func (e silentError) Unreachable() bool { return true }

// takeBack notes what the host has put back.
func (h *host) takeBack(back *api.Reverted) {
	if back == nil {
		return
	}
	h.unconfirmed = &UnconfirmedError{*back}
	for i, s := range h.plan.Steps {
		if !slices.Contains(back.Guests, s.Name) || plan.ForImage(s) || i >= len(h.results) {
			continue
		}
		if h.results[i].Outcome == api.Changed || h.results[i].Error == noAnswer { // what came of it is known now
			h.results[i].Outcome, h.results[i].Error = api.Failed, h.unconfirmed.Error()
		}
	}
}

// UnconfirmedError is returned for a host that has put guests back by itself, because
// it could not be reached again in time.
type UnconfirmedError struct{ api.Reverted }

func (e *UnconfirmedError) Error() string {
	const text = "after the change the host could not be reached by a new connection, and "
	if e.Reverted.Error != "" {
		return text + "putting back " + guestList(e.Guests) + " has failed: " + e.Reverted.Error
	}
	return text + "has put back " + guestList(e.Guests)
}

// ErrorKind is the [outcome.Kind] of the error.
func (*UnconfirmedError) ErrorKind() string { return string(outcome.KindUnconfirmed) }

// LostError is returned for a host that could not be reached again at all.
type LostError struct {
	Guests []string
	After  time.Duration
	Err    error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("after the change the host could not be reached for %s; it puts back %s by itself, and the next run is told: %v", e.After, guestList(e.Guests), e.Err)
}

// Unwrap returns why it could not be reached.
func (e *LostError) Unwrap() error { return e.Err }

// ErrorKind is the [outcome.Kind] of the error.
func (*LostError) ErrorKind() string { return string(outcome.KindUnconfirmed) }

// Unreachable makes the host one that could not be reached.
func (*LostError) Unreachable() bool { return true }

func guestList(names []string) string {
	if len(names) == 1 {
		return "guest " + names[0]
	}
	return "guests " + strings.Join(names, ", ")
}

// noteReverted notes what a host has put back of an earlier run.
func (r *run) noteReverted(h *host, back *api.Reverted) {
	if back == nil {
		return
	}
	what := "could not be put back"
	if back.Error == "" {
		what = "was put back"
		if len(back.Guests) > 1 {
			what = "were put back"
		}
	}
	text := fmt.Sprintf("%s %s at %s: run %s (%s, %s) could not reach the host after its change", guestList(back.Guests), what,
		back.Time.Local().Format(time.DateTime), back.Run, back.Owner, back.Reason)
	if back.Error != "" {
		text += ": " + back.Error
	}
	h.notes = append(h.notes, text)
}
