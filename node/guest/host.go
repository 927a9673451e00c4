package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"sort"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	imagetree "github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/netctx"
)

// Host manages the guests of this machine.
type Host struct {
	Paths
	// Tree finds the tree of an image by its ID, as procctx.Root.Image has it, for guests of
	// a trust domain.
	Tree func(ctx context.Context, domain, id string) (string, error)
	// Images reads what is in images.
	Images Images
	// Rederive makes the tree of a guest's own (see Unify) anew over another image. Until
	// release is called it is not removed.
	Rederive func(ctx context.Context, domain, own, image string) (id string, release func(), err error)
	// Derive makes one of a tree, with files of a guest's in place of what it has there.
	Derive func(ctx context.Context, domain, from string, own []*imagetree.Entry, open func(*imagetree.Entry) (*os.File, error)) (id string, release func(), err error)
	// Own returns what is in the tree of a guest's own in place of its image.
	Own func(domain, own, image string) (*imagetree.Own, error)
	// WatchStarts makes Start watch the guest for a moment and fail if it ends.
	WatchStarts bool
	// Held are the guests that are held by the call whose hook this process was called
	// from: see hook.Held.
	Held []string
	// UseUnits has guests live in units of systemd where that runs the host.
	UseUnits bool

	index      index
	notesCache notesCache
	turns      turns
	notifiers  notifiers
	reloads    together // of systemd
}

// cgroup returns the cgroup of a guest, which need not exist, and the mount point of
// the hierarchy.
func (h *Host) cgroup(name string) (mount string, cg cgroup.Dir, err error) {
	mount, err = cgroup.Mount()
	return mount, cgroup.Guest(mount, name), err
}

func (h *Host) running(name string) (bool, error) {
	_, cg, err := h.cgroup(name)
	if errors.Is(err, cgroup.ErrNotMounted) {
		return false, nil // without it nothing can run
	}
	if err != nil {
		return false, err
	}
	return cg.Populated()
}

// Running reports whether a guest has processes.
func (h *Host) Running(name string) (bool, error) {
	if err := h.exists(name); err != nil {
		return false, err
	}
	return h.running(name)
}

// exists returns an error if the name is of a guest that is neither configured nor was
// started.
func (h *Host) exists(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := os.Lstat(h.config(name)); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err := h.readNotes(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNoGuest, name)
	}
	return err
}

// State returns a guest's configuration and its state. If the configuration cannot be
// read, Problem holds the reason; that is not an error.
func (h *Host) State(name string) (api.GuestState, error) {
	if err := h.exists(name); err != nil {
		return api.GuestState{}, err
	}
	c, cerr := h.Read(name)
	st := api.GuestState{Guest: c.Guest, Status: api.Stopped, Unread: c.Unread, Hooks: h.givenHooks(name)}
	if cerr != nil {
		st.Problem = cerr.Error()
	}
	on, err := h.running(name)
	if err != nil {
		return st, err
	}
	if !on {
		st.Ended = h.lastEnd(name)
		return st, nil
	}
	if errors.Is(cerr, ErrNoGuest) {
		st.Problem = fmt.Sprintf("it runs without a configuration: %s was removed or renamed (put it back, or end the guest with vserver %s delete)", h.config(name), name)
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
	s, err := h.readNotes(name)
	if err != nil {
		return st, nil // it has just been stopped
	}
	st.Started = s.startTime()
	if cerr != nil {
		st.Guest = s.startedAs(name) // what can be said of it
	} else if s.Runs != nil && !reflect.DeepEqual(*s.Runs, c.Guest) {
		st.Runs = s.Runs
	}
	return st, nil
}

// States returns every guest of the host, ordered by context: those that are
// configured, and those that run without a configuration.
func (h *Host) States(ctx context.Context) ([]api.GuestState, error) {
	names, err := h.allNames()
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
		if err != nil { // it concerns this guest alone: the others are listed
			st.Name, st.Problem = name, err.Error()
		}
		list = append(list, st)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Context < list[j].Context })
	return list, nil
}

// Life is a guest that runs, or ran until a moment ago.
type Life struct {
	Name    string
	Context int
	Started time.Time
	// Processes is the limit that it runs with; 0: none.
	Processes int64
}

// Lives returns the guests that have a cgroup: those that run, and those that ended
// a moment ago. It reads the kernel and the notes of starts, and no configuration.
func (h *Host) Lives(ctx context.Context) ([]Life, error) {
	names, err := h.cgroups()
	if err != nil {
		return nil, err
	}
	list := make([]Life, 0, len(names))
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, err := h.readNotes(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been stopped
		}
		if err != nil {
			return nil, err
		}
		life := Life{Name: name, Context: st.Context, Started: st.startTime()}
		if st.Runs != nil {
			life.Processes = st.Runs.Limits.Processes
		}
		list = append(list, life)
	}
	return list, nil
}

// Traffic returns what guests in the host's network sent and received, by name. Guests
// that have ended since and guests with a private network have no counters.
func (h *Host) Traffic(names []string) (map[string]*api.Traffic, error) {
	var counters netctx.Counters
	defer counters.Close()
	all := make(map[string]*api.Traffic, len(names))
	for _, name := range names {
		_, cg, err := h.cgroup(name)
		if err != nil {
			return nil, err
		}
		if t, err := counters.Traffic(string(cg)); err == nil {
			all[name] = &t
		}
	}
	return all, nil
}
