package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux/killtest"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/generation"
)

// likeness describes all that a revert has to put back of a guest.
func likeness(t *testing.T, h *Host, name string) string {
	t.Helper()
	var b strings.Builder
	files, err := treeOf(h.config(name))
	must(t, err)
	for _, rel := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%s=%q;", rel, files[rel])
	}
	on, err := h.Running(name)
	must(t, err)
	fmt.Fprintf(&b, "running %v;", on)
	root := h.rootDir(name)
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		content := ""
		switch d.Type() {
		case fs.ModeSymlink:
			content, err = os.Readlink(path)
		case 0:
			var c []byte
			c, err = os.ReadFile(path)
			content = string(c)
		}
		fmt.Fprintf(&b, "%s %o %d:%d %q;", strings.TrimPrefix(path, root), st.Mode, st.Uid, st.Gid, content)
		return err
	}))
	return b.String()
}

// change changes a guest as a run does.
func change(t *testing.T, h *Host, run string, to api.Guest, files ...api.File) {
	t.Helper()
	ctx := t.Context()
	must(t, h.Keep(ctx, to.Name, Change{Run: run, Owner: "root@ctl", Reason: "apply", Config: true, Files: files}, func(string) {}))
	_, err := h.Configure(ctx, to)
	must(t, err)
	if len(files) > 0 {
		_, err = h.Provide(ctx, to.Name, files)
		must(t, err)
	}
}

func revert(t *testing.T, h *Host, name, which string) api.Outcome {
	t.Helper()
	outcome, err := h.Revert(t.Context(), name, which, Options{})
	if !errors.Is(err, generation.ErrNone) {
		must(t, err)
	}
	return outcome
}

// TestRevert puts guests back in each state that a run finds them in.
func TestRevert(t *testing.T) {
	ctx := t.Context()
	for _, row := range []struct {
		name    string
		running bool
		alter   func(g *api.Guest)
		files   []api.File
		after   func(t *testing.T, h *Host) // what else happens in the run
		started bool                        // the revert has to start it anew
	}{
		{"a stopped guest is configured", false, func(g *api.Guest) { g.Hostname = "other" }, nil, nil, false},
		{"a stopped guest is configured and started", false, func(g *api.Guest) { g.Hostname = "other" }, nil,
			func(t *testing.T, h *Host) { must(t, h.Start(ctx, "back", Options{})) }, false},
		{"a running guest gets what it takes at once", true, func(g *api.Guest) { g.Network.Forwards = nil }, nil, nil, false},
		{"a running guest is configured and restarted", true, func(g *api.Guest) { g.Hostname = "other" }, nil,
			func(t *testing.T, h *Host) { must(t, h.Restart(ctx, "back", Options{})) }, true},
		{"a running guest gets another context", true, func(g *api.Guest) { g.Context = 901 }, nil,
			func(t *testing.T, h *Host) { must(t, h.Start(ctx, "back", Options{})) }, true},
		{"its new configuration does not start", true, func(g *api.Guest) { g.Init.Command = []string{"/none"} }, nil,
			func(t *testing.T, h *Host) {
				if err := h.Restart(ctx, "back", Options{}); err == nil {
					t.Error("it started")
				}
			}, true},
		{"it is stopped", true, func(*api.Guest) {}, nil, func(t *testing.T, h *Host) { _, err := h.Stop(ctx, "back"); must(t, err) }, true},
		{"files are written to a running guest", true, func(*api.Guest) {},
			[]api.File{file("/etc/own", "new\n"), file("/etc/link", "new\n"), file("/etc/passwd", "root:x:0:0::/:/bin/sh\n"), file("/etc/none", "new\n")}, nil, false},
		{"files are written to a stopped guest", false, func(*api.Guest) {}, []api.File{file("/etc/own", "new\n"), file("/etc/link", "new\n")}, nil, false},
		{"all of it", true, func(g *api.Guest) { g.Hostname, g.Network.Forwards = "other", nil }, []api.File{file("/etc/own", "new\n")},
			func(t *testing.T, h *Host) { must(t, h.Restart(ctx, "back", Options{})) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := host(t)
			g := inMode(api.ModeNAT, "back", 900, "sleep", "1000")
			must(t, h.Create(ctx, g))
			g, err := readGuest(h, "back")
			must(t, err)
			own := file("/etc/own", "old\n")
			own.Mode, own.Owner = 0o4755, "33:7"
			_, err = h.Provide(ctx, "back", []api.File{own, file("/etc/passwd", "root:x:0:0::/:/bin/sh\n# old\n")})
			must(t, err)
			must(t, os.Symlink("../own\\", h.rootDir("back")+"/etc/link"))
			must(t, os.WriteFile(h.config("back")+"/by-hand", []byte("kept\n"), 0o644))
			if row.running {
				must(t, h.Start(ctx, "back", Options{}))
			}
			before, init := likeness(t, h, "back"), initOf(t, h, "back")

			row.alter(&g)
			if row.running && g.Context != 900 {
				must(t, h.Keep(ctx, "back", Change{Run: "run-1"}, nil))
				_, err := h.Stop(ctx, "back")
				must(t, err)
			}
			change(t, h, "run-1", g, row.files...)
			if row.after != nil {
				row.after(t, h)
			}
			if likeness(t, h, "back") == before {
				t.Fatal("the run has changed nothing")
			}
			if got := revert(t, h, "back", "run-2"); got != api.Unchanged {
				t.Errorf("another run: %s", got)
			}
			if got := revert(t, h, "back", "run-1"); got != api.Changed {
				t.Errorf("%s", got)
			}
			if after := likeness(t, h, "back"); after != before {
				t.Errorf("put back:\n%s\nbefore:\n%s", after, before)
			}
			if again := initOf(t, h, "back"); row.running && (again != init) != row.started {
				t.Errorf("process 1 was %d and is %d", init, again)
			}
			if st, err := h.State("back"); err != nil || st.Runs != nil {
				t.Errorf("it runs otherwise than configured: %+v, %v", st, err)
			}
			if got := revert(t, h, "back", "run-1"); got != api.Unchanged {
				t.Errorf("again: %s", got)
			}
			if left, err := os.ReadDir(string(h.generations())); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func readGuest(h *Host, name string) (api.Guest, error) {
	c, err := h.Read(name)
	return c.Guest, err
}

func initOf(t *testing.T, h *Host, name string) int {
	t.Helper()
	st, err := h.State(name)
	must(t, err)
	return st.InitPID
}

// Nothing that nobody asked to delete is deleted: a guest that the run has created is
// stopped.
func TestRevertOfACreatedGuest(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	g := inMode(api.ModeNAT, "fresh", 902, "sleep", "1000")
	must(t, h.Keep(ctx, "fresh", Change{Run: "run-1", Config: true}, nil))
	must(t, h.Create(ctx, g))
	must(t, h.Keep(ctx, "fresh", Change{Run: "run-1", Files: []api.File{file("/etc/x", "x")}}, nil))
	_, err := h.Provide(ctx, "fresh", []api.File{file("/etc/x", "x")})
	must(t, err)
	must(t, h.Start(ctx, "fresh", Options{}))
	if got := revert(t, h, "fresh", "run-1"); got != api.Changed {
		t.Errorf("%s", got)
	}
	st, err := h.State("fresh")
	if err != nil || st.Status != api.Stopped {
		t.Errorf("%+v, %v", st, err)
	}
	if b, err := os.ReadFile(h.rootDir("fresh") + "/etc/x"); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

// The last run may only have stopped the guest.
func TestRevertOfAStop(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	must(t, h.Create(ctx, inMode(api.ModeNAT, "stopped", 904, "sleep", "1000")))
	must(t, h.Start(ctx, "stopped", Options{}))
	must(t, h.Keep(ctx, "stopped", Change{Run: "run-1"}, nil))
	_, err := h.Stop(ctx, "stopped")
	must(t, err)
	if got := revert(t, h, "stopped", api.Newest); got != api.Changed {
		t.Errorf("%s", got)
	}
	if st, err := h.State("stopped"); err != nil || st.Status != api.Running {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := h.Revert(ctx, "stopped", api.Newest, Options{}); !errors.Is(err, generation.ErrNone) {
		t.Errorf("all was put back: %v", err)
	}
}

// Later generations are put back before earlier ones.
func TestRevertSeveralRuns(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	g := inMode(api.ModeNAT, "often", 903, "sleep", "1000")
	must(t, h.Create(ctx, g))
	g, err := readGuest(h, "often")
	must(t, err)
	state := map[string]string{}
	for i := range 7 {
		run := fmt.Sprintf("run-%d", i)
		state[run] = likeness(t, h, "often")
		g.Hostname = fmt.Sprintf("name%d", i)
		change(t, h, run, g, file("/etc/x", run), file(fmt.Sprintf("/etc/x%d", i%3), run))
	}
	kept, err := h.Generations(ctx)
	must(t, err)
	if len(kept) != 5 || kept[0].Run != "run-6" || kept[4].Run != "run-2" || kept[0].Number != 7 || len(kept[0].Files) != 2 || !kept[0].Config {
		t.Errorf("kept: %+v", kept)
	}
	for _, row := range []struct{ which, want string }{
		{api.Newest, "run-6"}, {"run-3", "run-3"}, {"run-4", ""}, {api.Newest, "run-2"}, {api.Newest, ""},
	} {
		got := revert(t, h, "often", row.which)
		if (got == api.Changed) != (row.want != "") {
			t.Errorf("%s: %s", row.which, got)
		}
		if row.want != "" && likeness(t, h, "often") != state[row.want] {
			t.Errorf("%s:\n%s\nwant\n%s", row.which, likeness(t, h, "often"), state[row.want])
		}
	}
}

// What cannot be kept is named at once, and again when the rest has been put back.
func TestRevertNamesWhatItCannotPutBack(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	must(t, h.Create(ctx, inMode(api.ModeNAT, "odd", 904, "sleep", "1000")))
	must(t, unix.Mkfifo(h.rootDir("odd")+"/etc/pipe", 0o644))
	must(t, os.WriteFile(h.rootDir("odd")+"/etc/huge", nil, 0o644))
	must(t, os.Truncate(h.rootDir("odd")+"/etc/huge", 65<<20))
	var warned []string
	files := []api.File{file("/etc/pipe", "a"), file("/etc/huge", "b"), file("/etc/new", "c")}
	must(t, h.Keep(ctx, "odd", Change{Run: "run-1", Files: files}, func(text string) { warned = append(warned, text) }))
	if got := strings.Join(warned, "\n"); got != "/etc/pipe is a pipe: a revert could not put it back\n/etc/huge is a file of 65 MiB: a revert could not put it back" {
		t.Errorf("warned: %s", got)
	}
	_, err := h.Provide(ctx, "odd", files)
	must(t, err)
	outcome, err := h.Revert(ctx, "odd", "run-1", Options{})
	if outcome != api.Changed || err == nil || err.Error() != "revert guest odd: all is as before, except for /etc/pipe, which was a pipe, /etc/huge, which was a file of 65 MiB" {
		t.Errorf("%s, %v", outcome, err)
	}
	if _, err := os.Lstat(h.rootDir("odd") + "/etc/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the rest: %v", err)
	}
}

// A guest of the same name has nothing of a deleted one.
func TestGenerationsEndWithTheGuest(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	g := inMode(api.ModeNAT, "gone", 905, "sleep", "1000")
	must(t, h.Create(ctx, g))
	change(t, h, "run-1", g)
	must(t, h.Delete(ctx, "gone"))
	must(t, h.Create(ctx, g))
	change(t, h, "run-2", g)
	must(t, os.RemoveAll(h.config("gone")))
	must(t, os.RemoveAll(h.data("gone")))
	must(t, h.Keep(ctx, "gone", Change{Run: "run-3", Config: true}, nil))
	kept, err := h.Generations(ctx)
	if err != nil || len(kept) != 1 || kept[0].Run != "run-3" || !kept[0].Created {
		t.Errorf("%+v, %v", kept, err)
	}
	if outcome, err := h.ForgetGenerations(context.WithoutCancel(ctx), "gone"); err != nil || outcome != api.Changed {
		t.Errorf("%s, %v", outcome, err)
	}
}

// changeAll changes all that a run can change of a guest.
func changeAll(h *Host, name string) error {
	ctx := context.Background()
	files := []api.File{file("/etc/own", "new\n"), file("/etc/none", "new\n")}
	g, err := readGuest(h, name)
	if err != nil {
		return err
	}
	g.Hostname, g.Network.Forwards = "other", nil
	if err := h.Keep(ctx, name, Change{Run: "run-1", Config: true, Files: files}, func(string) {}); err != nil {
		return err
	}
	if _, err := h.Configure(ctx, g); err != nil {
		return err
	}
	if _, err := h.Provide(ctx, name, files); err != nil {
		return err
	}
	return h.Restart(ctx, name, Options{})
}

// A vsnode is killed before one of the calls by which it changes something, of a change or of
// the revert: a revert puts all back.
func TestRevertAfterAKill(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	must(t, h.Create(ctx, inMode(api.ModeNAT, "cut", 906, "sleep", "1000")))
	_, err := h.Provide(ctx, "cut", []api.File{file("/etc/own", "old\n")})
	must(t, err)
	must(t, h.Start(ctx, "cut", Options{}))
	before := likeness(t, h, "cut")
	for verb, prepare := range map[string]func() error{
		"change": func() error { return nil },
		"revert": func() error { return changeAll(h, "cut") },
	} {
		must(t, prepare())
		whole := killBefore(t, 0, verb, "cut", filepath.Dir(h.DataDir))
		if verb == "change" {
			revert(t, h, "cut", "run-1")
		}
		for _, k := range killtest.Steps(t, whole.Changes, 12) {
			must(t, prepare())
			killBefore(t, k, verb, "cut", filepath.Dir(h.DataDir))
			revert(t, h, "cut", "run-1")
			if after := likeness(t, h, "cut"); after != before {
				t.Fatalf("%s killed before change %d:\n%s\nbefore:\n%s", verb, k, after, before)
			}
			if st, err := h.State("cut"); err != nil || st.Runs != nil {
				t.Fatalf("%s killed before change %d: it runs otherwise than configured: %+v, %v", verb, k, st, err)
			}
		}
	}
}

// A guest may end at any moment, and its processes do so one after the other: files are
// written into what is left of it.
func TestFilesOfAGuestThatEnds(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	g := inMode(api.ModeNAT, "ending", 907, "sh", "-c", "for i in $(seq 300); do sleep 1000 & done; >/run/ready; wait")
	must(t, h.Create(ctx, g))
	for i := range 5 {
		must(t, h.Start(ctx, g.Name, Options{}))
		if out, code := run(t, h, g.Name, "sh", "-c", "until ls /run/ready; do sleep 0.01; done 2>/run/none"); code != 0 {
			t.Fatal(out)
		}
		must(t, h.Signal(g.Name, InitProcess, unix.SIGKILL))
		text := fmt.Sprintln("try", i)
		_, err := h.Provide(ctx, g.Name, []api.File{file("/etc/own", text)})
		must(t, err)
		if b, err := os.ReadFile(h.rootDir(g.Name) + "/etc/own"); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
		_, err = h.Stop(ctx, g.Name)
		must(t, err)
	}
}
