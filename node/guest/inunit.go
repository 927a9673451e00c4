package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/procctx"
	"github.com/vsfleet/vsfleet/node/systemd"
)

// These are what a guest's unit of systemd runs: ExecStart, ExecStop and ExecStopPost.

// borrow takes the guest's lock, or borrows it from the vsnode that has asked systemd
// and waits. It looks again and again: who holds the lock may ask systemd meanwhile.
func (h *Host) borrow(ctx context.Context, name string) (lock *linux.Lock, from *lent, err error) {
	if err := CheckName(name); err != nil {
		return nil, nil, err
	}
	for {
		lock, err := h.tryLock(name)
		if err != nil || lock != nil {
			return lock, nil, err
		}
		if lock, note, err := linux.Borrow(h.lockFile(name), h.lentSocket(name)); err == nil {
			var l lent
			if err := json.Unmarshal(note, &l); err != nil {
				lock.Unlock()
				return nil, nil, err
			}
			return lock, &l, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("another vsnode works on it: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// inOwnUnit calls do with the guest in hand, in its unit.
func (h *Host) inOwnUnit(ctx context.Context, name, verb string, do func(g *Guest, from *lent) error) error {
	lock, from, err := h.borrow(ctx, name)
	if err == nil {
		err = h.inHand(name, lock, func(g *Guest) error {
			g.inUnit = true
			return do(g, from)
		})
	}
	if err != nil {
		return fmt.Errorf("%s guest %s: %w", verb, name, err)
	}
	return nil
}

// StartInUnit is a unit's ExecStart. The unit's main process is the guest's process 1
// when it returns. Nobody has to be told of the error if told is true.
func (h *Host) StartInUnit(ctx context.Context, name string) (told bool, err error) {
	var s *start
	var wait bool
	said := report{}
	err = h.inOwnUnit(ctx, name, "start", func(g *Guest, from *lent) (err error) {
		told, wait = from != nil, from == nil && h.hasDependents(name)
		if wait || from != nil && from.Ready {
			h.ExpectReady(name)
		}
		opt := Options{Warn: func(text string) { said.Warnings = append(said.Warnings, text) }}
		if told {
			opt.Rescue, opt.Sync, opt.unwatched = from.Rescue, from.Sync, from.Unwatched
		}
		if c, err := g.Config(); err == nil && c.Patience > 0 {
			if err := systemd.Notify(ctx, extend(c.Patience)); err != nil {
				return err
			}
		}
		s, err = g.startHere(ctx, opt)
		var ended *EndedError
		switch {
		case errors.As(err, &ended):
			said.End = &ended.End
		case err != nil:
			said.Error = err.Error()
		}
		if told {
			err = errors.Join(err, writeJSON(h.reportFile(name), said))
		}
		return err
	})
	if said.End != nil && said.End.Signal == "" && said.End.Status == 0 { // it has done what it was to do
		return told, systemd.Notify(ctx, "READY=1")
	}
	if err != nil {
		return told, err
	}
	main := "MAINPID=" + strconv.Itoa(s.process.PID)
	if !wait || !s.config.ownInit() || !bootsSystemd(s.spec.Root) { // nobody else says when it is ready
		if err := systemd.Notify(ctx, main, "READY=1"); err != nil {
			return told, err
		}
		_, err := h.awaitReady(ctx, name, s.process)
		return told, err
	}
	if err := systemd.Notify(ctx, main, "STATUS=waits for the guest's READY=1"); err != nil {
		return told, err
	}
	ready, err := h.awaitReady(ctx, name, s.process)
	status := "STATUS="
	if !ready {
		status += "its init did not say that it is ready"
	}
	return told, errors.Join(err, systemd.Notify(ctx, "READY=1", status))
}

// readyPatience is how long a guest's READY=1 is waited for.
const readyPatience = 5 * time.Minute

// awaitReady waits until the guest's init says that it is ready, for those who look at
// Ready in another process, and reports whether it did. It returns at once if nobody expects that, and when process 1
// ends: that is for systemd to see, which is its parent as soon as this process is gone.
func (h *Host) awaitReady(ctx context.Context, name string, p procctx.Process) (ready bool, err error) {
	if h.notifier(name) == nil {
		return false, nil
	}
	defer h.ForgetReady(name)
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(pidfd)
	last := Readiness{}
	for end := time.Now().Add(readyPatience); time.Now().Before(end) && !last.Ready; {
		if now := h.Ready(name); now != last {
			last = now
			if err := writeJSON(h.readyFile(name), now); err != nil {
				return false, err
			}
			continue
		}
		ended, err := linux.Poll(ctx, 50*time.Millisecond, unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN})
		if err != nil || ended {
			return false, err
		}
	}
	return last.Ready, nil
}

// readyInUnit returns what a guest's init has said to the vsnode that started it.
func (h *Host) readyInUnit(name string) (r Readiness) {
	b, err := linux.ReadFile(h.readyFile(name))
	if err != nil || json.Unmarshal(b, &r) != nil {
		return Readiness{}
	}
	return r
}

// StopInUnit is a unit's ExecStop: the guest ends in order. A guest that has ended by
// itself is left to EndedInUnit.
func (h *Host) StopInUnit(ctx context.Context, name string) error {
	return h.inOwnUnit(ctx, name, "stop", func(g *Guest, _ *lent) error {
		if on, err := g.running(); err != nil || !on {
			return err
		}
		e := g.ending()
		for _, step := range e.Kill {
			e.Wait += step.Wait
		}
		if err := systemd.Notify(ctx, extend(e.Wait)); err != nil {
			return err
		}
		_, err := g.Stop(ctx)
		return err
	})
}

// extend has systemd wait as long as the guest may take, and then for the rest.
func extend(d time.Duration) string {
	const rest = 5 * time.Minute
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (d + rest).Microseconds())
}

// EndedInUnit is a unit's ExecStopPost: it cleans up after a guest, and notes how it
// ended if nobody had it stopped. code and status are systemd's EXIT_CODE and
// EXIT_STATUS. It returns what the guest has said on its console.
func (h *Host) EndedInUnit(ctx context.Context, name, code, status string) (console []byte, err error) {
	err = h.inOwnUnit(ctx, name, "clean up after", func(g *Guest, _ *lent) error {
		if on, err := g.running(); err != nil || on {
			return err
		}
		n, nerr := g.notes()
		if nerr == nil && n.Done {
			end := h.lookAtEnd(name, g.cgroup)
			if said, err := h.output(name); err == nil {
				console = said.Bytes
			}
			switch number, err := strconv.Atoi(status); {
			case code == "exited" && err == nil:
				end.Seen, end.Status = true, number
			case status != "":
				end.Seen, end.Signal = true, "SIG"+strings.TrimPrefix(status, "SIG")
			}
			if err := h.writeEnd(name, end); err != nil {
				return err
			}
		}
		return g.release(ctx)
	})
	return console, err
}

// BootMark has systemd start all guests with a mark.
func (h *Host) BootMark(ctx context.Context, mark string) error {
	guests, err := h.unitGuests()
	if err != nil {
		return err
	}
	units := systemd.Host()
	if err := errors.Join(units.Write(ctx, guests...), units.WriteTarget(ctx, mark, guests)); err != nil {
		return err
	}
	m, err := systemd.Dial(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	known := []string{systemd.Target(mark), systemd.Slice}
	for _, g := range guests {
		known = append(known, systemd.Unit(g.Name))
	}
	if err := m.Refresh(ctx, h.reloads.do, known...); err != nil {
		return err
	}
	_, err = m.Queue(ctx, systemd.Start, systemd.Target(mark))
	return err
}

// StartAtBoot has the guests with a mark start when the host boots, where systemd runs
// it.
func StartAtBoot(ctx context.Context, mark string) error {
	if !systemd.Runs() {
		return nil
	}
	return systemd.Host().Enable(ctx, mark)
}

// NeverAtBoot removes all units, and what they run. No guest may run.
func (h *Host) NeverAtBoot(ctx context.Context) error {
	if !systemd.Runs() {
		return nil
	}
	names, err := h.Names()
	if err != nil {
		return err
	}
	if err := systemd.Host().Remove(ctx); err != nil {
		return err
	}
	m, err := systemd.Dial(ctx)
	if errors.Is(err, systemd.ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	defer m.Close()
	for _, name := range names {
		if err := m.ResetFailed(ctx, systemd.Unit(name)); err != nil {
			return err
		}
	}
	return m.RemoveSlice(ctx, systemd.Slice)
}

// unitGuests returns the units of all guests whose configuration can be read.
func (h *Host) unitGuests() ([]systemd.Guest, error) {
	names, err := h.Names()
	if err != nil {
		return nil, err
	}
	var guests []systemd.Guest
	for _, name := range names {
		if c, err := h.Read(name); err == nil {
			guests = append(guests, unitOf(c))
		}
	}
	return guests, nil
}

// hasDependents reports whether another guest depends on this one. If that cannot be
// told, nobody waits.
func (h *Host) hasDependents(name string) bool {
	all, err := h.Dependencies()
	return err == nil && len(all.Reverse()[name]) > 0
}
