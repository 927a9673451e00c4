package shadow

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/images/tree"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files makes files below dir: "a/b" with its content, "a/" a directory, "l -> x" a link.
func files(t *testing.T, dir string, content map[string]string) {
	t.Helper()
	for name, text := range content {
		name, target, link := strings.Cut(name, " -> ")
		at := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		switch {
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(at, 0o755))
			continue
		case link:
			must(t, os.Symlink(target, at))
			continue
		}
		must(t, os.WriteFile(at, []byte(text), 0o644))
		old := time.Unix(1e9+int64(len(text)), 0)
		must(t, os.Chtimes(at, old, old))
	}
}

func index(t *testing.T, content map[string]string) Index {
	t.Helper()
	dir := t.TempDir()
	files(t, dir, content)
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	_, err := tree.Record(t.Context(), dir, w)
	must(t, err)
	must(t, w.Flush())
	x := Index{}
	_, err = tree.ReadManifest(&b, x.Add)
	must(t, err)
	return x
}

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func whiteout(t *testing.T, at string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(at), 0o755))
	must(t, unix.Mknod(at, unix.S_IFCHR, 0))
}

func attribute(t *testing.T, at, name, value string) {
	t.Helper()
	must(t, unix.Setxattr(at, name, []byte(value), 0))
}

func TestFind(t *testing.T) {
	const hostile = "usr/\x1b[2J\nevil"
	from := index(t, map[string]string{
		"usr/bin/tool": "1", "usr/lib/libc.so": "old", "usr/share/doc/a": "a1", "usr/share/doc/b": "b1", "usr/same": "same", "usr/gone": "gone",
		"etc/conf": "1", "var/lib/dpkg/status": "1", "usr/link -> one": "", "opt/was": "file", hostile: "1",
	})
	to := index(t, map[string]string{
		"usr/bin/tool": "22", "usr/lib/libc.so": "newer", "usr/share/doc/a": "a22", "usr/share/doc/b": "b22", "usr/same": "same", "usr/new": "new",
		"etc/conf": "22", "var/lib/dpkg/status": "22", "usr/link -> two": "", "opt/was/": "", hostile: "22",
	})
	kinds := func(list ...string) []string { return list }
	for _, row := range []struct {
		what string
		make func(dir string)
		want []string
	}{
		{"a guest that has nothing of its own", func(string) {}, nil},
		{"files that the images have in common", func(dir string) { files(t, dir, map[string]string{"usr/same": "mine"}) }, nil},
		{"changed", func(dir string) { files(t, dir, map[string]string{"usr/bin/tool": "mine", "etc/conf": "mine"}) }, kinds("/etc/conf changed", "/usr/bin/tool changed")},
		{"the database of packages comes first", func(dir string) { files(t, dir, map[string]string{"etc/conf": "mine", "var/lib/dpkg/status": "mine"}) },
			kinds("/var/lib/dpkg/status changed", "/etc/conf changed")},
		{"upgraded to what the image has now", func(dir string) { files(t, dir, map[string]string{"usr/lib/libc.so": "newer", "usr/bin/tool": "33"}) }, nil},
		{"written within the second of what the image has, and as long", func(dir string) {
			files(t, dir, map[string]string{"usr/bin/tool": "33"})
			must(t, os.Chtimes(dir+"/usr/bin/tool", time.Now(), time.Unix(1e9+2, 1)))
		}, kinds("/usr/bin/tool changed")},
		{"of the length of what the image has, and not of its time", func(dir string) {
			files(t, dir, map[string]string{"usr/bin/tool": "33"})
			must(t, os.Chtimes(dir+"/usr/bin/tool", time.Now(), time.Now()))
		}, kinds("/usr/bin/tool changed")},
		{"a file of its own that the image gets", func(dir string) { files(t, dir, map[string]string{"usr/new": "mine"}) }, kinds("/usr/new changed")},
		{"a file of its own that the image gives up", func(dir string) { files(t, dir, map[string]string{"usr/gone": "mine"}) }, kinds("/usr/gone changed")},
		{"removed", func(dir string) { whiteout(t, dir+"/usr/bin/tool") }, kinds("/usr/bin/tool removed")},
		{"removed by both", func(dir string) { whiteout(t, dir+"/usr/gone") }, nil},
		{"a directory is removed", func(dir string) { whiteout(t, dir+"/usr/share/doc") }, kinds("/usr/share/doc/a removed stays", "/usr/share/doc/b removed stays")},
		{"a directory is made anew", func(dir string) {
			files(t, dir, map[string]string{"usr/share/doc/b": "mine"})
			attribute(t, dir+"/usr/share/doc", opaqueAttr, "y")
		}, kinds("/usr/share/doc/a removed stays", "/usr/share/doc/b changed stays")},
		{"a directory above is made anew", func(dir string) {
			files(t, dir, map[string]string{"usr/share/doc/": ""})
			attribute(t, dir+"/usr/share", opaqueAttr, "y")
		}, kinds("/usr/share/doc/a removed stays", "/usr/share/doc/b removed stays")},
		{"a directory of another place is there", func(dir string) {
			files(t, dir, map[string]string{"usr/share/doc/": ""})
			attribute(t, dir+"/usr/share/doc", redirectAttr, "/usr/lib")
		}, kinds("/usr/share/doc/a removed stays", "/usr/share/doc/b removed stays")},
		{"only the mode is its own", func(dir string) {
			files(t, dir, map[string]string{"usr/bin/tool": "", "etc/conf": "mine"})
			attribute(t, dir+"/usr/bin/tool", metacopyAttr, "")
		}, kinds("/etc/conf changed", "/usr/bin/tool attributes")},
		{"a directory in place of a file", func(dir string) { files(t, dir, map[string]string{"usr/bin/tool/x": ""}) }, kinds("/usr/bin/tool changed stays")},
		{"a file where the image gets a directory", func(dir string) { files(t, dir, map[string]string{"opt/was": "mine"}) }, kinds("/opt/was changed")},
		{"a link in place of a directory, out of the root", func(dir string) {
			outside := t.TempDir()
			files(t, outside, map[string]string{"tool": "secret"})
			files(t, dir, map[string]string{"usr/": "", "usr/bin -> " + outside: ""})
		}, kinds("/usr/bin/tool removed stays")},
		{"a link in place of a file", func(dir string) { files(t, dir, map[string]string{"usr/bin/tool -> /etc/shadow": ""}) }, kinds("/usr/bin/tool changed")},
		{"another link", func(dir string) { files(t, dir, map[string]string{"usr/link -> three": ""}) }, kinds("/usr/link changed")},
		{"a FIFO, which nobody waits for", func(dir string) {
			files(t, dir, map[string]string{"usr/bin/": ""})
			must(t, unix.Mkfifo(dir+"/usr/bin/tool", 0o600))
		}, kinds("/usr/bin/tool changed")},
		{"a name that a terminal must not see", func(dir string) { files(t, dir, map[string]string{hostile: "mine"}) }, kinds("/" + hostile + " changed")},
		{"names of the guest's are not read", func(dir string) {
			for i := range 2000 {
				files(t, dir, map[string]string{fmt.Sprintf("usr/bin/%d\x1b", i): "x"})
			}
		}, nil},
	} {
		t.Run(row.what, func(t *testing.T) {
			dir := t.TempDir()
			row.make(dir)
			found, err := Find(t.Context(), open(t, dir), from, to, nil)
			must(t, err)
			var got []string
			for _, f := range found {
				text := f.Path + " " + string(f.Kind)
				if f.Stays {
					text += " stays"
				}
				got = append(got, text)
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// TestMove: what is taken and merged comes back, whatever happens in between.
func TestMove(t *testing.T) {
	merge := func(from, to, name string, guest []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%s→%s %s", from, to, guest), nil
	}
	m := Move{From: "a", To: "b", Files: map[string]string{"lib/one": "", "db": Sum([]byte("a→b db")), "gone": "", "removed/x": ""}}
	before := map[string]string{"lib/one": "one", "db": "db", "kept": "kept", "removed/x": "x"}
	see := func(dir string) string {
		var list []string
		for _, name := range []string{"db", "gone", "kept", "lib/one", "removed/x"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			text := string(b)
			if err != nil {
				text = "-"
				if info, err := os.Lstat(filepath.Join(dir, name)); err == nil && info.Mode()&os.ModeDevice != 0 {
					text = "whiteout"
				}
			}
			list = append(list, text)
		}
		return strings.Join(list, ",")
	}
	const as, done = "db,whiteout,kept,one,x", "a→b db,-,kept,-,-"
	for _, row := range []struct {
		what          string
		between       func(s Store, dir string)
		after, stayed string
	}{
		{"nothing is written", func(Store, string) {}, as, ""},
		{"the same again", func(s Store, _ string) { must(t, s.Do(t.Context(), m)) }, as, ""},
		{"the merged file is written", func(_ Store, dir string) { files(t, dir, map[string]string{"db": "mine"}) }, "b→a mine,whiteout,kept,one,x", "db"},
		{"a file is made again", func(_ Store, dir string) { files(t, dir, map[string]string{"lib/one": "mine"}) }, "db,whiteout,kept,mine,x", "lib/one"},
		{"a link is made in its place", func(_ Store, dir string) { must(t, os.Symlink("/etc/passwd", dir+"/gone")) }, "db,link,kept,one,x", "gone"},
		{"its directory is removed", func(_ Store, dir string) { must(t, os.RemoveAll(dir+"/removed")) }, "db,whiteout,kept,one,-", ""},
		{"its directory becomes a link out of the root", func(_ Store, dir string) {
			must(t, os.RemoveAll(dir+"/lib"))
			must(t, os.Symlink(t.TempDir(), dir+"/lib"))
		}, "db,whiteout,kept,-,x", ""},
		{"killed after the first step", func(s Store, dir string) {
			must(t, s.Undo(t.Context(), m, func(string) {}))
			must(t, os.Link(dir+"/db", filepath.Join(s.Dir, Sum([]byte("db"))))) // kept, and not merged yet
		}, as, ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "root")
			files(t, dir, before)
			whiteout(t, dir+"/gone")
			must(t, os.Chmod(dir+"/db", 0o640))
			must(t, os.Chown(dir+"/db", 7, 8))
			s := Store{Dir: filepath.Join(top, "kept"), Upper: open(t, dir), Merge: merge}
			must(t, s.Begin(m))
			must(t, s.Do(t.Context(), m))
			if got := see(dir); got != done {
				t.Fatalf("after the move: %s, want %s", got, done)
			}
			var st unix.Stat_t
			if must(t, unix.Stat(dir+"/db", &st)); st.Mode&0o7777 != 0o640 || st.Uid != 7 || st.Gid != 8 {
				t.Errorf("the merged file has mode %o, owner %d:%d", st.Mode, st.Uid, st.Gid)
			}
			if last, err := s.Last(); err != nil || last.From != "a" || last.To != "b" || len(last.Files) != 4 {
				t.Errorf("the record is %+v, %v", last, err)
			}
			row.between(s, dir)
			var stayed []string
			for range 2 { // the second time there is nothing left to do
				must(t, s.Undo(t.Context(), m, func(name string) { stayed = append(stayed, name) }))
			}
			got := see(dir)
			if link, err := os.Readlink(dir + "/gone"); err == nil && link == "/etc/passwd" {
				b, _ := os.ReadFile(dir + "/gone")
				got = strings.Replace(got, string(b), "link", 1)
			}
			if got != row.after {
				t.Errorf("after it was undone: %s, want %s", got, row.after)
			}
			if slices.Sort(stayed); strings.Join(slices.Compact(stayed), ",") != row.stayed {
				t.Errorf("%v stayed, want %s", stayed, row.stayed)
			}
		})
	}
	t.Run("an interrupt", func(t *testing.T) {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := Store{Dir: dir + ".kept", Upper: open(t, dir), Merge: merge}
		must(t, s.Begin(m))
		if err := s.Do(ctx, m); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		must(t, os.RemoveAll(s.Dir))
	})
}
