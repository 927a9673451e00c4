package rollout

import (
	"context"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// askFiles asks the hosts which files of their guests differ. What the files
// should hold stays here until it is written.
func (r *run) askFiles(ctx context.Context) {
	asked := slices.DeleteFunc(r.reached(), func(h *host) bool {
		return !slices.ContainsFunc(h.from.Guests, func(g *inventory.Guest) bool { return len(g.Files) > 0 })
	})
	r.each(ctx, asked, func(ctx context.Context, h *host) {
		req := api.FilesRequest{Contents: r.Diff}
		for _, g := range h.from.Guests {
			if len(g.Files) == 0 || g.State == inventory.Absent {
				continue
			}
			files := wireFiles(g.Files)
			for i := range files {
				files[i].Content = nil
			}
			req.Guests = append(req.Guests, api.GuestFiles{Guest: g.Name, Files: files})
		}
		answer, err := h.node.Files(ctx, req)
		if err != nil {
			r.fail(ctx, h, err)
			return
		}
		h.Files = answer
	})
}

// wireFiles are files as a host is told of them.
func wireFiles(files []inventory.File) []api.File {
	var list []api.File
	for _, f := range files {
		list = append(list, api.File{
			Path: f.Path, Digest: api.FileDigest(f.Content), Content: f.Content, Mode: f.Mode, Owner: f.Owner,
			Secret: f.Secret, OnChange: api.OnChange(f.OnChange),
		})
	}
	return list
}

// provide puts the writing of a guest's files among its steps: before it is
// started, so that it finds them. have is nil where nobody can tell yet what it has.
func provide(steps []api.Step, want *inventory.Guest, have *api.GuestFilesState, running bool) []api.Step {
	var files []api.File
	var why []string
	restart := ""
	for _, f := range wireFiles(want.Files) {
		differs := "the inventory has it"
		if have != nil {
			i := slices.IndexFunc(have.Files, func(s api.FileState) bool { return s.Path == f.Path })
			if i < 0 {
				continue
			}
			differs = have.Files[i].Differs
		}
		files = append(files, f)
		why = append(why, f.Path+": "+differs)
		if f.OnChange.Restart && restart == "" {
			restart = f.Path + " changes"
		}
	}
	if have != nil {
		for _, o := range have.Pending {
			if o.Restart {
				restart = "files changed since it was started"
			} else {
				why = append(why, "after an earlier change it was not told: "+strings.Join(o.Command, " "))
			}
		}
	}
	starts := func(s api.Step) bool { return s.Kind == api.StepStart || s.Kind == api.StepRestart }
	if restart != "" && running && want.State == inventory.Running && !slices.ContainsFunc(steps, starts) {
		steps = append(steps, api.Step{Kind: api.StepRestart, Name: want.Name, Why: restart})
	}
	if len(why) == 0 {
		return steps
	}
	at := slices.IndexFunc(steps, starts)
	if at < 0 {
		at = len(steps)
	}
	return slices.Insert(steps, at, api.Step{Kind: api.StepFiles, Name: want.Name, Files: files, Why: strings.Join(why, "; ")})
}

// FileStates is what the host said of the files that a step writes, and nothing
// for other steps.
func (h *HostReport) FileStates(step api.Step) []api.FileState {
	for _, g := range h.Files.Guests {
		if g.Guest == step.Name {
			return g.Files
		}
	}
	return nil
}
