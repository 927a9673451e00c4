package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// FilesRequest asks a host which files of its guests differ from those of the
// inventory; with contents, also how. What the files should hold is left out
// until it is written. A secret that was not opened is an error.
func FilesRequest(host *inventory.Host, state api.State, contents bool) (api.FilesRequest, error) {
	req := api.FilesRequest{Contents: contents}
	hooks := map[string][]string{}
	for _, g := range state.Guests {
		hooks[g.Name] = g.Hooks
	}
	for _, g := range host.Guests {
		if g.State == inventory.Absent {
			continue
		}
		files, err := wireFiles(g, hooks[g.Name])
		if err != nil {
			return req, fmt.Errorf("guest %s: %w", g.Name, err)
		}
		asked := api.GuestFiles{Guest: g.Name}
		if g.State == inventory.Running {
			asked.Sources, asked.Devices = needed(g)
		}
		if len(files)+len(asked.Sources)+len(asked.Devices) == 0 {
			continue
		}
		for i := range files {
			files[i].Content = nil
		}
		asked.Files = files
		req.Guests = append(req.Guests, asked)
	}
	return req, nil
}

// needed returns the paths of the host that a guest cannot start without. Its hooks may
// make them first.
func needed(g *inventory.Guest) (sources, nodes []string) {
	for _, phase := range []string{"initialize", "prepre-start", "pre-start"} {
		if slices.ContainsFunc(g.Files, func(f inventory.File) bool { return f.Path == setting.HookFile(phase) }) {
			return nil, nil
		}
	}
	for _, m := range g.Mounts {
		if (m.Type == setting.Bind || m.Type == setting.RBind) && !slices.Contains(m.Options, setting.Optional) {
			sources = append(sources, m.Source)
		}
	}
	for _, d := range g.Devices {
		nodes = append(nodes, d.Source)
	}
	return sources, nodes
}

// lacks refuses steps that start a guest whose host lacks what it needs for that.
func lacks(steps []api.Step, missing []string) error {
	if len(missing) == 0 || !slices.ContainsFunc(steps, starts) {
		return nil
	}
	return fmt.Errorf("it would not start: %s", strings.Join(missing, "; "))
}

func starts(s api.Step) bool { return s.Kind == api.StepStart || s.Kind == api.StepRestart }

// wireFiles returns the files of a guest as they are sent to a host. Of the hooks that
// the host has of an inventory, those that it no longer has are to be removed.
func wireFiles(g *inventory.Guest, hooks []string) ([]api.File, error) {
	list, err := sentFiles(g.Files)
	for _, phase := range hooks {
		name := setting.HookFile(phase)
		if !slices.ContainsFunc(list, func(f api.File) bool { return f.Path == name }) {
			list = append(list, api.File{Path: name, Absent: true})
		}
	}
	return list, err
}

// sentFiles converts files of the inventory to those that are sent to a host.
func sentFiles(files []inventory.File) ([]api.File, error) {
	var list []api.File
	for _, f := range files {
		content, err := f.Read()
		if err != nil {
			return nil, err
		}
		list = append(list, api.File{
			Path: f.Path, Digest: api.FileDigest(content), Content: content, Mode: f.Mode, Owner: f.Owner,
			Secret: f.Secret, OnChange: api.OnChange(f.OnChange),
		})
	}
	return list, nil
}

// withFiles inserts the step that writes a guest's files before the one that
// starts it. have is nil if it is not known yet which files the guest has.
func withFiles(steps []api.Step, want *inventory.Guest, hooks []string, have *api.GuestFilesState, running bool) ([]api.Step, error) {
	var files []api.File
	var why []string
	restart := ""
	wanted, err := wireFiles(want, hooks)
	if err != nil {
		return nil, err
	}
	for _, f := range wanted {
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
	if restart != "" && running && want.State == inventory.Running && !slices.ContainsFunc(steps, starts) {
		steps = append(steps, api.Step{Kind: api.StepRestart, Name: want.Name, Why: restart})
	}
	if len(why) == 0 {
		return steps, nil
	}
	at := slices.IndexFunc(steps, starts)
	if at < 0 {
		at = len(steps)
	}
	return slices.Insert(steps, at, api.Step{Kind: api.StepFiles, Name: want.Name, Files: files, Why: strings.Join(why, "; ")}), nil
}
