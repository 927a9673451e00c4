package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// A guest that moves to another image keeps what it changed: files with owners of its own
// get the new data, those that the new image lacks keep the old.
func TestAnotherImageBelowFilesWithOwnersOfTheirOwn(t *testing.T) {
	h := host(t)
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	newer := tree + "-newer"
	must(t, os.MkdirAll(tree+"/srv/dir", 0o755))
	long := strings.Repeat("old ", 5000)
	for _, name := range []string{"same", "gone", "dir/moved", "fifo"} {
		must(t, os.WriteFile(tree+"/srv/"+name, []byte(long), 0o644))
	}
	must(t, exec.Command("cp", "-a", tree, newer).Run())
	must(t, errors.Join(os.RemoveAll(newer+"/srv/gone"), os.Remove(newer+"/srv/fifo"), unix.Mkfifo(newer+"/srv/fifo", 0o644),
		os.WriteFile(newer+"/srv/same", []byte("new"), 0o644)))
	h.Tree = func(_ context.Context, _, id string) (string, error) {
		dir, there := map[string]string{"sha256:old": tree, "sha256:new": newer}[id]
		if !there {
			return "", fmt.Errorf("image %s is not on this host", id)
		}
		return dir, nil
	}
	g := inMode(api.ModeNAT, "rebased", 150, "sleep", "1000")
	g.Image = "sha256:old"
	configured(t, h, g, nil)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	run(t, h, g.Name, "sh", "-c", "chown 33:33 /srv/same /srv/gone /srv/dir/moved /srv/fifo; busybox mv /srv/dir/moved /srv/there; busybox mv /srv/dir /srv/else")
	_, err = h.Stop(t.Context(), g.Name)
	must(t, err)
	var before unix.Stat_t
	must(t, unix.Stat(h.rootDir(g.Name)+"/srv/gone", &before))

	writeFiles(t, h, g.Name, map[string]string{"image": "sha256:new\n"})
	if bases, err := h.Bases(); err != nil || bases["sha256:old"] != "rebased (until its next start)" {
		t.Errorf("bases are %v, %v; the old image is still needed", bases, err)
	}
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if bases, err := h.Bases(); err != nil || len(bases) != 0 {
		t.Errorf("bases after the start: %v, %v", bases, err)
	}
	must(t, os.RemoveAll(tree)) // nothing of it is used any more
	for _, row := range []struct{ what, file, size, content string }{
		{"both images have it", "/srv/same", "3", "new"},
		{"only the old one has it", "/srv/gone", "20000", "old"},
		{"it was moved", "/srv/there", "20000", "old"},
		{"it is another kind in the new one", "/srv/fifo", "20000", "old"},
	} {
		out, _ := run(t, h, g.Name, "sh", "-c", fmt.Sprintf("busybox stat -c '%%s %%u' %[1]s; busybox cut -c 1-3 %[1]s; busybox wc -c < %[1]s", row.file))
		if want := row.size + " 33\n" + row.content + "\n" + row.size; strings.TrimSpace(out) != want {
			t.Errorf("%s: %s is %q, want %q", row.what, row.file, out, want)
		}
	}
	var after unix.Stat_t
	must(t, unix.Stat(h.rootDir(g.Name)+"/srv/gone", &after))
	if before.Mtim != after.Mtim {
		t.Errorf("time of modification was %v and is %v", time.Unix(before.Mtim.Unix()), time.Unix(after.Mtim.Unix()))
	}
}
