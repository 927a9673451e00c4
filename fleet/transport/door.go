package transport

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// door bounds how many handshakes are under way at one sshd. With its default
// MaxStartups 10:30:100 sshd drops every third connection beyond ten.
type doors struct {
	mu   sync.Mutex
	open map[string]chan struct{}
}

// enter waits for a place at an sshd's door; the caller gives it back.
func (d *doors) enter(ctx context.Context, key string, places int) (leave func(), err error) {
	d.mu.Lock()
	door := d.open[key]
	if door == nil {
		door = make(chan struct{}, places)
		if d.open == nil {
			d.open = make(map[string]chan struct{})
		}
		d.open[key] = door
	}
	d.mu.Unlock()
	select {
	case door <- struct{}{}:
		return func() { <-door }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Of connections that sshd dropped at its door.
const (
	maxTries   = 8
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
)

// pause waits before the next try: twice as long each time, and not at the
// moment when everybody else tries again.
func pause(ctx context.Context, try int) error {
	d := min(firstPause<<try, maxPause)
	d = d/2 + rand.N(d)
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
