package guest

import (
	"sync"
	"time"
)

// turns is the lock of all configurations as the goroutines of one vsnode share
// it. Other vsnodes are kept out by the lock's file until the last has left.
// They claim one after the other, but the disk they wait for together: an apply
// makes hundreds of guests.
type turns struct {
	mu     sync.Mutex
	left   *sync.Cond // told when the file is unlocked
	inside int
	since  time.Time
	unlock func() // of the file

	one sync.Mutex // who claims
}

// turn is how long newcomers may join those who have the lock: then it is the
// turn of other vsnodes.
const turn = 200 * time.Millisecond

// lockClaims takes the lock of all configurations. next lets the next goroutine
// of this vsnode claim something before unlock is called; what this one has
// claimed is in the index by then.
func (h *Host) lockClaims() (next, unlock func(), err error) {
	t := &h.turns
	if err := t.enter(h.Paths); err != nil {
		return nil, nil, err
	}
	t.one.Lock()
	next = sync.OnceFunc(t.one.Unlock)
	return next, func() { next(); t.leave() }, nil
}

func (t *turns) enter(p Paths) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left == nil {
		t.left = sync.NewCond(&t.mu)
	}
	for t.inside > 0 && time.Since(t.since) > turn {
		t.left.Wait()
	}
	if t.inside == 0 {
		if t.unlock, err = p.lock(""); err != nil {
			return err
		}
		t.since = time.Now()
	}
	t.inside++
	return nil
}

func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inside--; t.inside == 0 {
		t.unlock()
		t.left.Broadcast()
	}
}
