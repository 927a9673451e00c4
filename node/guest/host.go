package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	vctx "github.com/vsfleet/vsfleet/node/context"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
)

// Host is the guests of this machine.
type Host struct {
	Paths
	// Tree finds the tree of an image by its ID.
	Tree func(id string) (string, error)
	// Settle makes Start watch a guest for a moment, and fail if it ends.
	Settle bool
}

// state is what is remembered of a start until the stop: nothing that decides
// whether the guest runs, only what has to be taken back. It is gone after a
// reboot, like all that it speaks of.
type state struct {
	Started time.Time      `json:"started"`
	Dev     string         `json:"dev,omitempty"`
	Added   []netip.Prefix `json:"added,omitempty"` // addresses that vsnode put onto Dev
	Context int            `json:"context"`
	NAT     bool           `json:"nat,omitempty"`
	Done    bool           `json:"done,omitempty"` // the start came to its end
	// Runs is what the guest was started with, and has been given since.
	Runs *api.Guest `json:"runs,omitempty"`
}

func (h *Host) readState(name string) (state, error) {
	var s state
	b, err := os.ReadFile(h.state(name))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", h.state(name), err)
	}
	return s, nil
}

func (h *Host) writeState(name string, s state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	beside := h.state(name) + ".new"
	if err := os.WriteFile(beside, b, 0o600); err != nil {
		return err
	}
	return os.Rename(beside, h.state(name))
}

func (h *Host) cgroup(name string) (mount string, cg vctx.Cgroup, err error) {
	mount, err = vctx.CgroupMount()
	return mount, vctx.GuestCgroup(mount, name), err
}

func (h *Host) running(name string) (bool, error) {
	_, cg, err := h.cgroup(name)
	if errors.Is(err, vctx.ErrNoCgroup2) {
		return false, nil // nothing can run without
	}
	if err != nil {
		return false, err
	}
	return cg.Populated()
}

// Running says whether a guest has processes.
func (h *Host) Running(name string) (bool, error) {
	if err := h.exists(name); err != nil {
		return false, err
	}
	return h.running(name)
}

func (h *Host) exists(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := os.Lstat(h.config(name)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNoGuest, name)
	}
	return nil
}

// State is a guest's configuration and what it does. A configuration that
// cannot be read is told in Problem, not as an error.
func (h *Host) State(name string) (api.GuestState, error) {
	if err := h.exists(name); err != nil {
		return api.GuestState{}, err
	}
	c, err := h.Read(name)
	st := api.GuestState{Guest: c.Guest, Status: api.Stopped, Unknown: c.Unknown}
	if err != nil {
		st.Problem = err.Error()
	}
	on, err := h.running(name)
	if err != nil {
		return st, err
	}
	if !on {
		st.Ended = h.lastEnd(name)
		return st, nil
	}
	_, cg, err := h.cgroup(name)
	if err != nil {
		return st, err
	}
	pids, err := cg.PIDs()
	if err != nil {
		return st, err
	}
	st.Status, st.Processes = api.Running, len(pids)
	if st.InitPID, err = cg.Init(); err != nil {
		return st, err
	}
	if s, err := h.readState(name); err == nil {
		st.Started = s.Started
		if s.Runs != nil && !reflect.DeepEqual(*s.Runs, c.Guest) {
			st.Runs = s.Runs
		}
	}
	return st, nil
}

// States is every guest of the host, by context.
func (h *Host) States(ctx context.Context) ([]api.GuestState, error) {
	names, err := h.Names()
	if err != nil {
		return nil, err
	}
	list := make([]api.GuestState, 0, len(names))
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, err := h.State(name)
		if errors.Is(err, ErrNoGuest) {
			continue // deleted meanwhile
		}
		if err != nil { // of this guest alone: the others are to be told of
			st.Name, st.Problem = name, err.Error()
		}
		list = append(list, st)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Context < list[j].Context })
	return list, nil
}

// Traffic is what a guest in the host's network sent and received.
func (h *Host) Traffic(name string) (*api.Traffic, error) {
	_, cg, err := h.cgroup(name)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(string(cg))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	t, err := netctx.Traffic(dir)
	if err != nil {
		return nil, err
	}
	return &t, nil
}

// started are the running guests by name, as they were started. It goes by what
// was noted then, and reads the configuration, which somebody may be editing,
// only of a guest that an older vsnode started.
func (h *Host) started() (map[string]api.Guest, error) {
	paths, err := filepath.Glob(filepath.Join(h.RunDir, ".*.state"))
	if err != nil {
		return nil, err
	}
	guests := map[string]api.Guest{}
	for _, path := range paths {
		name := ofState(path)
		on, err := h.running(name)
		if err != nil {
			return nil, err
		}
		if !on {
			continue
		}
		st, err := h.readState(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // it has just been stopped
		case err != nil:
			return nil, err
		case st.Runs != nil:
			guests[name] = *st.Runs
			continue
		}
		c, err := h.Read(name)
		if err != nil {
			return nil, fmt.Errorf("guest %s, which runs: %w", name, err)
		}
		guests[name] = c.Guest
	}
	return guests, nil
}

// ofState is the guest whose state lies at path.
func ofState(path string) string {
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "."), ".state")
}

// natWant is what the host's packet filter has to hold: the running guests
// with private networks, and the addresses that belong to the others.
func (h *Host) natWant(context.Context) (nat.Want, error) {
	var want nat.Want
	guests, err := h.started()
	if err != nil {
		return want, err
	}
	for _, name := range slices.Sorted(maps.Keys(guests)) {
		g := guests[name]
		if g.Network.Mode == api.ModeNAT {
			want.Guests = append(want.Guests, nat.Guest{XID: g.Context, Name: name, Forwards: g.Network.Forwards, Metadata: g.Network.Metadata})
			continue
		}
		want.Reserved = append(want.Reserved, netctx.Loopback6(g.Context))
		if g.Network.Mode == api.ModeOwn {
			for _, a := range g.Network.Addresses {
				want.Reserved = append(want.Reserved, a.Addr())
			}
		}
	}
	return want, nil
}

// Sweep cleans up after guests that ended by themselves (their addresses,
// forwards and cgroups) and finishes starts whose vsnode was killed after the
// guest had begun to run. What holds its lock is left alone until it lets go. A
// packet filter that somebody flushed is made anew.
func (h *Host) Sweep(ctx context.Context) error {
	entries, err := filepath.Glob(filepath.Join(h.RunDir, ".*.state"))
	if err != nil {
		return err
	}
	var errs []error
	var filtered []nat.Guest
	for _, path := range entries {
		name := ofState(path)
		on, err := h.running(name)
		st, serr := h.readState(name)
		if err != nil || on && serr == nil && st.Done {
			errs = append(errs, err)
			if st.NAT && st.Runs != nil {
				filtered = append(filtered, nat.Guest{XID: st.Context, Name: name, Forwards: st.Runs.Network.Forwards, Metadata: st.Runs.Network.Metadata})
			}
			continue
		}
		errs = append(errs, h.locked(name, "clean up after", func() error {
			on, err := h.running(name)
			if err == nil && on {
				on, err = h.settled(ctx, name)
			}
			switch {
			case err != nil:
				return err
			case on:
				return h.finish(ctx, name)
			}
			return errors.Join(h.noteEnd(name), h.release(ctx, name))
		}))
	}
	if len(filtered) > 0 {
		// "nft flush ruleset", which Debian's nftables.service begins with.
		whole, err := nat.Holds(ctx, filtered)
		if err == nil && !whole {
			err = nat.Sync(ctx, h.natWant)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
