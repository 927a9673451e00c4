package rootfs

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

func file(path, content string) api.File {
	return api.File{Path: path, Content: []byte(content), Digest: api.FileDigest([]byte(content)), Mode: 0o644, Owner: "root:root"}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The content is beside until all of it is there, so a full disk changes
// nothing.
func TestFileOnAFullDisk(t *testing.T) {
	small := t.TempDir()
	must(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
	dir, err := os.OpenFile(small, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	defer dir.Close()
	r := Dir{Root: dir}
	must(t, r.Write(file("/f", "old")))
	if err := r.Write(file("/f", strings.Repeat("x", 128<<10))); err == nil {
		t.Error("it was written")
	}
	b, err := os.ReadFile(small + "/f")
	list, _ := os.ReadDir(small)
	if err != nil || string(b) != "old" || len(list) != 1 {
		t.Errorf("%q, %v, %v", b, err, list)
	}
}
