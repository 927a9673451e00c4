package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

func TestHashify(t *testing.T) {
	s := newShared(t)
	names := []string{"a", "bb", "ccc"}
	before := map[string]string{}
	for i, name := range names {
		s.guest(name, 200+i)
		s.change(name)
		before[name] = s.seen(name, true)
	}
	s.guest("twin", 210)
	s.change("twin")

	dry, err := s.Hashify(t.Context(), api.Hashify{Guests: names, Dry: true})
	must(t, err)
	for _, name := range names {
		s.same("a dry run", name, before[name])
		if n := len(s.own(name)); n < 40 {
			t.Errorf("a dry run left %d files of %s", n, name)
		}
	}
	done, err := s.Hashify(t.Context(), api.Hashify{Guests: names})
	must(t, err)
	for i, g := range done.Guests {
		if g.Problem != "" || g.Files != dry.Guests[i].Files || g.Bytes != dry.Guests[i].Bytes || g.Added != dry.Guests[i].Added {
			t.Errorf("%+v, and dry %+v", g, dry.Guests[i])
		}
		s.same("hashified", g.Name, before[g.Name])
		want := []string{"etc/conf", "etc/hostname", "etc/hosts", "etc/resolv.conf", "usr/lib/diverted", "usr/lib/diverted.dist", "usr/lib/moved/a", "usr/lib/names", "usr/lib/owned", "usr/lib/sparse", "usr/lib/tiny", "usr/lib/two", "usr/lib/unique"}
		if own := s.own(g.Name); !slices.Equal(own, want) {
			t.Errorf("%s keeps %q, want %q", g.Name, own, want)
		}
	}
	if g := done.Guests[2]; g.Files != someFiles/2+10+3 || g.Added != 0 || done.Guests[0].Added == 0 {
		t.Errorf("it gave up %+v, the first %+v", g, done.Guests[0])
	}

	// Once more, after changes of a guest alone.
	s.root("a", func(dir string) {
		f, err := os.OpenFile(dir+"/usr/bin/p1", os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.WriteString("mine")
		must(t, errors.Join(err, f.Close()))
		must(t, os.Remove(dir+"/usr/bin/p2"))
		must(t, os.RemoveAll(dir+"/usr/lib/package"))
		put(t, dir+"/usr/lib/package/x", content(3000, size))
		must(t, os.Chmod(dir+"/usr/bin/p4", 0o700))
	})
	before["a"] = s.seen("a", true)
	s.same("another guest's write", "bb", before["bb"])
	done, err = s.Hashify(t.Context(), api.Hashify{Guests: []string{"a"}})
	must(t, err)
	if g := done.Guests[0]; g.Files != 1 || g.Problem != "" {
		t.Errorf("once more: %+v", g)
	}
	s.same("hashified once more", "a", before["a"])

	users := func(id string) ([]string, error) { return s.imageUsers(t.Context(), id) }
	if _, err := s.Images.Collect(t.Context(), true, false, users); err != nil {
		t.Error(err)
	}
	for _, name := range names {
		s.same("after gc", name, before[name])
	}
	if c, err := s.Images.Check(t.Context(), users); err != nil || len(c.Damaged) > 0 {
		t.Errorf("check: %+v, %v", c, err)
	}

	// On another image, it is as if nothing had been shared.
	newer := s.build("newer", 1)
	for _, name := range []string{"bb", "twin"} {
		must(t, os.WriteFile(filepath.Join(s.Guests.Dir(name), "image"), []byte(newer+"\n"), 0o644))
		_, err := s.Guests.ReadFile(t.Context(), name, "/etc/conf", 1<<20)
		must(t, err)
	}
	bb, twin := s.seen("bb", false), s.seen("twin", false)
	for _, file := range []string{"etc/hostname ", "etc/hosts ", "usr/lib/unique "} {
		bb = strings.ReplaceAll(bb, line(bb, file), line(twin, file))
	}
	if bb != twin {
		t.Errorf("on another image:\n%s", missingLines(twin, bb))
	}

	for _, name := range append(names, "twin") {
		must(t, s.Guests.Delete(t.Context(), name))
	}
	for range 2 {
		_, err := s.Images.Collect(t.Context(), true, false, users)
		must(t, err)
	}
	if left, _ := filepath.Glob(s.dir + "/data/.store/*/*"); len(left) > 2*(someFiles+10) {
		t.Errorf("%d objects are left", len(left))
	}
	if left, _ := filepath.Glob(s.dir + "/data/.images/*"); len(left) > 2 { // the newest of each name stays
		t.Errorf("left are %q", left)
	}
}

func line(seen, file string) string {
	_, line, _ := strings.Cut(seen, file)
	line, _, _ = strings.Cut(line, "\n")
	return line
}

// A hashify that is killed at any moment leaves guests that see what they saw.
func TestAHashifyThatIsKilled(t *testing.T) {
	s := newShared(t)
	before := map[string]string{}
	var names []string
	for i := range 10 {
		name := fmt.Sprintf("g%d", i)
		names = append(names, name)
		s.guest(name, 220+i)
		s.change(name)
		before[name] = s.seen(name, true)
	}
	start := time.Now()
	pending := 0
	for i := range 14 {
		if !s.killedAfter(asHashify, time.Duration(20+i*25)*time.Millisecond) {
			break
		}
		for _, name := range names {
			upper, err := s.Guests.Root(name)
			must(t, err)
			if _, err := os.Stat(filepath.Join(filepath.Dir(upper), ".hashify")); err == nil {
				pending++
			}
			_, err = s.Guests.ReadFile(t.Context(), name, "/etc/conf", 1<<20) // mounts it as a start does
			must(t, err)
			s.same(fmt.Sprintf("killed, try %d", i), name, before[name])
		}
	}
	t.Logf("%s; killed while files were removed: %d", time.Since(start), pending)
	done, err := s.Hashify(t.Context(), api.Hashify{})
	must(t, err)
	for _, g := range done.Guests {
		if own := s.own(g.Name); g.Problem != "" || len(own) != 12 {
			t.Errorf("%+v keeps %q", g, own)
		}
		s.same("in the end", g.Name, before[g.Name])
	}
}

// Wherever the disk becomes full, guests see what they saw, and keep what they have.
func TestHashifyOnAFullDisk(t *testing.T) {
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-test-hashify-")
	must(t, err)
	must(t, unix.Mount("test", dir, "tmpfs", 0, "size=64m"))
	t.Cleanup(func() { must(t, errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir))) })
	s := sharedIn(t, dir)
	before := map[string]string{}
	for i, name := range []string{"a", "bb"} {
		s.guest(name, 260+i)
		s.change(name)
		before[name] = s.seen(name, true)
	}
	failed := 0
	for room := int64(0); ; room += 100 << 10 {
		var st unix.Statfs_t
		must(t, unix.Statfs(dir, &st))
		must(t, unix.Mount("test", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", int64(st.Blocks-st.Bfree)*int64(st.Bsize)+room)))
		done, err := s.Hashify(t.Context(), api.Hashify{})
		must(t, unix.Mount("test", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"))
		var problems string
		if err != nil {
			problems = err.Error()
		}
		for _, g := range done.Guests {
			problems += g.Problem
			s.same(fmt.Sprintf("with %d bytes", room), g.Name, before[g.Name])
		}
		if problems == "" {
			break
		}
		if failed++; !strings.Contains(problems, "no space left") || room > 8<<20 {
			t.Fatalf("with %d bytes: %s", room, problems)
		}
	}
	if failed < 3 {
		t.Errorf("it failed %d times only", failed)
	}
	for name := range before {
		if own := s.own(name); len(own) != 13 {
			t.Errorf("%s keeps %q", name, own)
		}
	}
	users := func(id string) ([]string, error) { return s.imageUsers(t.Context(), id) }
	_, err = s.Images.Collect(t.Context(), true, false, users)
	must(t, err)
	if c, err := s.Images.Check(t.Context(), users); err != nil || len(c.Damaged) > 0 {
		t.Errorf("check: %+v, %v", c, err)
	}
}

// Guests share files with those of their own trust domain only.
func TestHashifyInTrustDomains(t *testing.T) {
	s := newShared(t)
	domains := map[string]string{"x1": "x", "x2": "x", "y1": "y", "none1": ""}
	before := map[string]string{}
	for i, name := range []string{"x1", "x2", "y1", "none1"} {
		must(t, s.Guests.Create(t.Context(), api.Guest{Name: name, Context: 270 + i, Image: s.image, TrustDomain: domains[name], Network: api.Network{Mode: api.ModeNAT}}))
		s.change(name)
		before[name] = s.seen(name, true)
	}
	users := func(id string) ([]string, error) { return s.imageUsers(t.Context(), id) }
	check := func(what string) {
		t.Helper()
		_, err := s.Images.Collect(t.Context(), true, false, users)
		must(t, err)
		for name, seen := range before {
			s.same(what, name, seen)
		}
		if c, err := s.Images.Check(t.Context(), users); err != nil || len(c.Damaged) > 0 {
			t.Errorf("%s: check: %+v, %v", what, c, err)
		}
	}
	done, err := s.Hashify(t.Context(), api.Hashify{Guests: []string{"x1", "y1", "x2", "none1"}})
	must(t, err)
	for i, shared := range []bool{true, false, true, false} { // what others of its domain have too
		if g := done.Guests[i]; g.Problem != "" || (g.Files > someFiles/2) != shared {
			t.Errorf("%+v", g)
		}
	}
	if done.Guests[2].Added != 0 {
		t.Errorf("the second one of a trust domain made objects: %+v", done.Guests[2])
	}
	check("hashified")
	must(t, os.WriteFile(s.Guests.Dir("x2")+"/domain", []byte("y\n"), 0o644))
	check("in another trust domain")
	must(t, os.Remove(s.Guests.Dir("x2")+"/domain"))
	check("in none")
	for name := range domains {
		must(t, s.Guests.Delete(t.Context(), name))
	}
	clear(before)
	check("deleted")
	if left, _ := filepath.Glob(s.dir + "/data/.domains/*/.store/*/*"); len(left) > 0 {
		t.Errorf("%d objects are left", len(left))
	}
	if left, _ := filepath.Glob(s.dir + "/data/.domains/*/.images/*"); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// The same upgrade by hand in 20 guests.
func TestHashifyGivesBackWhatAnUpgradeTook(t *testing.T) {
	s := newShared(t)
	for i := range 20 {
		name := fmt.Sprintf("g%d", i)
		s.guest(name, 240+i)
		s.root(name, func(dir string) {
			for i := range 20 {
				put(t, fmt.Sprintf("%s/usr/bin/p%d", dir, i), content(1000+i, size))
			}
		})
	}
	before := s.space()
	_, err := s.Hashify(t.Context(), api.Hashify{})
	must(t, err)
	after := s.space()
	duplicates := int64(19 * 20 * (size + 4095) / 4096 * 4096)
	t.Logf("%d KiB before, %d after: %.1f %% of the duplicates", before>>10, after>>10, float64(before-after)*100/float64(duplicates))
	if before-after < duplicates*95/100 {
		t.Errorf("%d of %d bytes are back", before-after, duplicates)
	}
}

// space returns what the host's data take on the disk.
func (s *shared) space() (n int64) {
	must(s.t, filepath.WalkDir(s.dir+"/data", func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		n += st.Blocks * 512 / int64(max(st.Nlink, 1))
		return err
	}))
	return n
}
