package images

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// Two pushes of images with files in common, a build, and gc again and again, each in a vsnode
// of its own; some are killed.
func TestPushesAndCollectInProcessesOfTheirOwn(t *testing.T) {
	from, s := open(t), open(t)
	var images []api.Image
	var actions []string
	for i := range 2 {
		img := made(t, from, archive(t, fmt.Sprint("base", i), some("common", fmt.Sprint("own", i))))
		path := filepath.Join(t.TempDir(), "stream")
		must(t, os.WriteFile(path, export(t, from, img.ID), 0o600))
		images, actions = append(images, img), append(actions, "import "+img.ID+" "+path)
	}
	built := archive(t, "built", some("common", "built"))
	actions = append(actions, "") // a build
	var all, collecting sync.WaitGroup
	done := make(chan struct{})
	collecting.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				after := time.Minute
				if i%3 == 0 {
					after = time.Duration(i) * time.Millisecond
				}
				killAfter(t, maker(s, built, ""), "collect", after)
			}
		}
	})
	for i, action := range actions {
		all.Go(func() {
			for try := range 4 {
				killAfter(t, maker(s, built, ""), action, time.Duration(try*20+i*5)*time.Millisecond)
			}
			if killAfter(t, maker(s, built, ""), action, time.Minute) {
				t.Error("it does not end")
			}
		})
	}
	all.Wait()
	close(done)
	collecting.Wait()
	img, err := s.Get(t.Context(), "built")
	must(t, err)
	contains(t, s, append(images, img)...)
	sound(t, s)
}

// Wherever the disk becomes full, nothing is half there, and what was there is whole.
func TestADiskThatIsFullAtEachStep(t *testing.T) {
	source := open(t)
	base := made(t, source, archive(t, "base", some()))
	next := made(t, source, archive(t, "next", map[string]string{"bin/busybox": some()["bin/busybox"], "large": noise(1, 300_000), "other": noise(2, 200_000)}))
	own := noise(3, 250_000)
	path := filepath.Join(t.TempDir(), "own")
	must(t, os.WriteFile(path, []byte(own), 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	entry, _, _, err := tree.OwnFile(f, "bin/copy")
	must(t, err)
	entry.SetObject(fmt.Sprintf("%x", sha256.Sum256([]byte(own))))
	runtime.LockOSThread() // never unlocked: the mount goes with the thread
	must(t, unix.Unshare(unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for _, row := range []struct {
		what string
		do   func(s *Store) error
	}{
		{"an import", func(s *Store) error {
			_, _, err := s.Import(t.Context(), bytes.NewReader(export(t, source, next.ID)), next.ID)
			return err
		}},
		{"a difference", func(s *Store) error {
			_, _, err := s.Import(t.Context(), bytes.NewReader(sent(t, source, next.ID, base.ID)), next.ID)
			return err
		}},
		{"a copy for a trust domain", func(s *Store) error { _, err := s.Tree(t.Context(), "a", base.ID); return err }},
		{"what hashify derives", func(s *Store) error {
			_, release, err := s.Derive(t.Context(), "", base.ID, []*tree.Entry{entry}, func(*tree.Entry) (*os.File, error) { return os.Open(path) })
			if err == nil {
				release()
			}
			return err
		}},
	} {
		t.Run(row.what, func(t *testing.T) {
			disk := t.TempDir()
			must(t, unix.Mount("test", disk, "tmpfs", 0, "size=8m"))
			defer func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) }()
			s, err := Open(filepath.Join(disk, ".images"))
			must(t, err)
			usedIn(s, nil)
			_, _, err = s.Import(t.Context(), bytes.NewReader(export(t, source, base.ID)), base.ID)
			must(t, err)
			var full int
			for room := int64(0); ; room += 12 << 10 {
				var st unix.Statfs_t
				must(t, unix.Statfs(disk, &st))
				used := int64(st.Blocks-st.Bfree) * int64(st.Bsize)
				must(t, unix.Mount("test", disk, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+room)))
				err := row.do(s)
				sound(t, s)
				if err == nil {
					break
				}
				if full++; !errors.Is(err, unix.ENOSPC) || room > 4<<20 {
					t.Fatalf("with %d bytes: %v", room, err)
				}
				contains(t, s, base)
				_, err = s.Collect(t.Context(), false, false, nobody) // a full disk keeps nothing from being removed
				must(t, err)
				if n := len(lying(t, s)); n != 3 {
					t.Fatalf("with %d bytes: %d objects are left", room, n)
				}
			}
			if full < 3 {
				t.Errorf("it failed %d times only", full)
			}
		})
	}
}

// The host's clock is years ahead, then right again: the newest image is what it was.
func TestAClockThatWasWrong(t *testing.T) {
	s := open(t)
	first := made(t, s, archive(t, "base", some("first")))
	for _, by := range []int{+50, -50} { // when the first was made
		moved := first
		moved.Created = time.Now().AddDate(by, 0, 0).UTC().Truncate(time.Second)
		must(t, record(s.path(first.ID), moved))
		second, _, err := s.Build(t.Context(), archive(t, "base", some("second")), nil)
		must(t, err)
		newest, err := s.Get(t.Context(), "base")
		must(t, err)
		if want := map[int]string{+50: first.ID, -50: second.ID}[by]; newest.ID != want {
			t.Errorf("by %d years: the newest is %s", by, newest.ID)
		}
		// Both go to other hosts as they are, and who is used stays.
		for _, id := range []string{first.ID, second.ID} {
			to := open(t)
			_, _, err := to.Import(t.Context(), bytes.NewReader(export(t, s, id)), id)
			must(t, err)
			sound(t, to)
		}
		_, err = s.Collect(t.Context(), true, false, func(id string) ([]string, error) { return map[string][]string{first.ID: {"www"}}[id], nil })
		must(t, err)
		contains(t, s, first)
	}
}

// Files whose times are far off: of archives made on hosts with wrong clocks.
func TestTimesOfFiles(t *testing.T) {
	for _, row := range []struct {
		mtime int64
		why   string
	}{
		{-1, ""}, {-1 << 31, ""}, {1 << 32, ""}, {15032385535, ""},
		{-1<<31 - 1, "out of range"}, {15032385536, "out of range"}, {1 << 60, "out of range"},
	} {
		s := open(t)
		spec := archiveAt(t, "base", some(), time.Unix(row.mtime, 999))
		img, _, err := s.Build(t.Context(), spec, nil)
		if row.why != "" {
			if err == nil || !strings.Contains(err.Error(), row.why) {
				t.Errorf("%d: %v", row.mtime, err)
			}
			contains(t, s)
			continue
		}
		if err != nil {
			t.Errorf("%d: %v", row.mtime, err)
			continue
		}
		must(t, s.manifest(img.ID, func(e *tree.Entry) {
			if e.Path() == "bin/busybox" && (e.Mtime() != row.mtime || e.Nsec() != 0) {
				t.Errorf("it is of %d.%d, want %d", e.Mtime(), e.Nsec(), row.mtime)
			}
		}))
		to := open(t)
		_, _, err = to.Import(t.Context(), bytes.NewReader(export(t, s, img.ID)), img.ID)
		must(t, err)
		sound(t, to)
	}
}

// Objects elsewhere, where a symbolic link leads.
func TestAStoreBehindALink(t *testing.T) {
	elsewhere := t.TempDir()
	s := open(t)
	must(t, os.MkdirAll(filepath.Dir(s.dir), 0o700))
	must(t, os.Symlink(elsewhere, s.objects.Dir()))
	s, err := Open(s.dir)
	must(t, err)
	img := made(t, s, archive(t, "base", some()))
	sound(t, s)
	if found, err := filepath.Glob(elsewhere + "/*/*"); err != nil || len(found) != 3 {
		t.Errorf("there are %q, %v", found, err)
	}
	must(t, s.Remove(t.Context(), img.ID, nobody))
	if names := lying(t, s); len(names) > 0 {
		t.Errorf("%d objects are left", len(names))
	}
	must(t, os.RemoveAll(elsewhere))
	if s, err = Open(s.dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Build(t.Context(), archive(t, "other", some()), nil); err == nil || !strings.Contains(err.Error(), ".store") {
		t.Errorf("a link that leads nowhere: %v", err)
	}
}
