package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// lease is this process's hold on the host's lease. The lock is the kernel's: it ends
// with the process, and so with the controller's session, and a controller that is
// killed leaves nothing behind.
type lease struct {
	mu   sync.Mutex
	held *linux.Lock // nil: not ours
	by   api.Holder  // the run, if it is ours
}

// leaseName cannot be the file of a guest: guests' names do not begin with a dot.
const leaseName = "..lease"

// leasePoll is the interval between attempts to take a lease that somebody else
// holds.
const leasePoll = 50 * time.Millisecond

// maxHolder limits the bytes that are read of a lease's file.
const maxHolder = 4096

// Lease takes the host's lease for this session. If another session holds it,
// Lease waits as long as the request says, or until yet another session holds it, so
// that the controller can decide again.
func (h *Host) Lease(ctx context.Context, req api.Lease) (api.LeaseAnswer, error) {
	deadline := time.Now().Add(req.Wait)
	var first api.Holder
	for {
		held, by, err := h.tryLease(req.Holder)
		if err != nil {
			return api.LeaseAnswer{}, fmt.Errorf("take the lease of the host: %w", err)
		}
		if first.Run == "" {
			first = by
		}
		if held {
			return h.leaseTaken(ctx)
		}
		if by.Run != first.Run || !time.Now().Before(deadline) {
			return api.LeaseAnswer{By: by}, nil
		}
		select {
		case <-ctx.Done():
			return api.LeaseAnswer{}, context.Cause(ctx)
		case <-time.After(leasePoll):
		}
	}
}

// leaseTaken first puts back what nobody has confirmed of an earlier run: that run has
// ended, as it no longer holds the lease.
func (h *Host) leaseTaken(ctx context.Context) (api.LeaseAnswer, error) {
	by, _ := h.leased()
	answer := api.LeaseAnswer{Held: true, By: by}
	var err error
	if answer.Reverted, err = h.settleAny(ctx); err != nil {
		err = errors.Join(fmt.Errorf("put back what nobody confirmed of an earlier run: %w", err), h.Release(ctx))
	}
	return answer, err
}

// tryLease takes the lease, or returns its holder.
func (h *Host) tryLease(who api.Holder) (held bool, by api.Holder, err error) {
	h.lease.mu.Lock()
	defer h.lease.mu.Unlock()
	if h.lease.held != nil {
		return true, who, nil
	}
	if err := os.MkdirAll(h.Guests.RunDir, 0o755); err != nil {
		return false, by, err
	}
	path := filepath.Join(h.Guests.RunDir, leaseName)
	l, err := linux.TryLockFile(path)
	if errors.Is(err, linux.ErrLocked) {
		by, err = readHolder(path)
		return false, by, err
	}
	if err != nil {
		return false, by, err
	}
	lock, err := h.readLock()
	if err != nil || lock != nil {
		l.Unlock()
		if lock != nil {
			by = api.Holder{Run: lock.Run, Owner: lock.Owner, Reason: lock.Reason, Since: lock.Since, Until: lock.Until}
		}
		return false, by, err
	}
	who.Since, who.Node = time.Now().Truncate(time.Second), os.Getpid()
	if err := writeHolder(l.File, who); err != nil {
		l.Unlock()
		return false, by, fmt.Errorf("%s: %w", path, err)
	}
	h.lease.held, h.lease.by = l, who
	return true, who, nil
}

// Release gives the lease back before the session ends.
func (h *Host) Release(context.Context) error {
	h.lease.mu.Lock()
	defer h.lease.mu.Unlock()
	if h.lease.held == nil {
		return nil
	}
	h.log.end()
	h.lease.held.Unlock()
	h.lease.held = nil
	return nil
}

// leased returns the run for which this session holds the lease, if it does.
func (h *Host) leased() (by api.Holder, held bool) {
	h.lease.mu.Lock()
	defer h.lease.mu.Unlock()
	return h.lease.by, h.lease.held != nil
}

// readHolder returns the holder of a lease. If the holder took it a moment ago and
// has not written its name yet, by is zero.
func readHolder(path string) (by api.Holder, err error) {
	f, err := os.Open(path)
	if err != nil {
		return by, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHolder))
	if err == nil && json.Unmarshal(b, &by) != nil {
		by = api.Holder{}
	}
	return by, err
}

func writeHolder(f *os.File, who api.Holder) error {
	b, err := json.Marshal(who)
	if err != nil {
		return err
	}
	// In place: a new file renamed over this one would be a different lock. The new
	// text is written at once before the rest of the old one is cut off, so that a
	// reader never finds an empty file.
	b = append(b, '\n')
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(b)))
}
