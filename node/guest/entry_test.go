package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// TestWhoEntersGetsWhatTheStartNoted: a running guest is entered as it was started,
// whether its configuration was edited, damaged or removed.
func TestWhoEntersGetsWhatTheStartNoted(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "entered", 124, "sleep", "1000")
	must(t, h.Create(ctx, g))
	dir := h.config(g.Name)
	put := func(file, text string) {
		t.Helper()
		path := filepath.Join(dir, file)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	put("bcapabilities", "~CHOWN\n")
	put("ulimits/nofile", "123\n")
	put("nice", "3\n")
	put("shell", "/bin/busybox\n")
	must(t, h.Start(ctx, g.Name, Options{}))

	look := func(when string) {
		t.Helper()
		out, code := run(t, h, g.Name, "sh", "-c", "grep CapBnd /proc/self/status; ulimit -n; read -r stat </proc/self/stat; set -- $stat; echo ${19}")
		want := fmt.Sprintf("CapBnd:\t%016x\n123\n3", uint64(procctx.DefaultCaps&^(1<<unix.CAP_CHOWN)))
		if code != 0 || out != want {
			t.Errorf("%s: exit status %d, %q; want %q", when, code, out, want)
		}
		if out, code := run(t, h, g.Name); code != 0 || !strings.HasPrefix(out, "BusyBox") {
			t.Errorf("%s: its shell: exit status %d, %q", when, code, out)
		}
		if _, err := h.User(g.Name, "0"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		ours, theirs, err := h.Terminal(ctx, g.Name)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		ours.Close()
		theirs.Close()
	}
	look("as started")

	put("bcapabilities", "~KILL\n")
	put("ulimits/nofile", "77\n")
	put("nice", "5\n")
	put("shell", "/bin/false\n")
	look("edited")

	put("context", "none\n")
	if _, err := h.Read(g.Name); err == nil {
		t.Fatal("the spoiled configuration can be read")
	}
	look("spoiled")

	aside := filepath.Join(t.TempDir(), "aside")
	must(t, os.Rename(dir, aside))
	look("gone")

	// Older vsnodes noted nothing: then the files count.
	st, err := h.readNotes(g.Name)
	must(t, err)
	st.Enter = nil
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, h.writeNotes(g.Name, cg, st))
	if _, err := h.Exec(ctx, g.Name, Program{Argv: []string{"true"}}); !errors.Is(err, ErrNoGuest) {
		t.Errorf("nothing noted and nothing configured: %v", err)
	}
	must(t, os.Rename(aside, dir))
	put("context", "124\n")
	if out, _ := run(t, h, g.Name, "sh", "-c", "ulimit -n; read -r stat </proc/self/stat; set -- $stat; echo ${19}"); out != "77\n5" {
		t.Errorf("nothing noted: %q", out)
	}
}
