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
// one back.
type limiter struct {
	slots chan struct{}

	mu       sync.Mutex
	withheld int // slots that stay occupied
	streak   int // connections since the last that was dropped
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

// acquire waits for a slot; the caller releases it.
func (l *limiter) acquire(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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

// A connection that sshd dropped before its version is tried again until
// ConnectTimeout has passed, and at least minAttempts times.
const (
	minAttempts = 4
	firstPause  = 100 * time.Millisecond
	maxPause    = 2 * time.Second
)

// pause waits before the next attempt: twice as long each time, with a random
// part, so that the hosts do not all try again at the same moment.
func pause(ctx context.Context, try int) error {
	d := min(firstPause<<min(try, 10), maxPause)
	d = d/2 + rand.N(d)
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
