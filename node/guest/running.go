package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// cgroups returns the names of guests that have a cgroup: those that run, and those
// whose start, stop or end left one behind.
func (h *Host) cgroups() ([]string, error) {
	mount, err := cgroup.Mount()
	if errors.Is(err, cgroup.ErrNotMounted) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := cgroup.Guests(mount)
	return slices.DeleteFunc(names, func(name string) bool { return CheckName(name) != nil }), err
}

// runningNames returns the names of the running guests. It asks the kernel alone,
// whatever happened to a guest's configuration and to the notes of its start.
func (h *Host) runningNames() ([]string, error) {
	names, err := h.cgroups()
	if err != nil {
		return nil, err
	}
	var on []string
	for _, name := range names {
		runs, err := h.running(name)
		if err != nil {
			return nil, err
		}
		if runs {
			on = append(on, name)
		}
	}
	return on, nil
}

// allNames returns the names of the guests that are configured or run.
func (h *Host) allNames() ([]string, error) {
	names, err := h.Names()
	if err != nil {
		return nil, err
	}
	on, err := h.runningNames()
	if err != nil {
		return nil, err
	}
	names = append(names, on...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// contexts returns the names of guests that have a cgroup, by context.
func (h *Host) contexts() (map[int]string, error) {
	mount, err := cgroup.Mount()
	if errors.Is(err, cgroup.ErrNotMounted) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	owners, err := cgroup.Owners(mount)
	of := make(map[int]string, len(owners))
	for name, owner := range owners {
		if CheckName(name) == nil {
			of[procctx.ContextOf(owner)] = name
		}
	}
	return of, err
}

// FindName returns the name of the guest with the given name or, if it runs, the given
// context.
func (h *Host) FindName(name string, xid int) (string, error) {
	if _, err := os.Lstat(h.config(name)); err == nil {
		return name, nil
	}
	of, err := h.contexts()
	if found := of[xid]; found != "" {
		return found, err
	}
	return name, err
}

// startedGuests returns the running guests by name, with the settings they were started
// with and live changes since.
func (h *Host) startedGuests() (map[string]api.Guest, error) {
	names, err := h.runningNames()
	if err != nil {
		return nil, err
	}
	guests := map[string]api.Guest{}
	for _, name := range names {
		st, err := h.readNotes(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been stopped
		}
		if err != nil {
			return nil, fmt.Errorf("guest %s, which runs: %w", name, err)
		}
		guests[name] = st.startedAs(name)
	}
	return guests, nil
}

// OnPlainTree reports whether a running guest may have the plain tree of an image below it,
// also while it starts.
func (h *Host) OnPlainTree(image string) (bool, error) {
	names, err := h.runningNames()
	if err != nil {
		return false, err
	}
	noted, err := h.notedNames()
	if err != nil {
		return false, err
	}
	for _, name := range append(names, noted...) {
		st, err := h.readNotes(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been stopped
		}
		if err != nil {
			return false, fmt.Errorf("guest %s, which runs: %w", name, err)
		}
		if st.Runs == nil || st.Runs.Image == image && !st.Described {
			return true, nil
		}
	}
	return false, nil
}

// startedAs returns the guest with the settings it was started with and live changes
// since. Older vsnodes noted less, but at least the context.
func (s notes) startedAs(name string) api.Guest {
	if s.Runs != nil {
		return *s.Runs
	}
	g := api.Guest{Name: name, Context: s.Context}
	if s.NAT {
		g.Network.Mode = api.ModeNAT
	}
	return g
}
