package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/network"
)

// Guest is a guest whose lock is held. The package comment describes what that
// guarantees.
type Guest struct {
	host   *Host
	name   string
	lock   *linux.Lock
	mount  string     // of cgroup v2; empty: not mounted, and no guest can run
	cgroup cgroup.Dir // its cgroup, which need not exist
	inUnit bool       // this process was begun by the guest's unit: unit.go

	configRead *Config // nil: not read yet
	configErr  error
	notesRead  bool
	noted      *notes // in memory as on disk, or ahead of it if writing failed
	notesErr   error
}

// Hold locks the named guest, which need not exist, and calls do with it; the lock is
// released when do returns. If another process or goroutine holds the guest, Hold waits
// until ctx ends. Errors name the operation (verb) and the guest.
func (h *Host) Hold(ctx context.Context, name, verb string, do func(*Guest) error) error {
	err := errors.Join(CheckName(name), h.refuseHeld(name))
	if err == nil {
		var lock *linux.Lock
		if lock, err = h.lock(ctx, name); err == nil {
			err = h.inHand(name, lock, do)
		}
	}
	if err != nil {
		return fmt.Errorf("%s guest %s: %w", verb, name, err)
	}
	return nil
}

// tryHold is like Hold but does not wait: it reports false if somebody else holds the
// guest.
func (h *Host) tryHold(name string, do func(*Guest) error) (bool, error) {
	lock, err := h.tryLock(name)
	if err != nil || lock == nil {
		return false, err
	}
	return true, h.inHand(name, lock, do)
}

func (h *Host) inHand(name string, lock *linux.Lock, do func(*Guest) error) error {
	defer lock.Unlock()
	g := &Guest{host: h, name: name, lock: lock}
	var err error
	g.mount, g.cgroup, err = h.cgroup(name)
	if errors.Is(err, cgroup.ErrNotMounted) {
		g.mount, err = "", nil
	}
	if err == nil {
		err = do(g)
	}
	// The lock of a guest that does not exist, or no longer does, is removed as well.
	if errors.Is(h.exists(name), ErrNoGuest) {
		err = errors.Join(err, remove(h.lockFile(name)))
	}
	return err
}

// holdOutcome is Hold for an operation that reports whether it changed the guest.
func (h *Host) holdOutcome(ctx context.Context, name, verb string, do func(*Guest) (api.Outcome, error)) (outcome api.Outcome, err error) {
	outcome = api.Unchanged
	err = h.Hold(ctx, name, verb, func(g *Guest) (err error) {
		outcome, err = do(g)
		return err
	})
	return outcome, err
}

// Config returns the guest's configuration as it was when first asked for.
func (g *Guest) Config() (Config, error) {
	if g.configRead == nil {
		c, err := g.host.Read(g.name)
		g.configRead, g.configErr = &c, err
	}
	return *g.configRead, g.configErr
}

// writeConfig replaces the guest's configuration with to.
func (g *Guest) writeConfig(to api.Guest, root string) error {
	g.configRead = nil
	return g.host.write(to, root)
}

// knownConfig returns the configuration or, if that cannot be read, what is known from
// the guest's start, so that the guest can be stopped and deleted all the same.
func (g *Guest) knownConfig() Config {
	c, err := g.Config()
	if err == nil {
		return c
	}
	known := Config{Guest: api.Guest{Name: g.name}, Root: c.Root}
	if n, err := g.notes(); err == nil {
		known.Guest, known.Root = n.startedAs(g.name), cmp.Or(c.Root, n.Root)
	}
	return known
}

// running reports whether the guest has processes. The kernel is asked each time:
// a guest may end while it is held.
func (g *Guest) running() (bool, error) {
	if g.mount == "" {
		return false, nil
	}
	return g.cgroup.Populated()
}

// up reports whether the guest runs. The process of a start that was killed does
// not count: unless it is past the point of no return, it notices and ends.
func (g *Guest) up(ctx context.Context) (bool, error) {
	if on, err := g.running(); err != nil || !on {
		return false, err
	}
	if n, err := g.notes(); err == nil && n.Done {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return g.cgroup.WaitExec(ctx)
}

// notes returns the notes of the guest's start, or fs.ErrNotExist if it was not
// started.
func (g *Guest) notes() (*notes, error) {
	if !g.notesRead {
		n, err := g.host.readNotes(g.name)
		g.notesRead, g.notesErr = true, err
		if err == nil {
			g.noted = &n
		}
	}
	return g.noted, g.notesErr
}

// writeNotes replaces the notes.
func (g *Guest) writeNotes(n notes) error {
	if err := g.host.writeNotes(g.name, g.cgroup, n); err != nil {
		return err
	}
	n.recovered = false
	g.notesRead, g.noted, g.notesErr = true, &n, nil
	return nil
}

// saveNotes writes the notes held in memory.
func (g *Guest) saveNotes() error { return g.writeNotes(*g.noted) }

// forgetNotes is the last step of a release: as long as there are notes, there is
// something to release.
func (g *Guest) forgetNotes(context.Context) error {
	if err := remove(g.host.notesFile(g.name)); err != nil {
		return err
	}
	g.notesRead, g.noted, g.notesErr = true, nil, fmt.Errorf("guest %s was not started: %w", g.name, fs.ErrNotExist)
	return nil
}

// onNetwork returns the guest, which has notes, in the form its network mode takes.
// What the mode notes is on disk before the mode acts on it.
func (g *Guest) onNetwork() *network.Guest {
	on := g.host.onNetwork(g.name, g.cgroup, g.noted)
	on.Save = g.saveNotes
	return on
}
