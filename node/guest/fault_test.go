package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// On a read-only filesystem everything possible is done: a running guest is stopped,
// and nothing is begun that could not be finished.
func TestReadOnlyFilesystems(t *testing.T) {
	for _, row := range []struct {
		name string
		dir  func(*Host) string
	}{
		{"data", func(h *Host) string { return h.DataDir }},
		{"configurations", func(h *Host) string { return h.ConfigDir }},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			g, other := inMode(api.ModeNAT, "reader", 160, "sleep", "1000"), inMode(api.ModeNAT, "other", 161, "sleep", "1000")
			other.Network.Forwards = nil
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			was, err := h.State(g.Name)
			must(t, err)
			writeAgain := readOnly(t, row.dir(h))
			if err := h.Create(ctx, other); err == nil || !strings.Contains(err.Error(), "read-only") {
				t.Errorf("create: %v", err)
			}
			if err := h.Delete(ctx, g.Name); err == nil || !strings.Contains(err.Error(), "read-only") {
				t.Errorf("delete: %v", err)
			}
			if row.name == "data" {
				if err := h.Restart(ctx, g.Name, Options{}); err == nil || !strings.Contains(err.Error(), "read-only") {
					t.Errorf("restart: %v", err)
				}
			} else {
				changed := g
				changed.Hostname = "changed"
				if err := h.Claim(t.Context(), changed); err == nil || !strings.Contains(err.Error(), "read-only") {
					t.Errorf("claim: %v", err)
				}
				if _, err := h.Configure(ctx, changed); err == nil {
					t.Error("configured")
				}
			}
			if st, err := h.State(g.Name); err != nil || st.InitPID != was.InitPID {
				t.Errorf("the guest does not run as it did: %+v, %v", st, err)
			}
			if row.name == "configurations" {
				must(t, h.Restart(ctx, g.Name, Options{}))
			}
			if outcome, err := h.Stop(ctx, g.Name); err != nil || outcome != api.Changed {
				t.Errorf("stop: %v, %v", outcome, err)
			}
			writeAgain()
			if left := lying(t, h); slices.ContainsFunc(left, func(path string) bool { return strings.Contains(path, "other") }) {
				t.Errorf("the create left %q", left)
			}
			must(t, h.Create(ctx, other))
		})
	}
}

// readOnly mounts a directory read-only.
func readOnly(t *testing.T, dir string) (undo func()) {
	t.Helper()
	must(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	must(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	done := false
	undo = func() {
		if !done {
			must(t, unix.Unmount(dir, unix.MNT_DETACH))
		}
		done = true
	}
	t.Cleanup(undo)
	return undo
}

// lying returns the files in the directories of a host, except guests' roots.
func lying(t *testing.T, h *Host) []string {
	t.Helper()
	var list []string
	for _, dir := range []string{h.ConfigDir, h.DataDir} {
		must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Name() != "work" { // overlayfs's own directory
				list = append(list, strings.TrimPrefix(path, dir))
			}
			return err
		}))
	}
	return list
}

// The filesystem fills up at each file that is written: what was begun is undone, and
// the same call succeeds once there is room.
func TestFullFilesystems(t *testing.T) {
	ctx := context.Background()
	g := inMode(api.ModeOwn, "full", 162, "sleep", "1000")
	changed := g
	changed.Hostname = "changed"
	for _, row := range []struct {
		name   string
		dir    func(*Host) string
		before func(h *Host) error // runs while there is room
		do     func(h *Host) error
		after  func(h *Host) error // restores the earlier state
	}{
		{"create, data", func(h *Host) string { return h.DataDir }, nil,
			func(h *Host) error { return h.Create(ctx, g) }, func(h *Host) error { return h.Delete(ctx, g.Name) }},
		{"create, configurations", func(h *Host) string { return h.ConfigDir }, nil,
			func(h *Host) error { return h.Create(ctx, g) }, func(h *Host) error { return h.Delete(ctx, g.Name) }},
		{"configure", func(h *Host) string { return h.ConfigDir }, func(h *Host) error { return h.Create(ctx, g) },
			func(h *Host) error { _, err := h.Configure(ctx, changed); return err },
			func(h *Host) error { _, err := h.Configure(ctx, g); return err }},
		{"start, data", func(h *Host) string { return h.DataDir }, func(h *Host) error { return h.Create(ctx, g) },
			func(h *Host) error { return h.Start(ctx, g.Name, Options{}) },
			func(h *Host) error { _, err := h.Stop(ctx, g.Name); return err }},
		{"start, run", func(h *Host) string { return "/run" },
			func(h *Host) error { return errors.Join(h.Create(ctx, g), remove(h.lockFile(g.Name))) },
			func(h *Host) error { return h.Start(ctx, g.Name, Options{}) },
			func(h *Host) error { _, err := h.Stop(ctx, g.Name); return err }},
		// A guest that fills the disk can be ended.
		{"stop, data", func(h *Host) string { return h.DataDir }, func(h *Host) error { return errors.Join(h.Create(ctx, g), h.Start(ctx, g.Name, Options{})) },
			func(h *Host) error { _, err := h.Stop(ctx, g.Name); return err },
			func(h *Host) error { return h.Start(ctx, g.Name, Options{}) }},
		{"stop, run", func(h *Host) string { return "/run" }, func(h *Host) error { return errors.Join(h.Create(ctx, g), h.Start(ctx, g.Name, Options{})) },
			func(h *Host) error { _, err := h.Stop(ctx, g.Name); return err },
			func(h *Host) error { return h.Start(ctx, g.Name, Options{}) }},
		{"delete, data", func(h *Host) string { return h.DataDir }, func(h *Host) error { return errors.Join(h.Create(ctx, g), h.Start(ctx, g.Name, Options{})) },
			func(h *Host) error { return h.Delete(ctx, g.Name) },
			func(h *Host) error { return errors.Join(h.Create(ctx, g), h.Start(ctx, g.Name, Options{})) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := host(t)
			must(t, errors.Join(os.MkdirAll(h.ConfigDir, 0o755), os.MkdirAll(h.DataDir, 0o700)))
			dir := row.dir(h)
			if dir != "/run" {
				must(t, os.MkdirAll(dir, 0o700))
				must(t, unix.Mount("full", dir, "tmpfs", 0, "nr_inodes=1000"))
				defer func() {
					must(t, shutDown(h))
					must(t, unix.Unmount(dir, unix.MNT_DETACH))
				}()
			}
			if row.before != nil {
				must(t, row.before(h))
			}
			before := lying(t, h)
			beforeTraces := traces(t)
			failed := 0
			for room := 0; ; room++ {
				give(t, dir, room)
				err := row.do(h)
				give(t, dir, 500)
				if err == nil {
					// Nothing is written there by these.
					none := row.name == "start, data" || strings.HasPrefix(row.name, "stop") || strings.HasPrefix(row.name, "delete")
					if failed != room || (room == 0) != none {
						t.Errorf("failed %d times, with room for %d", failed, room)
					}
					break
				}
				if failed++; !errors.Is(err, unix.ENOSPC) || room > 60 {
					t.Fatalf("with room for %d: %v", room, err)
				}
				if left := lying(t, h); !slices.Equal(left, before) {
					t.Fatalf("with room for %d there is\n%q, before\n%q", room, left, before)
				}
				if after := traces(t); after != beforeTraces {
					t.Fatalf("with room for %d, left over:\nbefore %s\nafter  %s", room, beforeTraces, after)
				}
			}
			must(t, row.after(h))
			must(t, row.do(h))
			must(t, row.after(h))
		})
	}
}

// give leaves room for n files on a tmpfs.
func give(t *testing.T, dir string, files int) {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, fmt.Sprintf("nr_inodes=%d", st.Files-st.Ffree+uint64(files))))
}
