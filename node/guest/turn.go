package guest

import (
	"context"
	"sync"
	"time"
)

// turns shares the lock of all configurations among the goroutines of one vsnode. The
// lock file keeps other vsnodes out until the last goroutine has left. The goroutines
// claim one after another, but wait for the disk together: an apply makes hundreds of
// guests.
type turns struct {
	mu       sync.Mutex
	unlocked *sync.Cond // signals that the file's lock is free
	users    int
	since    time.Time
	unlock   func() // unlocks the file

	claiming sync.Mutex // held by the goroutine that claims
}

// turn is how long newcomers may join the present holders of the lock; after that it is
// the turn of other vsnodes.
const turn = 200 * time.Millisecond

// lockClaims takes the lock of all configurations. next lets the next goroutine of this
// vsnode claim something before unlock is called; by then the claims of this one are in
// the index.
func (h *Host) lockClaims(ctx context.Context) (next, unlock func(), err error) {
	t := &h.turns
	if err := t.enter(ctx, h.Paths); err != nil {
		return nil, nil, err
	}
	t.claiming.Lock()
	next = sync.OnceFunc(t.claiming.Unlock)
	return next, func() { next(); t.leave() }, nil
}

func (t *turns) enter(ctx context.Context, p Paths) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unlocked == nil {
		t.unlocked = sync.NewCond(&t.mu)
	}
	for t.users > 0 && time.Since(t.since) > turn {
		t.unlocked.Wait()
	}
	if t.users == 0 {
		lock, err := p.lock(ctx, "")
		if err != nil {
			return err
		}
		t.unlock = lock.Unlock
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
