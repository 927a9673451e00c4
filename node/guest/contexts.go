package guest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// Claim returns an error if the guest could not be created or configured, so that this
// is known before its image is built.
func (h *Host) Claim(ctx context.Context, g api.Guest) error {
	if err := CheckName(g.Name); err != nil {
		return err
	}
	if err := errors.Join(writable(h.ConfigDir), h.withClaims(ctx, &g, nil)); err != nil {
		return fmt.Errorf("guest %s: %w", g.Name, err)
	}
	return nil
}

// withClaims checks that g claims nothing another guest has, and then runs f, which may
// be nil. Meanwhile all configurations are locked to other vsnodes. If g has no
// context, withClaims chooses one.
func (h *Host) withClaims(ctx context.Context, g *api.Guest, f func() error) error {
	next, unlock, err := h.lockClaims(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := h.configured()
	if err != nil {
		return err
	}
	running, err := h.contexts()
	if err != nil {
		return err
	}
	if g.Context == 0 {
		if g.Context, err = freeContext(all, running); err != nil {
			return err
		}
	}
	if err := check(*g); err != nil {
		return err
	}
	if err := conflict(g, all...); err != nil {
		return err
	}
	if name, taken := running[g.Context]; taken && name != g.Name {
		on, err := h.running(name)
		if err == nil && on {
			err = fmt.Errorf("context %d is guest %s's, which runs with it whatever its configuration says: stop that one first (vserver %s stop)", g.Context, name, name)
		}
		if err != nil {
			return err
		}
	}
	if f == nil {
		return nil
	}
	if err := h.beforeClaim(); err != nil {
		return err
	}
	done := h.index.announce(*g)
	next() // f waits for the disk only
	err = f()
	done(err)
	return err
}

// giveContext assigns a context to a guest whose tree has none.
func (h *Host) giveContext(ctx context.Context, name string) (xid int, err error) {
	_, unlock, err := h.lockClaims(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	all, err := h.configured()
	if err != nil {
		return 0, err
	}
	running, err := h.contexts()
	if err != nil {
		return 0, err
	}
	if xid, err = freeContext(all, running); err != nil {
		return 0, err
	}
	if err := h.beforeClaim(); err != nil {
		return 0, err
	}
	h.index.invalidate()
	return xid, linux.ReplaceFile(filepath.Join(h.config(name), "context"), []byte(strconv.Itoa(xid)+"\n"), 0o644)
}

// freeContext returns the first unused automatic context.
func freeContext(all []*api.Guest, running map[int]string) (int, error) {
	used := map[int]bool{}
	for _, g := range all {
		used[g.Context] = true
	}
	for xid := api.FirstAutoContext; xid <= api.LastAutoContext; xid++ {
		if !used[xid] && running[xid] == "" {
			return xid, nil
		}
	}
	return 0, fmt.Errorf("no automatic context is free from %d to %d: give one", api.FirstAutoContext, api.LastAutoContext)
}
