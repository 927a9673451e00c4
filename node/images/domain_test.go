package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// usedIn makes the store believe that these guests use all images, by trust domain.
func usedIn(s *Store, guests map[string][]string) {
	s.UsedIn = func(_ context.Context, domain, _ string) ([]string, error) { return guests[domain], nil }
}

// inodes returns the inodes of all regular files below a directory.
func inodes(t testing.TB, dir string) map[uint64]string {
	t.Helper()
	found := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		found[st.Ino] = path
		return err
	}))
	return found
}

// placed returns the directory in which a domain's store is.
func placed(t testing.TB, s *Store, domain, id string) string {
	t.Helper()
	root, err := s.Tree(t.Context(), domain, id)
	must(t, err)
	return filepath.Dir(filepath.Dir(filepath.Dir(root)))
}

func TestATrustDomainHasFilesOfItsOwn(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain trees: %v", plain), func(t *testing.T) {
			s := open(t)
			s.Plain = plain
			one, two := made(t, s, archive(t, "one", some("own"))), made(t, s, archive(t, "two", some("other")))
			for _, domain := range []string{"a", "b"} {
				for _, img := range []api.Image{one, two} {
					dir := placed(t, s, domain, img.ID)
					if want := filepath.Join(filepath.Dir(s.dir), ".domains", domain); dir != want {
						t.Fatalf("it is in %s, want %s", dir, want)
					}
					in := s.In(domain)
					if got, want := contents(t, in, img.ID), contents(t, s, img.ID); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("files are %q, want %q", got, want)
					}
					if have, err := in.Get(t.Context(), img.ID); err != nil || have.Key != img.Key {
						t.Errorf("its record: %+v, %v", have, err)
					}
					root, err := in.Root(img.ID)
					must(t, err)
					if at, ok := (procctx.Root{Image: root}).Described(); ok == plain {
						t.Errorf("%s is described: %v", root, ok)
					} else if ok {
						if link, err := os.Readlink(at + procctx.ObjectsLink); err != nil || link != filepath.Join(dir, ".store") {
							t.Errorf("objects are in %s, %v", link, err)
						}
					}
				}
			}
			if !plain {
				if names := lying(t, s.In("a")); len(names) != 5 {
					t.Errorf("%d objects for files of five contents", len(names))
				}
			}
			sound(t, s)
			// Each file is one of one domain alone.
			seen := map[uint64]string{}
			for _, domain := range []string{"a", "b", ""} {
				dir := filepath.Dir(s.In(domain).dir)
				for inode, path := range inodes(t, dir) {
					if domain == "" && strings.HasPrefix(path, s.domains()) {
						continue
					}
					if other := seen[inode]; other != "" {
						t.Errorf("%s and %s are one file", path, other)
					}
					seen[inode] = path
				}
			}
			// A second time nothing is copied.
			before := inodes(t, s.domains())
			placed(t, s, "a", one.ID)
			if after := inodes(t, s.domains()); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the second time: %v, before %v", after, before)
			}
			if info, err := os.Stat(s.domains()); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v, %v", s.domains(), info.Mode(), err)
			}
		})
	}
}

// A guest that gets another trust domain takes with it what was derived for it.
func TestWhatWasDerivedComesAlong(t *testing.T) {
	s := open(t)
	img := made(t, s, archive(t, "base", some()))
	placed(t, s, "a", img.ID)
	own := strings.Repeat("its own ", 1000)
	path := filepath.Join(t.TempDir(), "own")
	must(t, os.WriteFile(path, []byte(own), 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	e, _, _, err := tree.OwnFile(f, "bin/copy")
	must(t, err)
	e.SetObject(fmt.Sprintf("%x", sha256.Sum256([]byte(own))))
	id, release, err := s.Derive(t.Context(), "a", img.ID, []*tree.Entry{e}, func(*tree.Entry) (*os.File, error) { return os.Open(path) })
	must(t, err)
	release()
	if _, err := s.Root(id); err == nil {
		t.Error("the host's store has it")
	}
	for _, domain := range []string{"b", ""} {
		placed(t, s, domain, id)
		if contents(t, s.In(domain), id)["bin/copy"] != own {
			t.Errorf("in the trust domain %q it has not the guest's file", domain)
		}
	}
	sound(t, s)
}

func TestCollectInTrustDomains(t *testing.T) {
	s := open(t)
	img := made(t, s, archive(t, "base", some()))
	for _, domain := range []string{"a", "b"} {
		placed(t, s, domain, img.ID)
	}
	usedIn(s, map[string][]string{"a": {"www"}})
	used := func(string) ([]string, error) { return []string{"www"}, nil }
	for _, row := range []struct {
		what string
		do   func() error
		want []bool // the stores a, b, the host's have it
	}{
		{"it would be removed where nobody has it", func() error {
			done, err := s.Collect(t.Context(), true, true, used)
			if done.Objects != 3 || len(done.Images) != 0 {
				t.Errorf("would remove %+v", done)
			}
			return err
		}, []bool{true, true, true}},
		{"it is removed where nobody has it", func() error { _, err := s.Collect(t.Context(), true, false, used); return err }, []bool{true, false, true}},
		{"guests of no trust domain have it", func() error {
			usedIn(s, nil)
			_, err := s.Collect(t.Context(), true, false, used)
			return err
		}, []bool{false, false, true}},
		{"it is copied again", func() error { placed(t, s, "a", img.ID); return nil }, []bool{true, false, true}},
		{"the image is removed", func() error { return s.Remove(t.Context(), img.ID, nobody) }, []bool{false, false, false}},
	} {
		must(t, row.do())
		for i, domain := range []string{"a", "b", ""} {
			if here, err := s.In(domain).Has(img.ID); err != nil || here != row.want[i] {
				t.Errorf("%s: the trust domain %q has it: %v, %v", row.what, domain, here, err)
			}
			if n := len(lying(t, s.In(domain))); (n == 0) == row.want[i] {
				t.Errorf("%s: the trust domain %q has %d objects", row.what, domain, n)
			}
		}
		sound(t, s)
	}
}

// What is damaged is not copied, and is named where it is.
func TestDamageInTrustDomains(t *testing.T) {
	s := open(t)
	img := made(t, s, archive(t, "base", some()))
	placed(t, s, "a", img.ID)
	usedIn(s, map[string][]string{"a": {"www"}})
	busybox := some()["bin/busybox"]
	damage(t, s.In("a"), busybox)
	c, err := s.Check(t.Context(), nobody)
	if err != nil || len(c.Damaged) != 1 || !strings.HasPrefix(c.Damaged[0].What, "trust domain a: object") || !slices.Equal(c.Damaged[0].Users, []string{"www"}) {
		t.Errorf("check: %+v, %v", c, err)
	}
	placed(t, s, "b", img.ID) // of the host's, which is sound
	damage(t, s, busybox)
	placed(t, s, "d", img.ID) // of b
	damage(t, s.In("b"), busybox)
	damage(t, s.In("d"), busybox)
	if _, err := s.Tree(t.Context(), "c", img.ID); err == nil || !strings.Contains(err.Error(), `for the trust domain "c": bin/busybox: its content is another one`) {
		t.Errorf("a damaged one: %v", err)
	}
	contains(t, s.In("c"))
	if n := len(lying(t, s.In("c"))); n > 0 {
		t.Errorf("%d objects are left", n)
	}
	if _, err := s.Tree(t.Context(), "c", "sha256:"+strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), "is not on this host") {
		t.Errorf("an image that is nowhere: %v", err)
	}
}

// Several copies at once, of two images with objects in common, and gc beside them.
func TestCopiesBesideEachOther(t *testing.T) {
	s := open(t)
	var images []api.Image
	for i := range 3 {
		images = append(images, made(t, s, archive(t, fmt.Sprint("base", i), some("common", fmt.Sprint("own", i)))))
	}
	usedIn(s, map[string][]string{"a": {"www"}})
	used := func(string) ([]string, error) { return []string{"www"}, nil }
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			if _, err := s.Tree(t.Context(), "a", images[i%3].ID); err != nil {
				t.Error(err)
			}
			if _, err := s.Collect(t.Context(), true, false, used); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	contains(t, s.In("a"), images...)
	sound(t, s)
	for _, img := range images {
		if !bytes.Equal(export(t, s.In("a"), img.ID), export(t, s, img.ID)) {
			t.Errorf("%s is another one in the trust domain", img.Spec.Name)
		}
	}
}
