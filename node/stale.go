package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/internal/packages"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/guest"
)

// Stale returns what guests use that newer versions have replaced. It looks from outside:
// at the maps of their processes and at their package databases; nothing runs in a guest.
func (h *Host) Stale(ctx context.Context, req api.StaleRequest) (answer api.StaleAnswer, err error) {
	if err := h.Guests.Clean(ctx); err != nil {
		return answer, err
	}
	states, err := h.Guests.States(ctx)
	if err != nil {
		return answer, err
	}
	bases := map[string]*packages.Installed{} // by image
	base := func(id string) (*packages.Installed, error) {
		if bases[id] == nil {
			installed, err := h.imagePackages(id)
			if bases[id] = &installed; err != nil {
				return bases[id], err
			}
		}
		return bases[id], nil
	}
	trees := guest.Trees{}
	for _, g := range states {
		if err := ctx.Err(); err != nil {
			return answer, err
		}
		stale := api.StaleGuest{Name: g.Name, Running: g.Status == api.Running, Image: g.Image}
		if g.Runs != nil && g.Runs.Image != g.Image {
			stale.Runs = g.Runs.Image
		}
		var problems []error
		if id := req.Images[g.Name]; req.Shadows {
			if id == "" {
				continue
			}
			problems = append(problems, h.shadows(ctx, &stale, id, trees, base))
		} else if stale.Running {
			problems = append(problems, staleProcesses(&stale))
		}
		if id := req.Images[g.Name]; id != "" && !req.Shadows {
			installed, err := base(id)
			problems = append(problems, err, h.stalePackages(ctx, &stale, installed))
		}
		if err := errors.Join(problems...); err != nil {
			stale.Problem = err.Error()
		}
		answer.Guests = append(answer.Guests, stale)
	}
	order.Func(answer.Guests, func(a, b api.StaleGuest) int { return strings.Compare(a.Name, b.Name) })
	return answer, nil
}

// staleProcesses finds the processes of a running guest that use replaced files.
func staleProcesses(g *api.StaleGuest) error {
	mount, err := cgroup.Mount()
	if err != nil {
		return err
	}
	pids, err := cgroup.Guest(mount, g.Name).PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		files, err := replacedFiles(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return err
		}
		if len(files) == 0 {
			continue
		}
		if g.Restart++; g.Restart <= api.MaxStale {
			name, err := os.ReadFile(linux.ProcFile(pid, "comm"))
			if err != nil {
				continue
			}
			g.Processes = append(g.Processes, api.StaleProcess{PID: pid, Name: strings.TrimSpace(string(name)), Files: files})
		}
	}
	return nil
}

// mostFiles is how many files of a process are named.
const mostFiles = 3

// replacedFiles returns files that a process executes and that are no longer there, by
// proc_pid_maps(5).
func replacedFiles(pid int) (files []string, err error) {
	f, err := os.Open(linux.ProcFile(pid, "maps"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// address perms offset dev inode path, which may have spaces
		words := strings.SplitN(lines.Text(), " ", 6)
		if len(words) < 6 || !strings.Contains(words[1], "x") {
			continue
		}
		path, gone := strings.CutSuffix(strings.TrimLeft(words[5], " "), " (deleted)")
		// Memory that programs make executable themselves has names of this kind.
		if !gone || strings.HasPrefix(path, "/memfd:") || strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/SYSV") || slices.Contains(files, path) {
			continue
		}
		if files = append(files, path); len(files) == mostFiles {
			break
		}
	}
	return files, lines.Err()
}

// stalePackages compares the packages of a guest with those of an image.
func (h *Host) stalePackages(ctx context.Context, g *api.StaleGuest, base *packages.Installed) error {
	if len(base.Packages) == 0 {
		return nil
	}
	have, err := h.guestPackages(ctx, g.Name)
	if err != nil || have.Tool != base.Tool {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(base.Packages)) {
		newer := base.Packages[name]
		if has := have.Packages[name]; has != "" && base.Tool.Compare(has, newer) < 0 {
			if g.Behind++; g.Behind <= api.MaxStale {
				g.Packages = append(g.Packages, api.StalePackage{Name: name, Has: has, Newer: newer})
			}
		}
	}
	return nil
}

// guestPackages returns the packages of a guest.
func (h *Host) guestPackages(ctx context.Context, guest string) (packages.Installed, error) {
	installed, err := packages.Find(func(name string, limit int64) ([]byte, error) {
		return h.Guests.ReadFile(ctx, guest, "/"+name, limit)
	})
	if err != nil {
		err = fmt.Errorf("read the packages of guest %s: %w", guest, err)
	}
	return installed, err
}

// imagePackages returns the packages of an image, none if the host does not have it.
func (h *Host) imagePackages(id string) (packages.Installed, error) {
	has, err := h.Images.Has(id)
	if err != nil || !has {
		return packages.Installed{}, err
	}
	installed, err := packages.Find(func(name string, limit int64) ([]byte, error) { return h.Images.ReadFile(id, name, limit) })
	if err != nil {
		err = fmt.Errorf("read the packages of image %s: %w", id, err)
	}
	return installed, err
}

// shadows finds what a guest has of its own where another image differs from its own, and
// which packages that the image changes it installed or upgraded itself.
func (h *Host) shadows(ctx context.Context, g *api.StaleGuest, image string, trees guest.Trees, base func(id string) (*packages.Installed, error)) error {
	from, files, err := h.Guests.Shadows(ctx, g.Name, image, trees)
	g.Image, g.Hidden = from, len(files)
	for _, f := range files {
		if f.Kind == api.ShadowAttributes {
			g.Attributes++
		}
	}
	g.Shadows = files[:min(len(files), api.MaxStale)]
	if err != nil || len(files) == 0 || setting.PackageDatabase(files[0].Path) == "" {
		return err
	}
	was, err := base(from)
	is, ierr := base(image)
	has, gerr := h.guestPackages(ctx, g.Name)
	for _, name := range slices.Sorted(maps.Keys(has.Packages)) {
		v, before, after := has.Packages[name], was.Packages[name], is.Packages[name]
		if after != "" && after != before && v != before && v != after {
			if g.Behind++; g.Behind <= api.MaxStale {
				g.Packages = append(g.Packages, api.StalePackage{Name: name, Has: v, Newer: after})
			}
		}
	}
	return errors.Join(err, ierr, gerr)
}
