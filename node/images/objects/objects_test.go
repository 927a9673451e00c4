package objects

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A bench is a store beside a directory of files.
type bench struct {
	*Store
	t   *testing.T
	dir *os.File
}

func newBench(t *testing.T) bench {
	t.Helper()
	top := t.TempDir()
	must(t, os.Mkdir(top+"/files", 0o755))
	dir, err := os.Open(top + "/files")
	must(t, err)
	s := At(top + "/.store")
	lock, err := s.Share(t.Context())
	must(t, err)
	t.Cleanup(func() { dir.Close(); lock.Unlock() })
	return bench{s, t, dir}
}

func named(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

func (b bench) write(path, content string, mode uint32) {
	b.t.Helper()
	at := filepath.Join(b.dir.Name(), path)
	must(b.t, os.WriteFile(at, []byte(content), 0o600))
	must(b.t, unix.Chmod(at, mode))
}

func (b bench) content(name string) string {
	b.t.Helper()
	content, err := os.ReadFile(b.path(name))
	must(b.t, err)
	return string(content)
}

// files returns the paths of all files of the store.
func (b bench) files() (all []string) {
	b.t.Helper()
	must(b.t, b.Walk(b.t.Context(), func(_, path string, _ *unix.Stat_t) error {
		rel, err := filepath.Rel(b.Dir(), path)
		all = append(all, rel)
		return err
	}))
	return all
}

func TestTake(t *testing.T) {
	for _, row := range []struct {
		what   string
		before func(b bench, name string) // of the same content
		added  bool
	}{
		{"the first one", func(bench, string) {}, true},
		{"it is there", func(b bench, name string) {
			b.write("other", "content", 0o600)
			_, err := b.Take(name, b.dir, "other")
			must(t, err)
		}, false},
		{"a damaged one is there", func(b bench, name string) {
			must(t, os.MkdirAll(filepath.Dir(b.path(name)), 0o755))
			must(t, os.WriteFile(b.path(name), []byte("contend"), 0o444))
		}, true},
		{"a longer one is there", func(b bench, name string) {
			must(t, os.MkdirAll(filepath.Dir(b.path(name)), 0o755))
			must(t, os.WriteFile(b.path(name), []byte("content and more"), 0o444))
		}, true},
		{"an empty one is there", func(b bench, name string) {
			must(t, os.MkdirAll(filepath.Dir(b.path(name)), 0o755))
			must(t, os.WriteFile(b.path(name), nil, 0o444))
		}, true},
	} {
		t.Run(row.what, func(t *testing.T) {
			b := newBench(t)
			b.t = t
			name := named("content")
			row.before(b, name)
			b.write("file", "content", 0o4755)
			must(t, os.Chown(b.dir.Name()+"/file", 33, 44))
			must(t, unix.Setxattr(b.dir.Name()+"/file", "user.note", []byte("x"), 0))
			added, err := b.Take(name, b.dir, "file")
			if err != nil || added != row.added || b.content(name) != "content" {
				t.Errorf("added %v, %v, content %q; want %v", added, err, b.content(name), row.added)
			}
			var st unix.Stat_t
			must(t, unix.Stat(b.path(name), &st))
			if _, err := unix.Getxattr(b.path(name), "user.note", nil); st.Mode != unix.S_IFREG|Mode || st.Uid != 0 || st.Gid != 0 || err == nil {
				t.Errorf("the object has mode %o, owner %d:%d, a note: %v", st.Mode, st.Uid, st.Gid, err == nil)
			}
			if _, err := os.Lstat(b.dir.Name() + "/file"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is still there: %v", err)
			}
			if files := b.files(); len(files) != 1 || files[0] != Place(name) {
				t.Errorf("the store has %v", files)
			}
			must(t, b.Check(t.Context(), name))
		})
	}
}

// Files in use keep their names and attributes until they are the store's alone.
func TestAdopt(t *testing.T) {
	b := newBench(t)
	b.write("su", "content", 0o4755)
	name := named("content")
	for _, damage := range []bool{false, true} {
		if damage {
			must(t, os.Remove(b.path(name)))
			must(t, os.WriteFile(b.path(name), []byte("damaged"), 0o444))
		}
		added, err := b.Adopt(name, b.dir, "su")
		if err != nil || !added {
			t.Fatalf("added %v, %v", added, err)
		}
		var file, object unix.Stat_t
		must(t, unix.Stat(b.dir.Name()+"/su", &file))
		must(t, unix.Stat(b.path(name), &object))
		if file.Ino != object.Ino || file.Mode != unix.S_IFREG|0o4755 {
			t.Errorf("the file is inode %d with mode %o, the object %d", file.Ino, file.Mode, object.Ino)
		}
	}
	if added, err := b.Adopt(name, b.dir, "su"); err != nil || added {
		t.Errorf("a second time: added %v, %v", added, err)
	}
	keep := map[string]bool{name: true}
	_, _, err := b.Sweep(t.Context(), keep, false)
	must(t, err)
	if info, err := os.Stat(b.dir.Name() + "/su"); err != nil || info.Mode().Perm() != 0o755 || info.Mode()&os.ModeSetuid == 0 {
		t.Errorf("while it is in use: mode %v, %v", info.Mode(), err)
	}
	must(t, os.Remove(b.dir.Name()+"/su"))
	_, _, err = b.Sweep(t.Context(), keep, false)
	must(t, err)
	if info, err := os.Stat(b.path(name)); err != nil || info.Mode() != Mode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if len(b.files()) != 1 {
		t.Errorf("the store has %v", b.files())
	}
}

// A store on another filesystem than what is put into it.
func TestAStoreOnAFilesystemOfItsOwn(t *testing.T) {
	b := newBench(t)
	must(t, unix.Mount("store", b.Dir(), "tmpfs", 0, "size=64k,mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(b.Dir(), unix.MNT_DETACH)) })
	for _, put := range []func(string, *os.File, string) (bool, error){b.Adopt, b.Take} {
		b.write("file", "content", 0o600)
		if _, err := put(named("content"), b.dir, "file"); err != nil || b.content(named("content")) != "content" {
			t.Errorf("put: %v", err)
		}
	}
	if left, err := os.ReadDir(b.dir.Name()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	large := strings.Repeat("full", 1<<15)
	b.write("large", large, 0o600)
	if _, err := b.Take(named(large), b.dir, "large"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	if files := b.files(); len(files) != 1 {
		t.Errorf("a full disk left %v", files)
	}
	if _, err := os.Stat(b.dir.Name() + "/large"); err != nil {
		t.Errorf("the file that did not fit is gone: %v", err)
	}
}

func TestSweep(t *testing.T) {
	b := newBench(t)
	for _, content := range []string{"kept", "unused", "damaged"} {
		b.write("file", content, 0o600)
		_, err := b.Take(named(content), b.dir, "file")
		must(t, err)
	}
	must(t, os.WriteFile(filepath.Join(b.Dir(), named("kept")[:2], newPrefix+"killed"), []byte("x"), 0o600))
	must(t, os.Remove(b.path(named("damaged"))))
	must(t, os.WriteFile(b.path(named("damaged")), []byte("x"), 0o444))
	if err := b.Check(t.Context(), named("damaged")); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("check of a damaged one: %v", err)
	}
	if err := b.Check(t.Context(), named("nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("check of a missing one: %v", err)
	}
	keep := map[string]bool{named("kept"): true}
	for _, dry := range []bool{true, false} {
		n, space, err := b.Sweep(t.Context(), keep, dry)
		if err != nil || n != 3 || space == 0 {
			t.Errorf("swept %d, %d bytes, %v", n, space, err)
		}
		if want := map[bool]int{true: 4, false: 1}[dry]; len(b.files()) != want {
			t.Errorf("dry %v: the store has %v", dry, b.files())
		}
	}
}

// What was found sound is read again once it has changed.
func TestCheckOnce(t *testing.T) {
	b := newBench(t)
	b.write("file", "content", 0o600)
	name := named("content")
	_, err := b.Take(name, b.dir, "file")
	must(t, err)
	for range 2 {
		must(t, b.CheckOnce(t.Context(), name))
	}
	var before unix.Stat_t
	must(t, unix.Stat(b.path(name), &before))
	changed := func() bool { // its time of change: that of the kernel's last tick
		must(t, os.Chmod(b.path(name), 0o600))
		must(t, os.WriteFile(b.path(name), []byte("contend"), 0o600))
		must(t, os.Chtimes(b.path(name), time.Unix(1, 0), time.Unix(1, 0)))
		var st unix.Stat_t
		must(t, unix.Stat(b.path(name), &st))
		return st.Ctim != before.Ctim
	}
	for !changed() {
	}
	if err := b.CheckOnce(t.Context(), name); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged one: %v", err)
	}
	must(t, os.Remove(b.path(name)))
	if err := b.CheckOnce(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing one: %v", err)
	}
	if err := b.CheckOnce(t.Context(), "../../etc/passwd"); err == nil {
		t.Error("a path was taken for a name")
	}
}

// Nobody removes objects while others put some in.
func TestLocks(t *testing.T) {
	b := newBench(t) // holds it with others
	other, err := b.Share(t.Context())
	must(t, err)
	other.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.Alone(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("alone with others: %v", err)
	}
	if _, err := At(t.TempDir() + "/none").Alone(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store that is not there: %v", err)
	}
}

func TestNames(t *testing.T) {
	b := newBench(t)
	b.write("file", "content", 0o600)
	for _, name := range []string{"", "../../../etc/passwd", strings.ToUpper(named("content")), named("content")[:62], named("content") + "00"} {
		if _, err := b.Take(name, b.dir, "file"); err == nil {
			t.Errorf("%q was taken for an object's name", name)
		}
		if f, err := b.Open(name); err == nil {
			f.Close()
			t.Errorf("%q was opened", name)
		}
	}
}
