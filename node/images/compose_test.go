package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/probe"
	"github.com/vsfleet/vsfleet/node/procctx"
)

func nobody(string) ([]string, error) { return nil, nil }

// lying returns the objects of a store.
func lying(t testing.TB, s *Store) (names []string) {
	t.Helper()
	must(t, s.objects.Walk(t.Context(), func(name, path string, _ *unix.Stat_t) error {
		if name == "" {
			t.Errorf("%s is not an object", path)
		}
		names = append(names, name)
		return nil
	}))
	return names
}

// sound fails the test unless all that the store has is as it should be.
func sound(t testing.TB, s *Store) {
	t.Helper()
	c, err := s.Check(t.Context(), nobody)
	if err != nil || len(c.Damaged) > 0 {
		t.Errorf("check: %+v, %v", c, err)
	}
}

func export(t testing.TB, s *Store, id string) []byte {
	t.Helper()
	var stream bytes.Buffer
	must(t, s.Export(t.Context(), id, &stream))
	return stream.Bytes()
}

// some returns files of which two are equal, one is empty and one is small.
func some(more ...string) map[string]string {
	files := map[string]string{
		"bin/busybox": strings.Repeat("busybox ", 1000), "bin/copy": strings.Repeat("busybox ", 1000), "etc/passwd": strings.Repeat("root:x:0:0\n", 20),
		"etc/empty": "", "etc/hostname": "small\n",
	}
	for _, content := range more {
		files["usr/"+content] = strings.Repeat(content, 100)
	}
	return files
}

// An image has one ID and one stream, whatever its form, and goes from each to the other.
func TestFormsOfAnImage(t *testing.T) {
	if err := probe.Want(probe.Descriptions); err != nil {
		t.Fatal(err)
	}
	spec := archive(t, "base", some())
	plain, composed := open(t), open(t)
	plain.Plain = true
	one, two := made(t, plain, spec), made(t, composed, spec)
	if one.ID != two.ID || one.Description != "" {
		t.Errorf("plain %s %q, composed %s", one.ID, one.Description, two.ID)
	}
	listed, err := composed.Get(t.Context(), "base")
	if err != nil || len(listed.Description) != 64 {
		t.Errorf("description %q, %v", listed.Description, err)
	}
	if names := lying(t, composed); len(names) != 3 {
		t.Errorf("%d objects for files of three contents", len(names))
	}
	for _, from := range []*Store{plain, composed} {
		for _, form := range []bool{true, false} {
			to := open(t)
			to.Plain = form
			img, changed, err := to.Import(t.Context(), bytes.NewReader(export(t, from, one.ID)), one.ID)
			if err != nil || !changed || img.ID != one.ID {
				t.Fatalf("import: %v, changed %v, %v", img.ID, changed, err)
			}
			again, err := to.Get(t.Context(), one.ID)
			if err != nil || (again.Description == "") != form || !form && again.Description != listed.Description {
				t.Errorf("description is %q, want that of all hosts (%v)", again.Description, err)
			}
			if got, want := contents(t, to, one.ID), contents(t, from, one.ID); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("files are %q, want %q", got, want)
			}
			sound(t, to)
		}
	}
	root, err := composed.Root(one.ID)
	must(t, err)
	dir, ok := procctx.Root{Image: root}.Described()
	if link, err := os.Readlink(dir + procctx.ObjectsLink); !ok || err != nil || link != composed.objects.Dir() {
		t.Errorf("%s: objects are in %s, %v", root, link, err)
	}
}

func TestAFileOfAnImage(t *testing.T) {
	for _, plain := range []bool{true, false} {
		s := open(t)
		s.Plain = plain
		img := made(t, s, archive(t, "base", some()))
		for name, want := range map[string]string{"etc/hostname": "small\n", "etc/empty": "", "bin/busybox": strings.Repeat("busybox ", 1000)} {
			if got := read(t, s, img.ID, name); got != want {
				t.Errorf("%s is sent as %q, want %q", name, got, want)
			}
			if got, err := s.ReadFile(img.ID, name, 1<<20); err != nil || string(got) != want {
				t.Errorf("plain %v: %s has %q, %v", plain, name, got, err)
			}
		}
		manifest := read(t, s, img.ID, "")
		if sum := sha256.Sum256([]byte(manifest)); "sha256:"+hex.EncodeToString(sum[:]) != img.ID {
			t.Errorf("plain %t: the manifest that is sent is not that of the image:\n%s", plain, manifest)
		}
		if err := s.Read(t.Context(), "sha256:"+strings.Repeat("0", 64), "", 0, io.Discard); !errors.Is(err, ErrNotFound) {
			t.Errorf("an image that is not there: %v", err)
		}
		if _, err := s.ReadFile(img.ID, "etc/nothing", 1<<20); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("plain %v: a file that is not there: %v", plain, err)
		}
	}
}

func TestImagesShareObjects(t *testing.T) {
	s := open(t)
	made(t, s, archive(t, "base", some("one")))
	before := lying(t, s)
	second := made(t, s, archive(t, "base", some("one", "two")))
	after := lying(t, s)
	if len(after) != len(before)+1 {
		t.Errorf("%d objects, and with a second image of one file more %d", len(before), len(after))
	}
	must(t, s.Remove(t.Context(), second.ID, nobody))
	if left := lying(t, s); !slices.Equal(left, before) {
		t.Errorf("after the removal: %v, before: %v", left, before)
	}
	sound(t, s)
}

// A damaged object is found, with whom it concerns; it is neither handed on nor used again,
// and the same content that comes replaces it.
func TestDamagedObject(t *testing.T) {
	for _, row := range []struct {
		what   string
		damage func(path string) error
		says   string
	}{
		{"a changed byte", func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("busyboy ", 1000)), 0) }, "is damaged"},
		{"cut off", func(path string) error { return os.Truncate(path, 5) }, "is damaged"},
		{"removed", os.Remove, "is missing"},
	} {
		t.Run(row.what, func(t *testing.T) {
			s := open(t)
			spec := archive(t, "base", some())
			img := made(t, s, spec)
			stream := export(t, s, img.ID)
			other := made(t, s, archive(t, "other", map[string]string{"x": "y"}))
			var object string
			must(t, s.manifest(img.ID, func(e *tree.Entry) {
				if e.Path() == "bin/busybox" {
					object = e.Object()
				}
			}))
			must(t, row.damage(filepath.Join(s.objects.Dir(), objects.Place(object))))
			c, err := s.Check(t.Context(), func(id string) ([]string, error) {
				return map[string][]string{img.ID: {"www"}, other.ID: {"mail"}}[id], nil
			})
			must(t, err)
			if len(c.Damaged) != 1 || !strings.Contains(c.Damaged[0].What, row.says) || !strings.Contains(c.Damaged[0].What, object) ||
				!slices.Equal(c.Damaged[0].Images, []string{img.ID}) || !slices.Equal(c.Damaged[0].Users, []string{"www"}) {
				t.Errorf("check finds %+v", c)
			}
			if err := s.Export(t.Context(), img.ID, new(bytes.Buffer)); err == nil {
				t.Error("a damaged object was handed on")
			}
			must(t, s.Remove(t.Context(), img.ID, nobody))
			_, _, err = s.Import(t.Context(), bytes.NewReader(stream), img.ID)
			must(t, err)
			sound(t, s)
		})
	}
}

func TestDamagedManifestOrDescription(t *testing.T) {
	for _, name := range []string{manifestFile, procctx.DescriptionFile} {
		s := open(t)
		img := made(t, s, archive(t, "base", some()))
		objects := lying(t, s)
		path := filepath.Join(s.path(img.ID), name)
		b, err := os.ReadFile(path)
		must(t, err)
		b[len(b)-2] ^= 1
		must(t, os.WriteFile(path, b, 0o600))
		c, err := s.Check(t.Context(), nobody)
		if err != nil || len(c.Damaged) == 0 || !strings.Contains(c.Damaged[0].What, path) {
			t.Errorf("%s: check finds %+v, %v", name, c, err)
		}
		if name == procctx.DescriptionFile {
			continue
		}
		// Nobody knows what is unused now.
		if _, err := s.Collect(t.Context(), false, false, nobody); err == nil || !strings.Contains(err.Error(), img.ID) {
			t.Errorf("collect: %v", err)
		}
		if left := lying(t, s); !slices.Equal(left, objects) {
			t.Errorf("%d of %d objects are left", len(left), len(objects))
		}
		must(t, s.Remove(t.Context(), img.ID, nobody))
		if left := lying(t, s); len(left) > 0 {
			t.Errorf("after its removal: %v", left)
		}
	}
}

func TestCollect(t *testing.T) {
	s := open(t)
	old := made(t, s, archive(t, "base", some("old")))
	used := made(t, s, archive(t, "base", some("used")))
	time.Sleep(time.Until(used.Created.Add(time.Second))) // records are ordered by the second
	newest := made(t, s, archive(t, "base", some("newest")))
	users := func(id string) ([]string, error) { return map[string][]string{used.ID: {"www"}}[id], nil }
	ids := func(done api.Collected) (ids []string) {
		for _, img := range done.Images {
			ids = append(ids, img.ID)
		}
		return ids
	}
	dry, err := s.Collect(t.Context(), false, true, users)
	if err != nil || !slices.Equal(ids(dry), []string{old.ID}) || dry.Objects != 1 {
		t.Errorf("would remove %+v, %v", dry, err)
	}
	contains(t, s, old, used, newest)
	done, err := s.Collect(t.Context(), false, false, users)
	if err != nil || fmt.Sprint(ids(done), done.Objects, done.Bytes) != fmt.Sprint(ids(dry), dry.Objects, dry.Bytes) {
		t.Errorf("removed %+v, %v; would remove %+v", done, err, dry)
	}
	contains(t, s, used, newest)
	done, err = s.Collect(t.Context(), true, false, users)
	if err != nil || !slices.Equal(ids(done), []string{newest.ID}) {
		t.Errorf("with all: removed %+v, %v", done, err)
	}
	contains(t, s, used)
	sound(t, s)
	if _, err := open(t).Collect(t.Context(), true, false, users); err != nil {
		t.Errorf("of an empty store: %v", err)
	}
}

// Removals in the middle of imports take nothing that these need.
func TestCollectBesideImports(t *testing.T) {
	from, s := open(t), open(t)
	var streams [][]byte
	var images []api.Image
	for i := range 3 {
		img := made(t, from, archive(t, fmt.Sprint("base", i), some("common", fmt.Sprint("own", i))))
		images, streams = append(images, img), append(streams, export(t, from, img.ID))
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	collected := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				close(collected)
				return
			default:
				if _, err := s.Collect(t.Context(), false, false, nobody); err != nil {
					collected <- err
					return
				}
			}
		}
	}()
	for i := range images {
		wg.Go(func() {
			for range 10 {
				if _, _, err := s.Import(t.Context(), bytes.NewReader(streams[i]), images[i].ID); err != nil {
					t.Error(err)
				}
				if i > 0 {
					if err := s.Remove(t.Context(), images[i].ID, nobody); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	must(t, <-collected)
	contains(t, s, images[0])
	sound(t, s)
}

// asPlain returns a store with an image as an older vsnode left it.
func asPlain(t *testing.T) (*Store, api.Image) {
	s := open(t)
	s.Plain = true
	img := made(t, s, archive(t, "base", some()))
	s.Plain = false
	s.OnPlainTree = func(string) (bool, error) { return false, nil }
	return s, img
}

// aged makes the manifest of an image as old as one that everybody has seen.
func aged(t *testing.T, s *Store, id string) {
	t.Helper()
	before := time.Now().Add(-2 * grace)
	must(t, os.Chtimes(filepath.Join(s.path(id), manifestFile), before, before))
}

func TestPlainTreesAreTakenOver(t *testing.T) {
	s, img := asPlain(t)
	plain := filepath.Join(s.path(img.ID), plainTree)
	stream := export(t, s, img.ID)
	must(t, os.Chmod(plain+"/bin/busybox", 0o644)) // as it was
	made(t, s, archive(t, "another", map[string]string{"x": "y"}))
	root, err := s.Root(img.ID)
	if _, ok := (procctx.Root{Image: root}).Described(); err != nil || !ok {
		t.Fatalf("root is %s, %v", root, err)
	}
	if !bytes.Equal(export(t, s, img.ID), stream) {
		t.Error("its stream is another one now")
	}
	// The bytes are there once, and the tree as it was.
	err = filepath.WalkDir(plain, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if st.Size > 0 && st.Nlink != 2 && !strings.HasSuffix(path, "copy") || st.Mode&0o777 != 0o644 {
			t.Errorf("%s has %d names and mode %o", path, st.Nlink, st.Mode)
		}
		return nil
	})
	must(t, err)
	for _, row := range []struct {
		what string
		do   func()
		gone bool
	}{
		{"at once", func() {}, false},
		{"after the clock has gone back by years", func() {
			later := time.Now().AddDate(5, 0, 0)
			must(t, os.Chtimes(filepath.Join(s.path(img.ID), manifestFile), later, later))
		}, false},
		{"while a guest has it below itself", func() {
			if info, err := os.Stat(filepath.Join(s.path(img.ID), manifestFile)); err != nil || time.Until(info.ModTime()) > time.Minute {
				t.Errorf("the manifest is of %v, %v", info.ModTime(), err)
			}
			aged(t, s, img.ID)
			s.OnPlainTree = func(id string) (bool, error) { return id == img.ID, nil }
		}, false},
		{"if that cannot be told", func() { s.OnPlainTree = func(string) (bool, error) { return false, errors.New("damaged notes") } }, false},
		{"after that", func() { s.OnPlainTree = func(string) (bool, error) { return false, nil } }, true},
	} {
		row.do()
		_, err := s.Collect(t.Context(), false, false, nobody)
		must(t, err)
		if _, err := os.Lstat(plain); errors.Is(err, fs.ErrNotExist) != row.gone {
			t.Errorf("%s: the tree: %v", row.what, err)
		}
	}
	sound(t, s)
	must(t, s.objects.Walk(t.Context(), func(_, path string, st *unix.Stat_t) error {
		if st.Mode != unix.S_IFREG|objects.Mode {
			t.Errorf("%s has mode %o", path, st.Mode)
		}
		return nil
	}))
	if !bytes.Equal(export(t, s, img.ID), stream) {
		t.Error("its stream is another one in the end")
	}
}

func TestAPlainTreeThatWasChangedIsLeft(t *testing.T) {
	s, img := asPlain(t)
	must(t, os.WriteFile(filepath.Join(s.path(img.ID), plainTree, "etc/passwd"), []byte("changed"), 0o644))
	done, err := s.Collect(t.Context(), false, false, nobody)
	if err != nil || len(done.Notes) != 1 || !strings.Contains(done.Notes[0], "its tree was changed") {
		t.Errorf("collect: %+v, %v", done, err)
	}
	if root, err := s.Root(img.ID); err != nil || filepath.Base(root) != plainTree {
		t.Errorf("root is %s, %v", root, err)
	}
	if c, err := s.Check(t.Context(), nobody); err != nil || len(c.Damaged) != 1 || c.Damaged[0].Images[0] != img.ID {
		t.Errorf("check: %+v, %v", c, err)
	}
}

// Objects on a filesystem of their own: all roads lead there.
func TestAStoreOnAnotherFilesystem(t *testing.T) {
	s, img := asPlain(t)
	stream := export(t, s, img.ID)
	must(t, os.MkdirAll(s.objects.Dir(), 0o700))
	must(t, unix.Mount("store", s.objects.Dir(), "tmpfs", 0, "size=8m,mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(s.objects.Dir(), unix.MNT_DETACH)) })
	other := made(t, s, archive(t, "other", some("more"))) // takes over the first
	sound(t, s)
	must(t, s.Remove(t.Context(), img.ID, nobody))
	_, _, err := s.Import(t.Context(), bytes.NewReader(stream), img.ID)
	must(t, err)
	contains(t, s, img, other)
	sound(t, s)
	must(t, unix.Mount("", s.objects.Dir(), "tmpfs", unix.MS_REMOUNT, "size=32k"))
	before := lying(t, s)
	if _, _, err := s.Build(t.Context(), archive(t, "large", some("a", "b", "c", strings.Repeat("large", 40))), nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	contains(t, s, img, other)
	_, err = s.Collect(t.Context(), false, false, nobody)
	must(t, err)
	if after := lying(t, s); !slices.Equal(after, before) {
		t.Errorf("a full disk left %d objects, before %d", len(after), len(before))
	}
	sound(t, s)
}

// read returns what Read sends.
func read(t *testing.T, s *Store, id, name string) string {
	t.Helper()
	var b bytes.Buffer
	must(t, s.Read(t.Context(), id, name, 1<<20, &b))
	z, err := zstd.NewReader(&b)
	must(t, err)
	defer z.Close()
	data, err := io.ReadAll(z)
	must(t, err)
	return string(data)
}
