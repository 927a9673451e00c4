package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/network"
)

// Drift returns what running guests (all, or those named) have lost since they were
// started: for example because somebody removed an address, flushed the packet filter,
// or wrote another limit. Repair restores it.
func (h *Host) Drift(ctx context.Context, names ...string) (map[string][]string, error) {
	on, err := h.runningNames()
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		on = slices.DeleteFunc(on, func(name string) bool { return !slices.Contains(names, name) })
	}
	return h.drift(ctx, on)
}

func (h *Host) drift(ctx context.Context, names []string) (map[string][]string, error) {
	all := map[string][]string{}
	byMode := map[network.Mode][]*network.Guest{}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, err := h.readNotes(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!st.Done || st.Runs == nil) {
			continue // being started or stopped: not in the state that a start leaves
		}
		if err != nil {
			return nil, err
		}
		_, cg, err := h.cgroup(name)
		if err != nil {
			return nil, err
		}
		byMode[st.mode()] = append(byMode[st.mode()], h.onNetwork(name, cg, &st))
		if err := h.ownDrift(name, cg, st, all); err != nil {
			return nil, err
		}
	}
	var host network.Survey
	for mode, guests := range byMode {
		gone, err := mode.Drift(ctx, &host, guests)
		if err != nil {
			return nil, err
		}
		for name, texts := range gone {
			all[name] = append(texts, all[name]...)
		}
	}
	maps.DeleteFunc(all, func(_ string, gone []string) bool { return len(gone) == 0 })
	return all, nil
}

// ownDrift checks what each guest has to itself.
func (h *Host) ownDrift(name string, cg cgroup.Dir, st notes, all map[string][]string) error {
	for _, l := range limits(st.Runs, st.Root) {
		now, lost, err := missing(cg, l)
		if errors.Is(err, fs.ErrNotExist) {
			continue // refused at the start, or limited in another way
		}
		if err != nil {
			return err
		}
		if lost {
			all[name] = append(all[name], fmt.Sprintf("%s is %s, not %s", l.file, cmp.Or(now, "empty"), strings.ReplaceAll(l.value, "\n", ", ")))
		}
	}
	if _, err := os.Lstat(h.runFile(name)); errors.Is(err, fs.ErrNotExist) {
		all[name] = append(all[name], h.runFile(name)+" is gone")
	}
	return nil
}

// limit is a file of the cgroup and its value as the kernel shows it.
type limit struct{ file, value string }

// limits returns the settings of a guest that are files of its cgroup. root has its own
// files.
func limits(g *api.Guest, root string) (list []limit) {
	for _, row := range setting.Table {
		file, value := row.CgroupFile(), strings.TrimSpace(row.Content(g))
		if file == "" || value == "" {
			continue
		}
		if bytes, err := strconv.ParseInt(value, 10, 64); err == nil && strings.HasPrefix(file, "memory.") {
			page := int64(os.Getpagesize()) // the kernel counts whole pages
			value = strconv.FormatInt(bytes/page*page, 10)
		}
		if lines, err := limitLines(file, value, root); err == nil { // a disk that is gone takes its limit along
			list = append(list, limit{file, strings.Join(lines, "\n")})
		}
	}
	return list
}

// Repair restores what Drift finds missing from a running guest, which keeps running
// meanwhile.
func (h *Host) Repair(ctx context.Context, name string) (api.Outcome, error) {
	return h.holdOutcome(ctx, name, "repair", func(g *Guest) (api.Outcome, error) { return g.Repair(ctx) })
}

// Repair is like Host.Repair; the guest's lock is already held.
func (g *Guest) Repair(ctx context.Context) (api.Outcome, error) {
	if err := g.host.exists(g.name); err != nil {
		return api.Unchanged, err
	}
	on, err := g.running()
	if err == nil && !on {
		err = ErrNotRunning
	}
	if err != nil {
		return api.Unchanged, err
	}
	if err := errors.Join(g.finish(ctx), g.postStart(ctx)); err != nil {
		return api.Unchanged, err
	}
	gone, err := g.repair(ctx)
	if len(gone) > 0 {
		return api.Changed, err
	}
	return api.Unchanged, err
}

// repair returns what it restored.
func (g *Guest) repair(ctx context.Context) (gone []string, err error) {
	before, err := g.drift(ctx)
	if err != nil || len(before) == 0 {
		return nil, err
	}
	if err := g.repairNetwork(ctx); err != nil {
		return nil, err
	}
	for _, l := range limits(g.noted.Runs, g.noted.Root) {
		if !slices.ContainsFunc(before, func(text string) bool { return strings.HasPrefix(text, l.file+" ") }) {
			continue
		}
		for line := range strings.SplitSeq(l.value, "\n") {
			if err := g.cgroup.Limit(g.mount, l.file, line); err != nil {
				return nil, err
			}
		}
	}
	if err := g.writeRunFile(); err != nil {
		return nil, err
	}
	after, err := g.drift(ctx)
	if err == nil && len(after) > 0 {
		err = fmt.Errorf("it could not be put back: %s", strings.Join(after, "; "))
	}
	return before, err
}

func (g *Guest) drift(ctx context.Context) ([]string, error) {
	if _, err := g.notes(); err != nil {
		return nil, err
	}
	all, err := g.host.drift(ctx, []string{g.name})
	return all[g.name], err
}
