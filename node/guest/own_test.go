package guest

import (
	"os"
	"testing"
)

// A copy of a guest's files, which a failed upgrade puts back, needs the tree that they were
// above.
func TestACopyOfFilesKeepsTheTreeBelow(t *testing.T) {
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-test-own-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	for _, sub := range []string{"/g/root", "/g/.root.kept-1"} {
		must(t, os.MkdirAll(dir+sub, 0o755))
	}
	have := own{id: "sha256:own", image: "sha256:base"}
	must(t, have.note(dir+"/g/root"))
	from, err := os.Open(dir + "/g/root")
	must(t, err)
	defer from.Close()
	must(t, likeRoot(from, dir+"/g/.root.kept-1"))
	must(t, os.RemoveAll(dir+"/g/root"))
	if o, err := ownOf(dir + "/g/.root.kept-1"); err != nil || o != have {
		t.Errorf("the copy is above %+v, %v", o, err)
	}
	h := &Host{Paths: Paths{DataDir: dir}}
	if owns, err := h.Owns(); err != nil || owns[have.id] != "g" {
		t.Errorf("used are %v, %v", owns, err)
	}
}
