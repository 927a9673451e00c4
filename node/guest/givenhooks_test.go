package guest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/hook"
)

// The host names what a guest cannot start without, unless its hooks may make that.
func TestWhatAGuestCannotStartWithout(t *testing.T) {
	h := host(t)
	dir := t.TempDir()
	must(t, os.Symlink(dir, dir+"/link"))
	ask := func(guest string) []string {
		t.Helper()
		answer, err := h.Files(t.Context(), api.FilesRequest{Guests: []api.GuestFiles{{
			Guest: guest, Sources: []string{dir, dir + "/none", dir + "/link"}, Devices: []string{"/dev/null", dir + "/dev", dir},
		}}})
		must(t, err)
		if len(answer.Guests) == 0 {
			return nil
		}
		return answer.Guests[0].Missing
	}
	want := []string{
		"mounts: open " + dir + "/none: no such file or directory on the host: make it, or add nofail",
		"mounts: " + dir + "/link leads over a symbolic link: give the path without (readlink -f)",
		"device " + dir + "/dev: no such file or directory on the host (is its module loaded?)", "device " + dir + ": " + dir + " is not a device",
	}
	if got := ask("not-there"); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	must(t, h.Create(t.Context(), inMode(api.ModeNAT, "lacks", 909, "sleep", "1000")))
	if got := ask("lacks"); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	writeFiles(t, h, "lacks", map[string]string{"scripts/prepre-start": "mkdir -p " + dir + "/none\n"})
	if got := ask("lacks"); got != nil {
		t.Errorf("%q, though a hook may make it", got)
	}
}

// A hook of an inventory is a file of the guest's configuration beside those that an
// administrator wrote. It comes, changes and goes by itself.
func TestHooksOfAnInventory(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	must(t, h.Create(ctx, inMode(api.ModeNAT, "hooked", 908, "sleep", "1000")))
	writeFiles(t, h, "hooked", map[string]string{"scripts/post-start": "echo by hand $1\n"})
	given := file(setting.HookFile("post-start"), "#!/bin/sh\necho given $1 $2\n")
	given.Mode = 0o755
	change := func(run string, f api.File) api.Outcome {
		t.Helper()
		must(t, h.Keep(ctx, "hooked", Change{Run: run, Files: []api.File{f}}, nil))
		outcome, err := h.Provide(ctx, "hooked", []api.File{f})
		must(t, err)
		return outcome
	}
	says := func(want string) {
		t.Helper()
		var said []string
		must(t, h.Restart(WithOutput(ctx, func(line string) { said = append(said, line) }), "hooked", Options{}))
		if got := strings.Join(said, "\n"); got != want {
			t.Errorf("the hooks say %q, want %q", got, want)
		}
	}
	asked := func(f api.File, contents bool) []api.FileState {
		t.Helper()
		answer, err := h.Files(ctx, api.FilesRequest{Guests: []api.GuestFiles{{Guest: "hooked", Files: []api.File{f}}}, Contents: contents})
		must(t, err)
		return answer.Guests[0].Files
	}

	if got := change("run-1", given); got != api.Changed {
		t.Error(got)
	}
	var st unix.Stat_t
	path := filepath.Join(h.config("hooked"), given.Path)
	must(t, unix.Stat(path, &st))
	if st.Uid != 0 || st.Gid != 0 || st.Mode&0o7777 != 0o755 {
		t.Errorf("it is %o of %d:%d", st.Mode, st.Uid, st.Gid)
	}
	if state, err := h.State("hooked"); err != nil || !slices.Equal(state.Hooks, []string{"post-start"}) || state.Unread != nil {
		t.Errorf("%q, %v, %v", state.Hooks, state.Unread, err)
	}
	says("post-start: by hand post-start\npost-start: given post-start hooked")
	if got := asked(given, true); got != nil || change("run-1", given) != api.Unchanged {
		t.Errorf("it differs: %+v", got)
	}

	gone := api.File{Path: given.Path, Absent: true}
	if got := asked(gone, true); len(got) != 1 || got[0].Differs == "" || string(got[0].Content) != string(given.Content) {
		t.Errorf("%+v", got)
	}
	must(t, os.Chmod(path, 0o700))
	if got := asked(gone, true); len(got) != 1 || got[0].Content != nil {
		t.Errorf("a secret is shown: %+v", got)
	}
	must(t, os.Chmod(path, 0o755))
	if got := change("run-2", gone); got != api.Changed {
		t.Error(got)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) || asked(gone, true) != nil {
		t.Errorf("it is left: %v", err)
	}
	says("post-start: by hand post-start")
	revert(t, h, "hooked", "run-2")
	says("post-start: by hand post-start\npost-start: given post-start hooked")
	revert(t, h, "hooked", "run-1")
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}

	// What a guest can reach is not written to.
	if _, err := os.Lstat(filepath.Join(h.rootDir("hooked"), "scripts")); !os.IsNotExist(err) {
		t.Errorf("in the guest: %v, want %v", err, fs.ErrNotExist)
	}
	for i, phase := range hook.Phases {
		if setting.HookPhases[i] != string(phase) || len(setting.HookPhases) != len(hook.Phases) {
			t.Errorf("moments are %q and %q", setting.HookPhases, hook.Phases)
		}
	}
}
