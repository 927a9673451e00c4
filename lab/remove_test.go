package lab

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemoveTreeStaysInside: files outside, behind a link or a mount, must survive.
func TestRemoveTreeStaysInside(t *testing.T) {
	for _, row := range []struct {
		name    string
		lay     func(t *testing.T, outside, tree string)
		refused bool
	}{
		{"a symlink to a directory outside is unlinked", func(t *testing.T, outside, tree string) {
			must(t, os.Symlink(outside, filepath.Join(tree, "link")))
		}, false},
		{"the tree itself is a symlink", func(t *testing.T, outside, tree string) {
			must(t, os.Remove(tree))
			must(t, os.Symlink(outside, tree))
		}, false},
		{"a directory mounted below is not entered", func(t *testing.T, outside, tree string) {
			mountPoint := filepath.Join(tree, "a", "b")
			must(t, os.MkdirAll(mountPoint, 0o755))
			must(t, unix.Mount(outside, mountPoint, "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(mountPoint, 0)) })
		}, true},
		{"a directory of the same filesystem mounted on the tree itself is not entered", func(t *testing.T, outside, tree string) {
			must(t, unix.Mount(outside, tree, "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(tree, 0)) })
		}, true},
		{"files, pipes and unreadable directories go", func(t *testing.T, _, tree string) {
			must(t, os.MkdirAll(filepath.Join(tree, "a/b/c"), 0o755))
			must(t, os.WriteFile(filepath.Join(tree, "a/b/file"), nil, 0))
			must(t, unix.Mkfifo(filepath.Join(tree, "a/pipe"), 0))
			must(t, os.Chmod(filepath.Join(tree, "a"), 0))
		}, false},
		{"a tree that is not there is no error", func(t *testing.T, _, tree string) { must(t, os.Remove(tree)) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			outside, tree := filepath.Join(dir, "outside"), filepath.Join(dir, "tree")
			must(t, os.MkdirAll(filepath.Join(outside, "dear"), 0o755))
			must(t, os.WriteFile(filepath.Join(outside, "dear/file"), []byte("x"), 0o644))
			must(t, os.Mkdir(tree, 0o755))
			row.lay(t, outside, tree)
			mountErr := refuseMounts(tree)
			err := removeTree(tree)
			if (err != nil) != row.refused || (mountErr != nil) != row.refused {
				t.Errorf("removeTree: %v; refuseMounts: %v", err, mountErr)
			}
			if _, err := os.Stat(filepath.Join(outside, "dear/file")); err != nil {
				t.Errorf("a file outside was lost: %v", err)
			}
			if _, err := os.Lstat(tree); !row.refused && !os.IsNotExist(err) {
				t.Errorf("the tree is still there: %v", err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
