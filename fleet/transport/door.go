package transport

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// doors bound how many handshakes are under way at each sshd. With its default
// MaxStartups 10:30:100 sshd drops every third connection beyond ten.
type doors struct {
	mu   sync.Mutex
	open map[string]*door
}

// door admits as many handshakes as its sshd turned out to bear: one place
// less for each connection that was dropped, one more for a row of those that
// were not.
type door struct {
	taken chan struct{}

	mu     sync.Mutex
	closed int // places that are left taken
	row    int // connections in a row that were not dropped
}

// longRow of connections that were not dropped opens a closed place again.
const longRow = 32

// at is the door of an sshd.
func (d *doors) at(key string, places int) *door {
	d.mu.Lock()
	defer d.mu.Unlock()
	one := d.open[key]
	if one == nil {
		one = &door{taken: make(chan struct{}, places)}
		if d.open == nil {
			d.open = make(map[string]*door)
		}
		d.open[key] = one
	}
	return one
}

// enter waits for a place at the door; the caller leaves it.
func (d *door) enter(ctx context.Context) error {
	select {
	case d.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave gives a place back, unless sshd dropped the connection and there are
// others. Where everybody comes to the same door, fewer get through sooner.
func (d *door) leave(dropped bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dropped {
		d.row = 0
		if d.closed < cap(d.taken)-1 {
			d.closed++
			return
		}
	} else if d.row++; d.row >= longRow && d.closed > 0 {
		d.row, d.closed = 0, d.closed-1
		<-d.taken
	}
	<-d.taken
}

// Of connections that sshd dropped at its door: they are tried again for as
// long as a connection may take, and this often even if that is short.
const (
	minTries   = 4
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
)

// pause waits before the next try: twice as long each time, and not at the
// moment when everybody else tries again.
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
