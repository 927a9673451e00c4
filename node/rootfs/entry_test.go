package rootfs

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// What Look finds, Restore puts back, whatever is in the place by then.
func TestLookAndRestore(t *testing.T) {
	root := t.TempDir()
	open, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	defer open.Close()
	r := Dir{Root: open}
	outside := t.TempDir() + "/secret"
	must(t, os.WriteFile(outside, []byte("outside"), 0o600))
	states := map[string]func(){
		"nothing": func() {},
		"a file": func() {
			f := file("/dir/f", "content")
			f.Mode, f.Owner = 0o4711, "5:6"
			must(t, r.Write(f))
		},
		"an empty file":   func() { must(t, r.Write(file("/dir/f", ""))) },
		"a link out":      func() { must(t, os.Symlink(outside, root+"/dir/f")) },
		"a link in":       func() { must(t, os.Symlink("g", root+"/dir/f")) },
		"a killed write":  func() { must(t, os.WriteFile(root+"/dir/.f.vsfleet~", []byte("half"), 0o600)) },
		"another content": func() { must(t, r.Write(file("/dir/f", "other"))) },
	}
	empty := func() {
		must(t, os.RemoveAll(root+"/dir"))
		must(t, os.Mkdir(root+"/dir", 0o755))
	}
	for was, first := range states {
		for is, then := range states {
			if was == "a killed write" {
				continue
			}
			t.Run(was+", then "+is, func(t *testing.T) {
				empty()
				first()
				kept, err := r.Look("/dir/f", 100)
				must(t, err)
				empty()
				then()
				differs, err := r.Differs(kept)
				if err != nil || differs != (was != is) {
					t.Errorf("differs %t, %v", differs, err)
				}
				if differs {
					must(t, r.Restore(kept))
				}
				now, err := r.Look("/dir/f", 100)
				if err != nil || !now.same(kept) {
					t.Errorf("%+v, %v, want %+v", now, err, kept)
				}
				if list, err := os.ReadDir(root + "/dir"); err != nil || len(list) > 1 || len(list) == 1 && strings.HasPrefix(list[0].Name(), ".") {
					t.Errorf("left: %v, %v", list, err)
				}
			})
		}
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "outside" {
		t.Errorf("outside: %q, %v", b, err)
	}
}

func TestLookAtWhatCannotBePutBack(t *testing.T) {
	root := t.TempDir()
	open, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	defer open.Close()
	must(t, os.Mkdir(root+"/dir", 0o755))
	must(t, unix.Mkfifo(root+"/pipe", 0o644))
	must(t, os.WriteFile(root+"/large", []byte("12345"), 0o644))
	must(t, os.WriteFile(root+"/stranger", nil, 0o644))
	must(t, os.Chown(root+"/stranger", 1<<20, 0))
	for _, row := range []struct{ path, want string }{
		{"/dir", "a directory"}, {"/pipe", "a pipe"}, {"/large", "a file of 0 MiB"},
		{"/stranger", "a file of user 1048576 and group 0, who are not the guest's"}, {"/none/at/all", ""},
	} {
		e, err := Dir{Root: open}.Look(row.path, 4)
		if err != nil || e.Lost != row.want || e.Absent != (row.want == "") {
			t.Errorf("%s: %+v, %v", row.path, e, err)
		}
	}
	if e, err := (Dir{Root: open, Base: 1 << 20}).Look("/stranger", 4); err != nil || e.Lost == "" {
		t.Errorf("the host's group in a guest: %+v, %v", e, err)
	}
	if e, err := (Dir{Root: open}).Look("/large", 5); err != nil || string(e.Content) != "12345" || e.Digest != api.FileDigest([]byte("12345")) || e.Owner != "0:0" {
		t.Errorf("%+v, %v", e, err)
	}
}
