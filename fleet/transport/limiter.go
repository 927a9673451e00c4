package transport

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// limiters bound the number of handshakes under way at each sshd. With its default
// MaxStartups 10:30:100 sshd drops every third connection beyond ten.
type limiters struct {
	mu      sync.Mutex
	byRoute map[string]*limiter
}

// limiter admits as many handshakes as its sshd accepts: each dropped connection
// takes one slot away, and a streak of connections that were not dropped gives
// one back. While sshd punishes this machine, it admits a few every now and then.
type limiter struct {
	slots chan struct{}

	mu       sync.Mutex
	withheld int // slots that stay occupied
	streak   int // connections since the last that was dropped

	punished time.Time // when sshd first refused this machine; zero if it did not lately
	closed   time.Time // nobody tries before
}

// recoveryStreak is the number of connections without a drop after which one withheld
// slot is given back.
const recoveryStreak = 32

// get returns the limiter of the sshd at the end of a route.
func (l *limiters) get(route string, slots int) *limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.byRoute[route]
	if one == nil {
		one = &limiter{slots: make(chan struct{}, slots)}
		if l.byRoute == nil {
			l.byRoute = make(map[string]*limiter)
		}
		l.byRoute[route] = one
	}
	return one
}

// acquire waits for a slot; the caller releases it. waiting is called before it waits
// for the end of a penalty.
func (l *limiter) acquire(ctx context.Context, waiting func()) error {
	for {
		for {
			closed := l.closedFor()
			if closed <= 0 {
				break
			}
			waiting()
			if err := sleep(ctx, closed); err != nil {
				return err
			}
		}
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if l.closedFor() <= 0 {
			return nil
		}
		<-l.slots // closed meanwhile
	}
}

func (l *limiter) closedFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.closed)
}

// release frees a slot. If sshd dropped the connection, the slot is withheld
// instead, unless it is the last: with fewer handshakes at once, all are done sooner.
func (l *limiter) release(dropped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if dropped {
		l.streak = 0
		if l.withheld < cap(l.slots)-1 {
			l.withheld++
			return
		}
	} else if l.streak++; l.streak >= recoveryStreak && l.withheld > 0 {
		l.streak, l.withheld = 0, l.withheld-1
		<-l.slots
	}
	<-l.slots
}

// maxPenaltyPause is the longest time between two attempts at an sshd that punishes this
// machine. sshd enforces a penalty for at least 15 seconds, and a connection that it
// refuses for one does not prolong it (srclimit.c of OpenSSH).
const maxPenaltyPause = 5 * time.Second

// refused notes that sshd punishes this machine, and keeps further attempts back for a
// while. It reports whether another one is worthwhile: until sshd has refused this
// machine for longer than wait.
func (l *limiter) refused(wait time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.punished.IsZero() {
		l.punished = now
	}
	if now.Sub(l.punished) > wait {
		return false
	}
	pause := min(maxPenaltyPause, wait/8)
	l.closed = now.Add(pause/2 + rand.N(pause))
	return true
}

// admitted notes that sshd does not punish this machine, or no longer.
func (l *limiter) admitted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.punished, l.closed = time.Time{}, time.Time{}
}

// A connection that sshd dropped before its version is tried again until
// ConnectTimeout has passed, and at least minAttempts times. One that broke later
// during the handshake, and a name that could not be looked up at the moment,
// are tried again brokenAttempts times in all.
const (
	minAttempts    = 4
	brokenAttempts = 3
	firstPause     = 100 * time.Millisecond
	maxPause       = 2 * time.Second
)

// pause waits before the next attempt: twice as long each time, with a random
// part, so that the hosts do not all try again at the same moment.
func pause(ctx context.Context, try int) error {
	d := min(firstPause<<min(try, 10), maxPause)
	return sleep(ctx, d/2+rand.N(d))
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
