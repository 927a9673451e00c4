package guest

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// described makes the host's tree, as it is now, an image of a store, and has guests
// start on that. It returns the store.
func described(t *testing.T, h *Host) (*images.Store, api.Image) {
	t.Helper()
	dir, err := h.Tree(t.Context(), "", "")
	must(t, err)
	store, err := images.Open(filepath.Join(filepath.Dir(dir), "images", ".images"))
	must(t, err)
	path := filepath.Join(t.TempDir(), "tree.tar")
	must(t, pack(dir, path))
	img, _, err := store.Build(t.Context(), api.ImageSpec{Name: "base", Method: "template", Args: []string{"-t", path}}, nil)
	must(t, err)
	root, err := store.Root(img.ID)
	must(t, err)
	if _, ok := (procctx.Root{Image: root}).Described(); !ok {
		t.Fatalf("%s is not a description", root)
	}
	h.Tree = store.Tree
	return store, img
}

func pack(dir, path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	return errors.Join(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link, _ := os.Readlink(path)
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name = strings.TrimPrefix(path, dir+"/")
		if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(w, file)
		return err
	}), w.Close(), f.Close())
}

// A guest on a description and objects sees what one on a plain tree would see.
func TestAGuestOnADescription(t *testing.T) {
	h := host(t)
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	must(t, os.MkdirAll(tree+"/srv/dir", 0o755))
	large := strings.Repeat("large ", 50_000)
	for name, content := range map[string]string{"small": "small\n", "empty": "", "large": large, "written": large, "moved": large, "removed": large, "dir/x": large} {
		must(t, os.WriteFile(tree+"/srv/"+name, []byte(content), 0o640))
		must(t, os.Chown(tree+"/srv/"+name, 33, 34))
	}
	must(t, os.Symlink("/lib/systemd/nothing", tree+"/srv/link"))
	store, img := described(t, h)
	g := inMode(api.ModeNAT, "described", 152, "sleep", "1000")
	g.Image = img.ID
	configured(t, h, g, nil)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if on, err := h.OnPlainTree(img.ID); err != nil || on {
		t.Errorf("it runs on a plain tree: %v, %v", on, err)
	}
	for _, row := range []struct{ what, script, want string }{
		{"names", "ls /; ls -a /srv", "bin\ndev\netc\nproc\nrun\nsrv\nsys\ntmp\n.\n..\ndir\nempty\nlarge\nlink\nmoved\nremoved\nsmall\nwritten"},
		{"owner and mode", "busybox stat -c '%a %u:%g %s' /srv/large /srv/empty /srv/small", "640 33:34 300000\n640 33:34 0\n640 33:34 6"},
		{"content", "cat /srv/small; busybox head -c 12 /srv/large; busybox wc -c < /srv/large", "small\nlarge large 300000"},
		{"a link", "busybox readlink /srv/link", "/lib/systemd/nothing"},
		{"a new owner", "busybox chown 7:8 /srv/large; busybox stat -c %u:%g /srv/large; busybox wc -c < /srv/large", "7:8\n300000"},
		{"a write", "echo end >> /srv/written; busybox tail -c 4 /srv/written; busybox wc -c < /srv/written", "end\n300004"},
		{"a move", "busybox mv /srv/moved /tmp/there; busybox chmod 600 /tmp/there; busybox wc -c < /tmp/there", "300000"},
		{"a moved directory", "busybox mv /srv/dir /srv/else; busybox wc -c < /srv/else/x", "300000"},
		{"a hard link", "busybox ln /srv/else/x /srv/y; busybox stat -c %h /srv/y; busybox wc -c < /srv/y", "2\n300000"},
		{"a removal", "busybox rm /srv/removed; cat /srv/removed 2>&1", "cat: can't open '/srv/removed': No such file or directory"},
		{"nothing of the store", "for d in 00 7f ff objects .store; do ls -d /$d 2>/dev/null; done; echo none", "none"},
		{"a directory of such a name", "busybox mkdir /00 && echo mine > /00/x && cat /00/x; ls /00", "mine\nx"},
		{"a program", "busybox cp /bin/busybox /tmp/busybox; /tmp/busybox echo works", "works"},
		{"nodev", "grep -o ' / .*nodev' /proc/mounts | wc -l; mount -o remount,bind,dev / 2>/dev/null && echo lifted || echo locked", "1\nlocked"},
	} {
		if out, _ := run(t, h, g.Name, "sh", "-c", row.script); strings.TrimSpace(out) != row.want {
			t.Errorf("%s: %s: %q, want %q", row.what, row.script, out, row.want)
		}
	}
	var st unix.Stat_t
	must(t, unix.Stat(h.rootDir(g.Name)+"/srv/large", &st))
	if st.Blocks*512 > 16<<10 {
		t.Errorf("a new owner costs %d bytes", st.Blocks*512)
	}
	if c, err := store.Check(t.Context(), func(string) ([]string, error) { return nil, nil }); err != nil || len(c.Damaged) > 0 {
		t.Errorf("the guest damaged the store: %+v, %v", c, err)
	}
	// The same after a restart, and for files that are put in while it does not run.
	_, err = h.Stop(t.Context(), g.Name)
	must(t, err)
	_, err = h.Provide(t.Context(), g.Name, []api.File{{Path: "/srv/small", Content: []byte("provided\n"), Digest: api.FileDigest([]byte("provided\n")), Mode: 0o644, Owner: "0:0"}})
	must(t, err)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if out, _ := run(t, h, g.Name, "sh", "-c", "cat /srv/small; busybox wc -c < /srv/large; busybox wc -c < /srv/y"); out != "provided\n300000\n300000" {
		t.Errorf("after a restart: %q", out)
	}
}

// A guest whose image was a plain tree keeps what it changed when the image is taken over.
func TestAGuestWhoseImageIsTakenOver(t *testing.T) {
	h := host(t)
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	must(t, os.MkdirAll(tree+"/srv/dir", 0o755))
	for _, name := range []string{"owned", "moved", "dir/x"} {
		must(t, os.WriteFile(tree+"/srv/"+name, []byte(strings.Repeat("data ", 5000)), 0o644))
	}
	plain := h.Tree
	store, img := described(t, h)
	composed := h.Tree
	h.Tree = plain
	g := inMode(api.ModeNAT, "taken", 153, "sleep", "1000")
	g.Image = img.ID
	configured(t, h, g, nil)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if on, err := h.OnPlainTree(img.ID); err != nil || !on {
		t.Errorf("it does not run on a plain tree: %v, %v", on, err)
	}
	const look = "busybox stat -c '%n %a %u' /srv/owned /tmp/moved /srv/else/x; busybox md5sum /srv/owned /tmp/moved /srv/else/x; ls -a / /srv /tmp"
	run(t, h, g.Name, "sh", "-c", "cd /srv; busybox chown 33 owned; busybox chmod 600 moved; busybox mv moved /tmp; busybox mv dir else")
	before, _ := run(t, h, g.Name, "sh", "-c", look)
	_, err = h.Stop(t.Context(), g.Name)
	must(t, err)
	h.Tree = composed
	must(t, os.RemoveAll(tree))
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if after, _ := run(t, h, g.Name, "sh", "-c", look); after != before || !strings.Contains(after, "/srv/owned 644 33") {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if root, err := store.Root(img.ID); err != nil || filepath.Base(root) != procctx.DescriptionFile {
		t.Errorf("root %s, %v", root, err)
	}
}
