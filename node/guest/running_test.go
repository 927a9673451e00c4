package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
)

// A running guest keeps what it was started with, whatever happens to its
// configuration. edit makes two configurations by hand that cannot both run.
func TestSecondGuestWithOneThingIsRefusedByWhatRuns(t *testing.T) {
	for _, row := range []struct {
		name   string
		edit   func(t *testing.T, h *Host, first, second string)
		reason string
	}{
		{"one context", func(t *testing.T, h *Host, first, second string) {
			must(t, os.WriteFile(filepath.Join(h.config(second), "context"), []byte("140\n"), 0o644))
		}, "context 140"},
		{"one directory", func(t *testing.T, h *Host, first, second string) {
			point(t, h, second, h.rootDir(first))
		}, "its files"},
		{"one directory by another name", func(t *testing.T, h *Host, first, second string) {
			alias := filepath.Join(h.DataDir, "alias")
			must(t, os.Symlink(h.data(first), alias))
			point(t, h, second, alias+"/root")
		}, "its files"},
		{"a directory in the other's", func(t *testing.T, h *Host, first, second string) {
			point(t, h, second, filepath.Join(h.rootDir(first), "etc"))
		}, "its files"},
		{"a configuration that was copied", func(t *testing.T, h *Host, first, second string) {
			must(t, os.RemoveAll(h.config(second)))
			must(t, os.CopyFS(h.config(second), os.DirFS(h.config(first))))
			must(t, errors.Join(remove(filepath.Join(h.config(second), "vdir")), remove(filepath.Join(h.config(second), "run"))))
			point(t, h, second, h.rootDir(first))
		}, "context 140"},
		{"a port that the first has given up in its configuration only", func(t *testing.T, h *Host, first, second string) {
			must(t, os.WriteFile(filepath.Join(h.config(first), "interfaces/ports"), []byte("8088\n"), 0o644))
			must(t, os.WriteFile(filepath.Join(h.config(second), "interfaces/ports"), []byte("8080\n"), 0o644))
		}, "8080"},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			first, second := inMode(api.ModeShared, "first", 140, "sleep", "1000"), inMode(api.ModeShared, "second", 141, "sleep", "1000")
			second.Network.Ports, _ = parseAll([]string{"8081"}, port.Parse)
			must(t, h.Create(ctx, first))
			must(t, h.Create(ctx, second))
			must(t, h.Start(ctx, first.Name, Options{}))
			row.edit(t, h, first.Name, second.Name)
			before := traces(t)
			err := h.Start(ctx, second.Name, Options{})
			if err == nil || !strings.Contains(err.Error(), row.reason) || !strings.Contains(err.Error(), "vserver first stop") {
				t.Errorf("error %v, want one of %q that says what to stop", err, row.reason)
			}
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
			if err := h.Delete(ctx, second.Name); strings.Contains(row.reason, "files") && (err == nil || !exists(h.rootDir(first.Name))) {
				t.Errorf("deleting the second: %v; the first has its files: %t", err, exists(h.rootDir(first.Name)))
			}
			_, err = h.Stop(ctx, first.Name)
			must(t, err)
			if exists(h.config(second.Name)) {
				must(t, os.MkdirAll(filepath.Join(h.rootDir(first.Name), "work"), 0o700)) // beside the directory in the other's
				must(t, h.Start(ctx, second.Name, Options{}))
				_, err = h.Stop(ctx, second.Name)
				must(t, err)
				must(t, os.RemoveAll(h.config(second.Name)))
			}
		})
	}
}

// A guest that ended by itself, and that no vsnode has looked at since, does not block
// others.
func TestDeadGuestGivesWhatItHad(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	first, second := inMode(api.ModeOwn, "first", 142, "true"), inMode(api.ModeOwn, "second", 143, "sleep", "1000")
	must(t, h.Create(ctx, first))
	second.Network.Addresses = nil
	second.Network = inMode(api.ModeShared, "", 0).Network
	must(t, h.Create(ctx, second))
	must(t, h.Start(ctx, first.Name, Options{}))
	_, cg, err := h.cgroup(first.Name)
	must(t, err)
	must(t, cg.WaitEmpty(ctx))
	must(t, os.WriteFile(filepath.Join(h.config(second.Name), "context"), []byte("142\n"), 0o644))
	must(t, h.Start(ctx, second.Name, Options{}))
	if strings.Contains(traces(t), "198.51.100.77") {
		t.Error("the dead guest's address is still there")
	}
}

// A guest keeps running when its configuration is renamed, removed or damaged. It is
// listed, can be stopped, and no other guest gets what it has.
func TestGuestWithoutItsConfigurationIsSeenAndStopped(t *testing.T) {
	for _, row := range []struct {
		name   string
		damage func(t *testing.T, h *Host, name string)
	}{
		{"renamed", func(t *testing.T, h *Host, name string) { must(t, os.Rename(h.config(name), h.config("renamed"))) }},
		{"removed", func(t *testing.T, h *Host, name string) { must(t, os.RemoveAll(h.config(name))) }},
		{"damaged", func(t *testing.T, h *Host, name string) {
			must(t, os.WriteFile(filepath.Join(h.config(name), "context"), nil, 0o644))
		}},
		{"without vdir", func(t *testing.T, h *Host, name string) { must(t, os.Remove(filepath.Join(h.config(name), "vdir"))) }},
		{"removed with the notes of its start", func(t *testing.T, h *Host, name string) {
			must(t, errors.Join(os.RemoveAll(h.config(name)), os.RemoveAll(h.RunDir)))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			before := traces(t)
			g := inMode(api.ModeOwn, "lost", 144, "sleep", "1000")
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			row.damage(t, h, g.Name)
			list, err := h.States(ctx)
			must(t, err)
			found := false
			for _, st := range list {
				if st.Name == g.Name && st.Status == api.Running && st.Context == g.Context && st.Problem != "" {
					found = true
				}
			}
			if !found {
				t.Errorf("not in the list as running, with its problem: %+v", list)
			}
			other := g
			other.Name = "other"
			other.Network.Addresses = inMode(api.ModeShared, "", 0).Network.Addresses
			other.Network.Mode, other.Network.Dev = api.ModeShared, ""
			if err := h.Create(ctx, other); err == nil || !strings.Contains(err.Error(), "context 144") {
				t.Errorf("another guest gets its context: %v", err)
			}
			if exists(h.config("renamed")) {
				if err := h.Start(ctx, "renamed", Options{}); err == nil {
					t.Error("the renamed guest starts beside itself")
				}
				if err := h.Delete(ctx, g.Name); err == nil || !exists(h.rootDir(g.Name)) {
					t.Errorf("deleted with the files of the renamed one: %v", err)
				}
				outcome, err := h.Stop(ctx, g.Name)
				if err != nil || outcome != api.Changed {
					t.Errorf("stop: %v, %v", outcome, err)
				}
				must(t, h.Start(ctx, "renamed", Options{}))
				_, err = h.Stop(ctx, "renamed")
				must(t, err)
				must(t, os.RemoveAll(h.config("renamed")))
			} else {
				must(t, h.Delete(ctx, g.Name))
				if exists(h.data(g.Name)) {
					t.Error("its files are still there")
				}
			}
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
			if _, err := h.State(g.Name); !errors.Is(err, ErrNoGuest) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// Apply finds such a guest and writes its configuration anew while it runs.
func TestConfigurationIsWrittenAnewWhileTheGuestRuns(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, h *Host, name string){
		"removed": func(t *testing.T, h *Host, name string) { must(t, os.RemoveAll(h.config(name))) },
		"damaged": func(t *testing.T, h *Host, name string) {
			must(t, os.WriteFile(filepath.Join(h.config(name), "context"), nil, 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			g := inMode(api.ModeShared, "anew", 145, "sleep", "1000")
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			was, err := h.State(g.Name)
			must(t, err)
			damage(t, h, g.Name)
			if err := h.Create(ctx, g); err == nil {
				t.Error("created beside the one that runs")
			}
			want := g
			want.Context = 0 // an inventory may leave it unset
			outcome, err := h.Configure(ctx, want)
			if err != nil || outcome != api.Changed {
				t.Errorf("%v, %v", outcome, err)
			}
			st, err := h.State(g.Name)
			if err != nil || st.Problem != "" || st.InitPID != was.InitPID || st.Context != g.Context || st.Runs != nil {
				t.Errorf("state %+v, %v", st, err)
			}
		})
	}
}

// If notes of a start are lost or damaged they are read from the cgroup, and what is
// missing there as well from the kernel.
func TestNotesOfAStartAreFoundAgain(t *testing.T) {
	for _, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		for name, damage := range map[string]func(t *testing.T, h *Host, name string){
			"deleted": func(t *testing.T, h *Host, name string) { must(t, os.Remove(h.notesFile(name))) },
			"empty":   func(t *testing.T, h *Host, name string) { must(t, os.WriteFile(h.notesFile(name), nil, 0o600)) },
			"garbage": func(t *testing.T, h *Host, name string) {
				must(t, os.WriteFile(h.notesFile(name), []byte("{]"), 0o600))
			},
			"all of run": func(t *testing.T, h *Host, name string) { must(t, os.RemoveAll(h.RunDir)) },
			"forgotten":  forget,
		} {
			t.Run(string(mode)+" "+name, func(t *testing.T) {
				ctx := context.Background()
				h := host(t)
				before := traces(t)
				g := inMode(mode, "noted", 146, "sleep", "1000")
				must(t, h.Create(ctx, g))
				must(t, h.Start(ctx, g.Name, Options{}))
				was, err := h.State(g.Name)
				must(t, err)
				damage(t, h, g.Name)
				must(t, h.Sweep(ctx))
				st, err := h.State(g.Name)
				if err != nil || st.Status != api.Running || st.Runs != nil || st.InitPID != was.InitPID || st.Started.Sub(was.Started).Abs() > time.Minute {
					t.Errorf("state %+v, was %+v, %v", st, was, err)
				}
				if err := h.Start(ctx, g.Name, Options{}); !errors.Is(err, ErrRunning) {
					t.Errorf("started beside itself: %v", err)
				}
				if outcome, err := h.Stop(ctx, g.Name); err != nil || outcome != api.Changed {
					t.Errorf("stop: %v, %v", outcome, err)
				}
				must(t, h.Delete(ctx, g.Name))
				if after := traces(t); after != before {
					t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
				}
			})
		}
	}
}

// A guest whose notes are deleted, and which then ends, leaves nothing behind either.
func TestForgottenGuestThatEndedIsCleanedUp(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	before := traces(t)
	g := inMode(api.ModeOwn, "ended", 147, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	must(t, os.Remove(h.notesFile(g.Name)))
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, cg.Kill(ctx))
	must(t, h.Sweep(ctx))
	if after := traces(t); after != before {
		t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
	}
}

func TestStartIsByTheTimeSinceBoot(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeNAT, "clock", 148, "sleep", "1000")
	must(t, h.Create(t.Context(), g))
	must(t, h.Start(t.Context(), g.Name, Options{}))
	st, err := h.readNotes(g.Name)
	must(t, err)
	st.Started = st.Started.Add(24 * time.Hour) // the clock was a day ahead at the start and has been corrected since
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, h.writeNotes(g.Name, cg, st))
	if s, err := h.State(g.Name); err != nil || time.Since(s.Started).Abs() > time.Minute {
		t.Errorf("started at %s, %v", s.Started, err)
	}
}

func TestNoLockIsLeftOfWhatIsNotThere(t *testing.T) {
	h, ctx := host(t), context.Background()
	g := inMode(api.ModeNAT, "gone", 149, "true")
	for name, f := range map[string]func() error{
		"start":           func() error { return h.Start(ctx, "never", Options{}) },
		"stop":            func() error { _, err := h.Stop(ctx, "never"); return err },
		"delete":          func() error { return h.Delete(ctx, "never") },
		"configure":       func() error { _, err := h.Configure(ctx, api.Guest{Name: "never"}); return err },
		"a failed create": func() error { return h.Create(ctx, api.Guest{Name: "never"}) },
		"a deleted guest": func() error { return errors.Join(h.Create(ctx, g), h.Delete(ctx, g.Name), ErrNoGuest) },
	} {
		if err := f(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if left, err := filepath.Glob(h.RunDir + "/.*never*"); err != nil || len(left) > 0 || exists(h.lockFile(g.Name)) {
			t.Errorf("after %s there is %v, %v", name, left, err)
		}
	}
}

// A lock whose file is removed by its holder is still one lock.
func TestLockIsOneWhileItsFileComesAndGoes(t *testing.T) {
	h := host(t)
	inside := 0
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			for range 200 {
				err := h.Hold(context.Background(), "coming", "test", func(*Guest) error {
					inside++ // the race detector and this count detect it
					defer func() { inside-- }()
					if inside != 1 {
						return errors.New("two hold it")
					}
					runtime.Gosched()
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
}

func point(t *testing.T, h *Host, name, root string) {
	t.Helper()
	vdir := filepath.Join(h.config(name), "vdir")
	must(t, errors.Join(remove(vdir), os.Symlink(root, vdir)))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// forget removes all notes of a start, as if an older vsnode had started the guest.
func forget(t *testing.T, h *Host, name string) {
	t.Helper()
	_, cg, err := h.cgroup(name)
	must(t, err)
	must(t, errors.Join(unix.Removexattr(string(cg), notesAttr), os.Remove(h.notesFile(name))))
}
