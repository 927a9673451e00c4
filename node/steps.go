package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

// playStep carries out a step of a kind that only playbooks have.
func (h *Host) playStep(ctx context.Context, s api.Step, progress builder.Progress) (api.StepResult, error) {
	unchanged := api.StepResult{Outcome: api.Unchanged}
	switch {
	case s.Kind == api.StepExec && s.Exec != nil && len(s.Exec.Argv) > 0:
		return h.execStep(ctx, s.Name, *s.Exec)
	case s.Kind == api.StepWait && s.Wait != nil:
		return unchanged, h.wait(ctx, s.Name, *s.Wait, progress)
	case s.Kind == api.StepStat:
		info, err := h.fileInfo(ctx, s.Name, s.Path)
		unchanged.File = &info
		return unchanged, err
	}
	return unchanged, fmt.Errorf("%s: the step does not say what to do", s.Kind)
}

// fileInfo describes a file of a guest, or of the host.
func (h *Host) fileInfo(ctx context.Context, guest, path string) (api.FileInfo, error) {
	if !filepath.IsAbs(path) {
		return api.FileInfo{}, fmt.Errorf("%q is not an absolute path", path)
	}
	if guest != "" {
		return h.Guests.FileInfo(ctx, guest, path)
	}
	root, err := hostRoot()
	if err != nil {
		return api.FileInfo{}, err
	}
	defer root.Root.Close()
	return root.Stat(path)
}

// hostRoot returns the host's own root filesystem.
func hostRoot() (rootfs.Dir, error) {
	dir, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0) // not a guest's
	return rootfs.Dir{Root: dir, Mounts: true}, err
}

// provideFiles writes those files of the host that differ, each completely or not at
// all.
func (h *Host) provideFiles(files []api.File) (api.Outcome, error) {
	root, err := hostRoot()
	if err != nil {
		return api.Failed, err
	}
	defer root.Root.Close()
	done := api.Unchanged
	for _, f := range files {
		differs, _, err := root.Compare(f, false)
		switch {
		case api.FileDigest(f.Content) != f.Digest:
			err = errors.New("its content is not what its digest says")
		case err == nil && differs != "":
			done, err = api.Changed, root.Write(f)
		}
		if err != nil {
			return done, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return done, nil
}

// compareFiles compares files of the host with what they should be.
func compareFiles(files []api.File, contents bool) (state api.GuestFilesState) {
	root, err := hostRoot()
	if err != nil {
		state.Problem = err.Error()
		return state
	}
	defer root.Root.Close()
	for _, f := range files {
		differs, have, err := root.Compare(f, contents && !f.Secret)
		switch {
		case errors.Is(err, fs.ErrPermission):
			differs = "it cannot be read"
		case err != nil:
			state.Problem = f.Path + ": " + err.Error()
			return state
		}
		if differs == "" {
			continue
		}
		found := api.FileState{Path: f.Path, Differs: differs, Content: have}
		if len(have) > api.MaxShown {
			found.Content, found.Large = nil, true
		}
		state.Files = append(state.Files, found)
	}
	return state
}
