package guest

import (
	"context"
	"sync"
	"time"
)

// turns is the lock of all configurations as the goroutines of one vsnode share
// it. Other vsnodes are kept out by the lock's file until the last has left.
// They claim one after the other, but the disk they wait for together: an apply
// makes hundreds of guests.
type turns struct {
	mu       sync.Mutex
	unlocked *sync.Cond // the file is
	users    int
	since    time.Time
	unlock   func() // of the file

	claiming sync.Mutex // held by who claims
}

// turn is how long newcomers may join those who have the lock: then it is the
// turn of other vsnodes.
const turn = 200 * time.Millisecond

// lockClaims takes the lock of all configurations. next lets the next goroutine
// of this vsnode claim something before unlock is called; what this one has
// claimed is in the index by then.
func (h *Host) lockClaims(ctx context.Context) (next, unlock func(), err error) {
	t := &h.turns
	if err := t.enter(ctx, h.Paths); err != nil {
		return nil, nil, err
	}
	t.claiming.Lock()
	next = sync.OnceFunc(t.claiming.Unlock)
	return next, func() { next(); t.leave() }, nil
}

func (t *turns) enter(ctx context.Context, p Paths) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unlocked == nil {
		t.unlocked = sync.NewCond(&t.mu)
	}
	for t.users > 0 && time.Since(t.since) > turn {
		t.unlocked.Wait()
	}
	if t.users == 0 {
		if t.unlock, err = p.lock(ctx, ""); err != nil {
			return err
		}
		t.since = time.Now()
	}
	t.users++
	return nil
}

func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users--; t.users == 0 {
		t.unlock()
		t.unlocked.Broadcast()
	}
}
