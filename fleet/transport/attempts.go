package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// penaltyWaits is how many times ConnectTimeout an sshd may go on to punish this machine:
// by default that is two minutes, longer than the penalties for what a controller is
// likely to have done. A failed authentication costs 5 seconds (sshd_config(5)).
const penaltyWaits = 12

// attempts are those to connect to one host. It decides which failures are worth another
// attempt: a connection that sshd drops because too many begin at once, one that
// breaks during the handshake, a penalty, a name server that is busy. An attempt that
// came as far as authentication is not repeated, as sshd punishes failed ones.
type attempts struct {
	d        *Dialer
	settings Settings
	limiter  *limiter

	shared *limiter // of hosts that were dropped, once this one was

	tries  int
	broken int
	first  time.Time     // of the attempts
	queued time.Duration // since then, in which it was others' turn
	told   bool          // that the host waits for the end of a penalty
}

// waitOut is called before the host waits for the end of a penalty.
func (a *attempts) waitOut() {
	if !a.told && a.d.Waiting != nil {
		a.d.Waiting(a.settings.Name, fmt.Sprintf("its sshd does not let this machine in at the moment (PerSourcePenalties): waiting %s at most", a.penaltyWait()))
	}
	a.told = true
}

func (a *attempts) penaltyWait() time.Duration { return penaltyWaits * a.settings.ConnectTimeout }

// begin waits for the host's turn.
//
// Many addresses may lead to one sshd, which a limiter per address does not see. So hosts
// that were dropped share a limiter as well: as their number grows, those that try
// at once do not, and in the end no more are dropped.
func (a *attempts) begin(ctx context.Context) error {
	asked := time.Now()
	if err := a.limiter.acquire(ctx, a.waitOut); err != nil {
		return err
	}
	if a.shared != nil {
		if err := a.shared.acquire(ctx, func() {}); err != nil {
			a.limiter.release(false)
			return err
		}
	}
	if a.tries == 0 {
		a.first = time.Now()
	} else {
		a.queued += time.Since(asked)
	}
	a.tries++
	return nil
}

// free gives the turn back.
func (a *attempts) free(dropped bool) {
	a.limiter.release(dropped)
	switch {
	case a.shared != nil:
		a.shared.release(dropped)
	case dropped:
		a.shared = a.d.limiters.get(droppedHosts, a.d.handshakes())
	}
}

// droppedHosts is the route of the limiter that hosts share once they were dropped.
const droppedHosts = "\x00dropped"

// end takes the result of an attempt, waits if another one is worthwhile, and reports
// that. It returns the error otherwise.
func (a *attempts) end(ctx context.Context, err error) (again bool, _ error) {
	var drop *droppedError
	var broken *brokenError
	var name *net.DNSError
	dropped := errors.As(err, &drop)
	penalty := dropped && drop.isPenalty()
	a.free(dropped && !penalty)
	if !penalty {
		a.limiter.admitted()
	}
	switch {
	case err == nil:
		return false, nil
	case penalty:
		if a.limiter.refused(a.penaltyWait()) {
			return true, nil
		}
		return false, fmt.Errorf("%w: it punishes this machine's address for failures (PerSourcePenalties), still after %s", err, a.penaltyWait())
	case dropped:
		spent := time.Since(a.first) - a.queued
		if a.tries < minAttempts || spent < a.settings.ConnectTimeout {
			return a.pause(ctx, a.tries-1)
		}
		return false, fmt.Errorf("%w, %d times within %s: its sshd is overloaded (MaxStartups), or refuses this address", err, a.tries, spent.Round(time.Second/10))
	case errors.As(err, &broken), errors.As(err, &name) && name.Temporary() && !name.Timeout():
		if a.broken++; a.broken < brokenAttempts {
			return a.pause(ctx, a.broken)
		}
	}
	return false, err
}

func (a *attempts) pause(ctx context.Context, try int) (again bool, _ error) {
	err := pause(ctx, try)
	return err == nil, err
}
