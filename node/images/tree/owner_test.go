package tree

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An image holds no file of a user that no guest has, wherever the image comes from.
func TestOwnersThatNoGuestHas(t *testing.T) {
	for _, row := range []struct {
		name     string
		uid, gid int
		ok       bool
	}{
		{"root", 0, 0, true},
		{"the last ids", 65535, 65535, true},
		{"a user of a directory service", 65536, 100, false},
		{"a group of one", 100, 1_000_730_000, false},
	} {
		refused := func(err error) bool {
			return err != nil && strings.Contains(err.Error(), "ids 0 to 65535") && strings.Contains(err.Error(), "home/ada")
		}
		t.Run(row.name, func(t *testing.T) {
			var archive bytes.Buffer
			w := tar.NewWriter(&archive)
			must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "home/ada/", Mode: 0o755, Uid: row.uid, Gid: row.gid}))
			must(t, w.Close())
			if _, err := Extract(t.Context(), t.TempDir(), &archive, Empty); row.ok != (err == nil) || !row.ok && !refused(err) {
				t.Errorf("extract: %v", err)
			}
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "home/ada"), 0o755))
			must(t, os.Chown(filepath.Join(dir, "home/ada"), row.uid, row.gid))
			if _, err := Digest(t.Context(), dir); row.ok != (err == nil) || !row.ok && !refused(err) {
				t.Errorf("digest: %v", err)
			}
		})
	}
}
