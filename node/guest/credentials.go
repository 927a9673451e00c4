package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

// A guest's credentials come as files of setting.Credentials, of which nothing outlives
// a guest that runs. So they are kept in its configuration, and given to it at its start.
const credentials = "credentials"

func isCredential(path string) bool { return strings.HasPrefix(path, setting.Credentials+"/") }

// isConfigured reports whether a file of the configuration is no credential and no hook
// of an inventory: those are kept and put back as files.
func isConfigured(rel string) bool {
	return !strings.HasPrefix(rel, credentials+"/") && !setting.IsHook(rel)
}

// apart separates the files in a guest's configuration, which are its credentials and
// hooks, from those in its root.
func apart[T any](list []T, path func(T) string) (kept, inside []T) {
	for _, f := range list {
		if isCredential(path(f)) || setting.IsHook(path(f)) {
			kept = append(kept, f)
		} else {
			inside = append(inside, f)
		}
	}
	return kept, inside
}

func pathOf(f api.File) string { return f.Path }

// inConfig calls f with the configuration of a guest as the root filesystem in which
// its credentials and hooks are.
func inConfig[T any](g *Guest, f func(guestRoot) (T, error)) (result T, err error) {
	on, err := g.running()
	if err != nil {
		return result, err
	}
	dir, err := os.OpenFile(g.host.config(g.name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return result, err
	}
	defer dir.Close()
	return f(guestRoot{rootfs.Dir{Root: dir, At: path.Dir(setting.Credentials)}, on})
}

// writePlaces writes those files that differ: those of the configuration first, as what a running guest
// has to do then is noted for all.
func (g *Guest) writePlaces(ctx context.Context, list []place) (done writeResult, err error) {
	kept, inside := apart(list, func(p place) string { return p.path })
	for _, p := range kept {
		if setting.IsHook(p.path) {
			continue
		}
		if err := checkCredential(p.path); err != nil {
			return done, err
		}
	}
	if len(kept) > 0 {
		done, err = inConfig(g, func(r guestRoot) (writeResult, error) { return g.host.writeFiles(r, g.name, kept) })
		if err != nil || len(inside) == 0 {
			return done, err
		}
	}
	also, err := inRoot(ctx, g, func(r guestRoot) (writeResult, error) { return g.host.writeFiles(r, g.name, inside) })
	also.changed = also.changed || done.changed
	also.lost = append(done.lost, also.lost...)
	return also, err
}

// checkCredential refuses a path at which no guest would find its credential.
func checkCredential(name string) error {
	base := strings.TrimPrefix(name, setting.Credentials+"/")
	err := setting.CheckCredential(base)
	if err == nil && isBackup(base) {
		err = errors.New(noCopy)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// giveCredentials adds a guest's credentials to its spec, as systemd's container
// interface has them.
func (h *Host) giveCredentials(sp *procctx.Spec, name string) error {
	dir := filepath.Join(h.config(name), credentials)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	total, before := int64(0), len(sp.Run)
	for _, e := range entries {
		if checkCredential(setting.Credentials+"/"+e.Name()) != nil {
			continue // left by a call that was killed, or a copy
		}
		st, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if total += st.Size(); total > setting.MaxCredentials || !st.Mode().IsRegular() {
			return fmt.Errorf("%s: want files of at most %d MiB together, which is what systemd reads: it ends at %s", dir, setting.MaxCredentials>>20, e.Name())
		}
		content, err := linux.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		sp.Run = append(sp.Run, procctx.RunFile{Name: "host/" + credentials + "/" + e.Name(), Mode: 0o400, Content: content})
	}
	if len(sp.Run) > before {
		sp.Env = withVariable(sp.Env, "CREDENTIALS_DIRECTORY="+setting.Credentials)
	}
	return nil
}
