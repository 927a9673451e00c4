package generation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begin begins a generation with a configuration.
func begin(t *testing.T, s Store, run string) Generation {
	t.Helper()
	g, err := s.Begin("www", Generation{Run: run})
	must(t, err)
	must(t, s.AddConfig("www", run, func(dir string) error { return os.WriteFile(dir+"/context", []byte("5\n"), 0o644) }))
	g.HasConfig = true
	return g
}

// A killed call leaves a generation with all of a part or nothing of it, and the next
// call makes the part.
func TestAKilledCall(t *testing.T) {
	for _, row := range []struct {
		name string
		left func(t *testing.T, s Store) // beside a complete generation "old"
		want int                         // generations then
	}{
		{"before the record", func(t *testing.T, s Store) { must(t, os.MkdirAll(s.dir("www", "new"), 0o700)) }, 1},
		{"in the record", func(t *testing.T, s Store) {
			must(t, os.MkdirAll(s.dir("www", "new"), 0o700))
			must(t, os.WriteFile(s.record("www", "new"), []byte(`{"number`), 0o600))
		}, 1},
		{"in the configuration", func(t *testing.T, s Store) {
			_, err := s.Begin("www", Generation{Run: "new"})
			must(t, err)
			must(t, os.MkdirAll(s.Config("www", "new")+".new~/half", 0o700))
		}, 2},
		{"in a file", func(t *testing.T, s Store) {
			_, err := s.Begin("www", Generation{Run: "new"})
			must(t, err)
			must(t, os.MkdirAll(s.contents("www", "new"), 0o700))
			must(t, os.WriteFile(s.contents("www", "new")+"/0123.new~", []byte("half"), 0o600))
		}, 2},
		{"while it removes one", func(t *testing.T, s Store) {
			begin(t, s, "new")
			must(t, os.Remove(s.record("www", "new")))
		}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := Store(t.TempDir() + "/generations")
			begin(t, s, "old")
			row.left(t, s)
			list, err := s.List("www")
			if err != nil || len(list) != row.want || list[row.want-1].Run != "old" {
				t.Errorf("%+v, %v", list, err)
			}
			g, err := s.Find("www", "new")
			if errors.Is(err, ErrNone) {
				g = begin(t, s, "new")
			} else if !g.HasConfig {
				must(t, s.AddConfig("www", "new", func(string) error { return nil }))
			}
			must(t, s.AddFiles("www", g, []rootfs.Entry{{File: api.File{Path: "/x", Content: []byte("x"), Digest: api.FileDigest([]byte("x"))}}}))
			if g, err = s.Find("www", "new"); err != nil || !g.HasConfig || len(g.Files) != 1 {
				t.Errorf("then: %+v, %v", g, err)
			}
			if files, err := s.Contents("www", g); err != nil || len(files) != 1 || string(files[0].Content) != "x" {
				t.Errorf("files: %+v, %v", files, err)
			}
			must(t, s.RemoveAll("www"))
			if left, err := os.ReadDir(string(s)); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// A run that only starts or stops a guest pushes out nothing that is worth more.
func TestWhatIsKept(t *testing.T) {
	s := Store(t.TempDir() + "/generations")
	begin(t, s, "change")
	for i := range 20 {
		_, err := s.Begin("www", Generation{Run: fmt.Sprintf("start-%d", i)})
		must(t, err)
	}
	list, err := s.List("www")
	if err != nil || len(list) != 2 || list[0].Run != "start-19" || list[1].Run != "change" {
		t.Errorf("%+v, %v", list, err)
	}
	for i := range 2 * MaxKept {
		begin(t, s, fmt.Sprintf("change-%d", i))
	}
	if list, err = s.List("www"); err != nil || len(list) != MaxKept || list[MaxKept-1].Run != fmt.Sprintf("change-%d", MaxKept) {
		t.Errorf("%+v, %v", list, err)
	}
	if st, err := os.Stat(string(s)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestRunsThatAreNoNames(t *testing.T) {
	dir := t.TempDir()
	s := Store(dir + "/generations")
	for _, run := range []string{"", "..", "../../etc", "a/b", "a b", "a\n"} {
		if _, err := s.Begin("www", Generation{Run: run}); err == nil {
			t.Errorf("%q begins one", run)
		}
		if _, err := s.Find("www", run); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%q: %v", run, err)
		}
	}
	if list, _ := filepath.Glob(dir + "/*"); len(list) != 0 {
		t.Errorf("%v", list)
	}
}

// What was kept of a file is put back as it was, or not at all.
func TestDamagedContents(t *testing.T) {
	s := Store(t.TempDir())
	g := begin(t, s, "run")
	e := rootfs.Entry{File: api.File{Path: "/x", Content: []byte("x"), Digest: api.FileDigest([]byte("x"))}}
	must(t, s.AddFiles("www", g, []rootfs.Entry{e}))
	g, err := s.Find("www", "run")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.contents("www", "run"), contentName(e.Digest)), []byte("y"), 0o600))
	if _, err := s.Contents("www", g); err == nil || err.Error() != "/x: what was kept of it is damaged" {
		t.Errorf("%v", err)
	}
}
