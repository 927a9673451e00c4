package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A guest in util-vserver's layout, its root /var/lib/vservers/NAME, is deleted with its
// files; files elsewhere stay.
func TestDeleteTakesWhatIsBelowTheDataDirectory(t *testing.T) {
	for _, row := range []struct {
		what string
		root func(t *testing.T, p Paths) string // makes the guest's root
		want string                             // part of the error; "": it is deleted
	}{
		{"the data directory itself", func(t *testing.T, p Paths) string {
			return filepath.Join(p.DataDir, "old")
		}, ""},
		{"the data directory by another name", func(t *testing.T, p Paths) string {
			link := t.TempDir() + "/vservers"
			must(t, os.Symlink(p.DataDir, link))
			return link + "/old"
		}, ""},
		{"a directory elsewhere", func(t *testing.T, p Paths) string {
			return t.TempDir() + "/old"
		}, "outside"},
		{"a link in the data directory to one elsewhere", func(t *testing.T, p Paths) string {
			must(t, os.Symlink(t.TempDir(), filepath.Join(p.DataDir, "old")))
			return filepath.Join(p.DataDir, "old")
		}, "outside"},
	} {
		t.Run(row.what, func(t *testing.T) {
			p := paths(t)
			must(t, os.MkdirAll(p.DataDir, 0o700))
			root := row.root(t, p)
			must(t, errors.Join(os.MkdirAll(root, 0o755), os.WriteFile(root+"/file", nil, 0o644)))
			plant(t, p, "old", map[string]string{"context": "42\n", "netns/nat": "", "vdir": "->" + root})
			err := (&Host{Paths: p}).Delete(t.Context(), "old")
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want %q", err, row.want)
			}
			_, ferr := os.Stat(root + "/file")
			_, cerr := os.Stat(p.config("old"))
			gone := errors.Is(ferr, fs.ErrNotExist) && errors.Is(cerr, fs.ErrNotExist)
			if gone != (row.want == "") || ferr != nil && row.want != "" {
				t.Errorf("files: %v, configuration: %v", ferr, cerr)
			}
		})
	}
}
