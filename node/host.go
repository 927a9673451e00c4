package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/check"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/hook"
	"github.com/vsfleet/vsfleet/node/hostlog"
	"github.com/vsfleet/vsfleet/node/images"
	"github.com/vsfleet/vsfleet/node/quota"
	"github.com/vsfleet/vsfleet/node/stat"
)

// Host is this machine, as a controller sees it.
type Host struct {
	Version string // of vsnode
	Guests  *guest.Host
	Images  *images.Store

	lease        lease
	log          runLog
	guardCommand []string // calls Guard in a process of its own
	install      struct { // mayStartAtBoot
		once sync.Once
		err  error
	}
}

// Open returns this machine with its guests and images in their usual places.
func Open(version string) (*Host, error) {
	paths := guest.DefaultPaths()
	store, err := images.Open(filepath.Join(paths.DataDir, ".images"))
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &Host{
		Version:      version,
		Images:       store,
		guardCommand: []string{self, "guard"},
		log:          runLog{Log: hostlog.Log{Socket: "/dev/log", File: filepath.Join(paths.LogDir, ".vsnode.log")}}, // no guest's name
		Guests:       &guest.Host{Paths: paths, WatchStarts: true, UseUnits: true, Held: hook.Held(), Tree: store.Tree, Images: store, Derive: store.Derive, Rederive: store.Rederive, Own: store.Own},
	}
	store.Guests, store.OnPlainTree, store.UsedIn = sources{h.Guests}, h.Guests.OnPlainTree, h.usersIn
	return h, nil
}

// sources are the guests that images are cloned from.
type sources struct{ *guest.Host }

func (s sources) Snapshot(ctx context.Context, name, dir string, use func(root *os.File) error) error {
	err := s.Host.Snapshot(ctx, name, dir, use)
	if errors.Is(err, guest.ErrNoGuest) {
		err = builder.Missing(err)
	}
	return err
}

// State returns all that a plan needs to know. It first cleans up after guests that
// ended by themselves, so that the answer is true. What running guests have lost is
// reported as drift and left for Apply to restore.
func (h *Host) State(ctx context.Context) (api.State, error) {
	info, err := describe(h.Version)
	if err != nil {
		return api.State{}, err
	}
	if info.FreeBytes, err = h.Images.Free(); err != nil {
		return api.State{}, err
	}
	if err := quota.Able(h.Guests.DataDir); err != nil {
		info.NoQuota = err.Error()
	}
	st := api.State{Host: info}
	if err := h.Guests.Clean(ctx); err != nil {
		return st, err
	}
	if st.Guests, err = h.Guests.States(ctx); err != nil {
		return st, err
	}
	drift, err := h.Guests.Drift(ctx)
	if err != nil {
		return st, err
	}
	for i, g := range st.Guests {
		st.Guests[i].Drift = drift[g.Name]
	}
	st.Images, err = h.Images.List(ctx)
	return st, err
}

// Files compares files of guests with those that are wanted; files of no guest are the
// host's.
func (h *Host) Files(ctx context.Context, req api.FilesRequest) (api.FilesAnswer, error) {
	var own []api.GuestFilesState
	req.Guests = slices.Clone(req.Guests)
	req.Guests = slices.DeleteFunc(req.Guests, func(g api.GuestFiles) bool {
		if g.Guest == "" {
			own = append(own, compareFiles(g.Files, req.Contents))
		}
		return g.Guest == ""
	})
	answer, err := h.Guests.Files(ctx, req)
	answer.Guests = append(own, answer.Guests...)
	return answer, err
}

// Usage returns what running guests use of their limits.
func (h *Host) Usage(ctx context.Context) (u api.Usage, err error) {
	living, err := h.Guests.Lives(ctx)
	if err != nil {
		return u, err
	}
	mount, err := cgroup.Mount()
	if err != nil {
		if errors.Is(err, cgroup.ErrNotMounted) {
			err = nil // nothing runs
		}
		return u, err
	}
	for _, g := range living {
		dir := cgroup.Guest(mount, g.Name)
		pids, err := dir.PIDs()
		if err != nil {
			return u, err
		}
		if len(pids) == 0 {
			continue // it has just ended
		}
		disk, err := h.Guests.DiskCounters(g.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return u, fmt.Errorf("count guest %s: %w", g.Name, err)
		}
		u.Guests = append(u.Guests, api.GuestUsage{Name: g.Name, Context: g.Context, Counters: append(stat.Counters(string(dir), len(pids), g.Processes), disk...)})
	}
	order.Func(u.Guests, func(a, b api.GuestUsage) int { return a.Context - b.Context })
	return u, nil
}

// Volumes returns the volumes of the host.
func (h *Host) Volumes(ctx context.Context) (api.Volumes, error) {
	list, err := h.Guests.Volumes(ctx)
	return api.Volumes{Volumes: list}, err
}

// DeleteVolume removes a volume that no guest has.
func (h *Host) DeleteVolume(ctx context.Context, req api.DeleteVolume) (api.Deleted, error) {
	if by, held := h.leased(); held {
		h.log.begin(by)
	}
	err := h.Guests.DeleteVolume(ctx, req.Name)
	if errors.Is(err, guest.ErrNoVolume) {
		return api.Deleted{}, nil
	}
	return api.Deleted{Deleted: err == nil}, err
}

// Generations returns what is kept of guests for a revert.
func (h *Host) Generations(ctx context.Context) (api.Generations, error) {
	kept, err := h.Guests.Generations(ctx)
	return api.Generations{Kept: kept}, err
}

// Check reports whether this machine is able to run its guests.
func (h *Host) Check(ctx context.Context) (api.Check, error) { return Check(ctx, h.Guests) }

// Check reports whether this machine is able to run guests, and whether it can start
// those that it has.
func Check(ctx context.Context, guests *guest.Host) (api.Check, error) {
	c, err := check.Run(ctx)
	if err != nil {
		return c, err
	}
	row := api.CheckRow{Name: "configurations", For: "what the guests' directories say", Verdict: api.Yes}
	states, err := guests.States(ctx)
	var bad, odd []string
	for _, g := range states {
		refusing := api.Refusing(g.Unread)
		switch {
		case g.Problem != "":
			bad = append(bad, fmt.Sprintf("guest %s: %s", g.Name, g.Problem))
		case len(refusing) > 0:
			bad = append(bad, fmt.Sprintf("guest %s: %s", g.Name, strings.Join(api.Explain(refusing), "; ")))
		case len(g.Unread) > 0:
			odd = append(odd, g.Name)
		}
	}
	switch {
	case err != nil:
		row.Verdict, row.Detail = api.Unknown, err.Error()
	case bad != nil:
		row.Verdict, row.Detail = api.No, strings.Join(bad, "; ")
		row.Lost, row.Cure = "these guests do not start", "docs/configuration.md has a word for each file"
	case odd != nil:
		row.Detail = "has files without effect (vserver NAME status): " + strings.Join(odd, ", ")
	}
	if unread, err := guests.UnreadDefaults(); err == nil && len(unread) > 0 && row.Verdict == api.Yes {
		row.Detail = strings.TrimPrefix(row.Detail+"; "+strings.Join(api.Explain(unread), "; "), "; ")
	}
	c.Rows = append(c.Rows, row)
	return c, nil
}

// Stat returns the resource usage of the machine and its guests.
func (h *Host) Stat(ctx context.Context) (api.Stat, error) {
	mount, err := cgroup.Mount()
	if err != nil && !errors.Is(err, cgroup.ErrNotMounted) {
		return api.Stat{}, err
	}
	living, err := h.Guests.Lives(ctx)
	if err != nil {
		return api.Stat{}, err
	}
	running := make([]stat.Guest, len(living))
	for i, g := range living {
		cg := strings.TrimPrefix(string(cgroup.Guest(mount, g.Name)), mount+"/")
		running[i] = stat.Guest{XID: g.Context, Name: g.Name, Started: g.Started, Cgroup: cg}
	}
	s := api.Stat{Time: time.Now()}
	if s.Rows, err = stat.Read(ctx, mount, running); err != nil {
		return s, err
	}
	var names []string
	for _, row := range s.Rows {
		if row.Context != 0 {
			names = append(names, row.Name)
		}
	}
	traffic, err := h.Guests.Traffic(names)
	for i, row := range s.Rows {
		s.Rows[i].Traffic = traffic[row.Name]
	}
	return s, err
}

// RemoveImage removes an image that no guest is built from.
func (h *Host) RemoveImage(ctx context.Context, req api.RemoveImage) (api.RemovedImage, error) {
	img, err := h.Images.Get(ctx, req.Image)
	if errors.Is(err, images.ErrNotFound) {
		return api.RemovedImage{}, nil
	} else if err != nil {
		return api.RemovedImage{}, err
	}
	if by, held := h.leased(); held {
		h.log.begin(by)
	}
	if err := h.Images.Remove(ctx, img.ID, func(id string) ([]string, error) { return h.imageUsers(ctx, id) }); err != nil {
		return api.RemovedImage{}, err
	}
	return api.RemovedImage{ID: img.ID}, nil
}

// CollectImages removes images that nothing uses, and the contents of files that no image
// has.
func (h *Host) CollectImages(ctx context.Context, req api.Collect) (api.Collected, error) {
	if by, held := h.leased(); held && !req.Dry {
		h.log.begin(by)
	}
	return h.Images.Collect(ctx, req.All, req.Dry, func(id string) ([]string, error) {
		if slices.Contains(req.Keep, id) {
			return []string{"the controller"}, nil
		}
		return h.imageUsers(ctx, id)
	})
}

// Arrived returns what the host has of an image that did not come to its end.
func (h *Host) Arrived(_ context.Context, req api.ExportImage) (api.Arrived, error) {
	return h.Images.Arrived(req.ID, req.Base)
}

// CheckStore reads all that images consist of, and compares it with what it should be.
func (h *Host) CheckStore(ctx context.Context) (api.StoreCheck, error) {
	return h.Images.Check(ctx, func(id string) ([]string, error) { return h.imageUsers(ctx, id) })
}

// usersIn returns the guests of a trust domain that use an image.
func (h *Host) usersIn(ctx context.Context, domain, id string) ([]string, error) {
	return h.usersNow(ctx, id, &domain)
}

// usersNow returns the guests that use an image by their configuration, and running ones
// that do since their start; of one trust domain, or of all.
func (h *Host) usersNow(ctx context.Context, id string, domain *string) (users []string, err error) {
	states, err := h.Guests.States(ctx)
	if err != nil {
		return nil, err
	}
	for i := range states {
		g := &states[i]
		uses := func(g *api.Guest) bool { return g.Image == id && (domain == nil || g.TrustDomain == *domain) }
		switch {
		case g.Problem != "":
			return nil, fmt.Errorf("nobody can tell what guest %s uses: %s", g.Name, g.Problem)
		case uses(&g.Guest):
			users = append(users, g.Name)
		case g.Runs != nil && uses(g.Runs):
			users = append(users, g.Name+" (until its restart)")
		}
	}
	return users, nil
}

// imageUsers returns the guests that use an image: by their configuration, running
// ones since their start, and those whose configuration was set aside.
func (h *Host) imageUsers(ctx context.Context, id string) ([]string, error) {
	users, err := h.usersNow(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	kept, err := h.Guests.KeptImages()
	if err != nil {
		return nil, err
	}
	if user := kept[id]; user != "" {
		users = append(users, user)
	}
	bases, err := h.Guests.Bases()
	if err != nil {
		return nil, err
	}
	if user := bases[id]; user != "" {
		users = append(users, user)
	}
	own, err := h.Guests.Owns()
	if err != nil {
		return nil, err
	}
	if user := own[id]; user != "" {
		users = append(users, user)
	}
	aside, err := h.Guests.Aside()
	for name, image := range aside {
		if image == id {
			users = append(users, name+" (set aside by build --force; delete its configuration to be rid of it)")
		}
	}
	slices.Sort(users)
	return users, err
}
