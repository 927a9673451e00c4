package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/generation"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/timer"
)

// A guard puts guests back after steps that may have cut the controller off. It is a
// file, written before the first step, and a timer that calls [Host.Guard]. The
// session that takes the steps holds the guard's lock meanwhile. Afterwards the
// controller has a while to confirm that it still reaches the host; the file is
// removed by that. If the time is over, or the session died within the steps, whoever
// comes first puts the guests back: the timer, a late confirmation, or the next run
// that takes the lease. The file then says so, to the first controller that comes.
type guard struct {
	api.Reverted               // Guests to put back, and Time, if that has been done
	Within       time.Duration `json:"within"`
	Until        time.Duration `json:"until,omitempty"` // since the host's boot; 0: the steps are under way
	Boot         string        `json:"boot"`            // of Until
}

// done reports whether the guests have been put back.
func (g guard) done() bool { return !g.Time.IsZero() }

// left returns how long the controller may still take to confirm.
func (g guard) left() time.Duration {
	if g.Until == 0 || g.Boot != bootID() {
		return 0 // the session died, or the host was rebooted
	}
	return g.Until - linux.SinceBoot()
}

// timer returns the timer that calls Guard, by the command `vsnode guard`.
func (h *Host) timer(g guard) timer.Timer {
	return timer.Timer{Unit: "vsnode-guard-" + g.Run, After: g.Within, Argv: h.guardCommand}
}

func (h *Host) guardFile() string { return filepath.Join(h.Guests.DataDir, ".guard") }

// lockGuard takes the lock of the guard, and returns the guard, if there is one. The
// holder of the lock never waits for a controller.
func (h *Host) lockGuard(ctx context.Context) (g *guard, unlock func(), err error) {
	if err := os.MkdirAll(h.Guests.RunDir, 0o755); err != nil {
		return nil, nil, err
	}
	l, err := linux.LockFile(ctx, filepath.Join(h.Guests.RunDir, "..guard"))
	if err != nil {
		return nil, nil, err
	}
	if g, err = h.readGuard(); err != nil {
		l.Unlock()
		return nil, nil, err
	}
	return g, l.Unlock, nil
}

func (h *Host) readGuard() (*guard, error) {
	b, err := os.ReadFile(h.guardFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var g guard
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", h.guardFile(), err)
	}
	return &g, nil
}

func (h *Host) writeGuard(g guard) error {
	b, err := json.Marshal(g)
	if err != nil {
		return err
	}
	return linux.ReplaceFileSync(h.guardFile(), 0o600, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// arm guards the steps of a request, until disarm is called; then the controller's time
// to confirm begins. Of a run that has a guard, all further steps are guarded.
func (h *Host) arm(ctx context.Context, run string, by api.Holder, req *api.Guard) (disarm func() error, err error) {
	if now, err := h.readGuard(); err == nil && now == nil && req == nil {
		return func() error { return nil }, nil
	}
	now, unlock, err := h.lockGuard(ctx)
	if err != nil {
		return nil, err
	}
	g := guard{Reverted: api.Reverted{Run: run, Owner: by.Owner, Reason: by.Reason}, Boot: bootID()}
	switch {
	case now == nil:
	case now.Run != run:
		err = fmt.Errorf("the steps of run %s are not confirmed", now.Run) // the lease has settled it
	case now.done():
		err = errors.New("this run's changes were not confirmed in time, and have been put back: run the same again")
	default:
		g.Guests, g.Within = now.Guests, now.Within
	}
	if req != nil {
		g.Within = req.Within
		for _, name := range req.Guests {
			if !slices.Contains(g.Guests, name) {
				g.Guests = append(g.Guests, name)
			}
		}
	}
	if err == nil {
		err = os.MkdirAll(h.Guests.DataDir, 0o700)
	}
	if err == nil {
		err = h.writeGuard(g)
	}
	if err == nil && now == nil {
		if err = h.timer(g).Start(ctx); err != nil {
			err = errors.Join(err, os.Remove(h.guardFile()))
		}
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return func() error {
		defer unlock()
		g.Until = linux.SinceBoot() + g.Within
		return h.writeGuard(g)
	}, nil
}

// Confirm confirms the steps of a run. It must be called over a connection that was
// made after them.
func (h *Host) Confirm(ctx context.Context, req api.Confirm) (api.Confirmed, error) {
	g, unlock, err := h.lockGuard(ctx)
	if err != nil {
		return api.Confirmed{}, err
	}
	defer unlock()
	if g == nil || g.Run != req.Run {
		return api.Confirmed{}, fmt.Errorf("run %s has nothing to be confirmed", req.Run)
	}
	if !g.done() && g.left() > 0 {
		return api.Confirmed{}, h.endGuard(ctx, *g)
	}
	reverted, err := h.settle(ctx, *g)
	return api.Confirmed{Reverted: reverted}, err
}

// settle puts the guests of a guard back, unless that has been done, and ends it.
func (h *Host) settle(ctx context.Context, g guard) (*api.Reverted, error) {
	if !g.done() {
		if err := h.putBack(ctx, &g); err != nil {
			return nil, err
		}
	}
	return &g.Reverted, h.endGuard(ctx, g)
}

// settleAny settles the guard of an earlier run, if there is one.
func (h *Host) settleAny(ctx context.Context) (*api.Reverted, error) {
	if g, err := h.readGuard(); err != nil || g == nil {
		return nil, err
	}
	g, unlock, err := h.lockGuard(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if g == nil {
		return nil, nil
	}
	return h.settle(ctx, *g)
}

func (h *Host) endGuard(ctx context.Context, g guard) error {
	err := os.Remove(h.guardFile())
	if !g.done() {
		_ = h.timer(g).Stop(ctx) // it would find nothing to do
	}
	return err
}

// putBack reverts the guests of a guard, and notes that in its file.
func (h *Host) putBack(ctx context.Context, g *guard) error {
	h.log.Write(program, fmt.Sprintf("run %s of %s (%s) was not confirmed: putting back %s", g.Run, g.Owner, g.Reason, strings.Join(g.Guests, ", ")))
	var errs []error
	for _, name := range slices.Backward(g.Guests) {
		if _, err := h.Guests.Revert(ctx, name, g.Run, guest.Options{}); err != nil && !errors.Is(err, generation.ErrNone) {
			errs = append(errs, err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // whoever comes next goes on
	}
	if err := errors.Join(errs...); err != nil {
		g.Error = err.Error()
	}
	g.Time = time.Now().Truncate(time.Second)
	return h.writeGuard(*g)
}

// Guard waits until the guard of this host has ended, and puts the guests back if that
// is not within its time.
func (h *Host) Guard(ctx context.Context) error {
	for {
		g, unlock, err := h.lockGuard(ctx)
		if err != nil {
			return err
		}
		if g == nil || g.done() {
			unlock()
			return nil
		}
		left := g.left()
		if left <= 0 {
			defer unlock()
			return h.putBack(ctx, g)
		}
		unlock()
		if err := h.waitForGuard(ctx, left); err != nil {
			return err
		}
	}
}

// waitForGuard waits until the guard's file is removed, but no longer than d.
func (h *Host) waitForGuard(ctx context.Context, d time.Duration) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("inotify_init: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, h.guardFile(), unix.IN_ATTRIB|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("watch %s: %w", h.guardFile(), err)
	}
	_, err = linux.Poll(ctx, d, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	return err
}
