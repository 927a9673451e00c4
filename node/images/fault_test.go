package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux/killtest"
	"github.com/vsfleet/vsfleet/node/api"
)

// Run again with these variables, the test's binary is a vsnode that builds the
// spec into the store, and may kill itself at a step of its progress.
const (
	storeEnv = "VSFLEET_TEST_STORE"
	specEnv  = "VSFLEET_TEST_SPEC"
	killEnv  = "VSFLEET_TEST_KILL_AT"

	actionEnv = "VSFLEET_TEST_ACTION"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeEnv); dir != "" {
		if err := buildAsChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func buildAsChild(dir string) error {
	var spec api.ImageSpec
	if err := json.Unmarshal([]byte(os.Getenv(specEnv)), &spec); err != nil {
		return err
	}
	s, err := Open(dir)
	if err != nil {
		return err
	}
	fmt.Println("started")
	switch action, rest, _ := strings.Cut(os.Getenv(actionEnv), " "); action {
	case "import":
		id, path, _ := strings.Cut(rest, " ")
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, _, err = s.Import(context.Background(), f, id)
		return err
	case "remove":
		if err := s.Remove(context.Background(), rest, nobody); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	case "tree":
		domain, id, _ := strings.Cut(rest, " ")
		_, err := s.Tree(context.Background(), domain, id)
		return err
	case "collect":
		_, err := s.Collect(context.Background(), false, false, nobody)
		return err
	}
	_, changed, err := s.Build(context.Background(), spec, func(e api.Event) {
		if kill := os.Getenv(killEnv); kill != "" && strings.HasPrefix(e.Message, kill) {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // it need not be at once
		}
	})
	fmt.Println("changed:", changed)
	return err
}

func maker(s *Store, spec api.ImageSpec, killAt string) *exec.Cmd {
	b, err := json.Marshal(spec)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), storeEnv+"="+s.dir, specEnv+"="+string(b), killEnv+"="+killAt)
	return cmd
}

// contains fails the test unless the store holds these images and nothing else.
func contains(t testing.TB, s *Store, images ...api.Image) {
	t.Helper()
	want := make(map[string]bool)
	for _, img := range images {
		want[strings.TrimPrefix(img.ID, "sha256:")] = true
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !want[e.Name()] {
			t.Errorf("%s is left in the store", e.Name())
		}
		delete(want, e.Name())
	}
	if len(want) > 0 {
		t.Errorf("missing in the store: %v", want)
	}
}

// heavy returns a spec whose build takes long enough to be caught in it.
func heavy(t testing.TB, name string) api.ImageSpec {
	files := make(map[string]string)
	for i := range 400 {
		files[fmt.Sprintf("dir%d/file%d", i%20, i)] = strings.Repeat(fmt.Sprintf("%08d", i), 4096)
	}
	return archive(t, name, files)
}

func TestKilledBuildLeavesNothingToTheNext(t *testing.T) {
	for _, step := range []string{"unpacking", "reading it", "writing to"} {
		t.Run("killed at "+step, func(t *testing.T) {
			s := open(t)
			spec := heavy(t, "base")
			if out, err := maker(s, spec, step).CombinedOutput(); err == nil || err.Error() != "signal: killed" {
				t.Fatalf("maker: %v, %s", err, out)
			}
			if list, err := s.List(t.Context()); err != nil || len(list) > 0 {
				t.Fatalf("after the kill: %v, %v", list, err)
			}
			if tmp, err := filepath.Glob(filepath.Join(s.dir, ".tmp-*")); err != nil || len(tmp) != 1 {
				t.Errorf("the killed build left %v (%v), want one directory: was it killed in time?", tmp, err)
			}
			// Another image: the remains go although nobody builds the same.
			other := made(t, s, archive(t, "other", map[string]string{"x": "y"}))
			contains(t, s, other)
			contains(t, s, other, made(t, s, spec))
		})
	}
}

// A call that is killed before one of its changes leaves whole images, and nothing that the
// next calls do not remove.
func TestKilledAtAnyTime(t *testing.T) {
	spec := archive(t, "base", some("one"))
	source := open(t)
	img := made(t, source, spec)
	stream := filepath.Join(t.TempDir(), "stream")
	must(t, os.WriteFile(stream, export(t, source, img.ID), 0o600))
	small := archive(t, "small", map[string]string{"x": "y"})
	for _, row := range []struct {
		what   string
		before func(t *testing.T, s *Store)
		action string
		images int // once it is done
	}{
		{"a build", func(*testing.T, *Store) {}, "", 1},
		{"an import", func(*testing.T, *Store) {}, "import " + img.ID + " " + stream, 1},
		{"a take-over", func(t *testing.T, s *Store) {
			s.Plain = true
			made(t, s, spec)
			s.Plain = false
		}, "collect", 1},
		{"a copy for a trust domain", func(t *testing.T, s *Store) {
			made(t, s, spec)
			usedIn(s, map[string][]string{"a": {"www"}})
		}, "tree a " + img.ID, 1},
		{"a gc", func(t *testing.T, s *Store) {
			old := made(t, s, archive(t, "base", some("one", "two", "three")))
			path := filepath.Join(s.path(old.ID), old.Key+recordSuffix)
			old.Created = old.Created.Add(-time.Hour)
			must(t, os.Remove(path))
			must(t, record(s.path(old.ID), old))
			made(t, s, spec)
		}, "collect", 1},
		{"a removal", func(t *testing.T, s *Store) {
			made(t, s, spec)
			made(t, s, small)
		}, "remove " + img.ID, 1},
	} {
		t.Run(row.what, func(t *testing.T) {
			var want []string // objects
			once := func(k int) killtest.Result {
				s := open(t)
				row.before(t, s)
				r := killBefore(t, k, s, spec, row.action)
				list, err := s.List(t.Context())
				must(t, err)
				for _, img := range list { // what is listed is whole
					if err := s.Export(t.Context(), img.ID, io.Discard); err != nil {
						t.Fatalf("killed before change %d: %v", k, err)
					}
				}
				if r.Killed {
					sound(t, s)
					killBefore(t, 0, s, spec, row.action)
				}
				if list, err = s.List(t.Context()); err != nil || len(list) != row.images {
					t.Fatalf("killed before change %d: there are %v, %v", k, list, err)
				}
				_, err = s.Collect(t.Context(), false, false, nobody)
				must(t, err)
				contains(t, s, list...)
				sound(t, s)
				if want == nil {
					clean := open(t)
					_, _, err = clean.Import(t.Context(), bytes.NewReader(export(t, s, list[0].ID)), list[0].ID)
					must(t, err)
					want = lying(t, clean)
				}
				if have := lying(t, s); !slices.Equal(have, want) {
					t.Errorf("killed before change %d: %d objects, want %d", k, len(have), len(want))
				}
				if strings.HasPrefix(row.action, "tree") {
					contains(t, s.In("a"), list...)
					if have := lying(t, s.In("a")); !slices.Equal(have, lying(t, s)) {
						t.Errorf("killed before change %d: %d objects in the trust domain", k, len(have))
					}
				}
				return r
			}
			for _, k := range killtest.Steps(t, once(0).Changes, 12) {
				once(k)
			}
		})
	}
}

// killBefore runs a child that does the action, and kills it before its k-th change; 0:
// never.
func killBefore(t *testing.T, k int, s *Store, spec api.ImageSpec, action string) killtest.Result {
	t.Helper()
	cmd := maker(s, spec, "")
	r := killtest.Run(t, k, append(cmd.Env, actionEnv+"="+action), cmd.Path)
	if r.Status > 0 {
		t.Fatalf("change %d: exit status %d", k, r.Status)
	}
	return r
}

// killAfter runs a child that does the action, and reports whether it was killed before its
// end.
func killAfter(t *testing.T, cmd *exec.Cmd, action string, after time.Duration) bool {
	t.Helper()
	cmd.Env = append(cmd.Env, actionEnv+"="+action)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if _, err := io.ReadFull(out, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer timer.Stop()
	_, err = io.ReadAll(out)
	must(t, err)
	err = cmd.Wait()
	if err != nil && err.Error() != "signal: killed" {
		t.Fatal(err)
	}
	return err != nil
}

func TestOneOfManyBuildsTheOthersWait(t *testing.T) {
	dir := open(t).dir
	spec := heavy(t, "base")
	var mu sync.Mutex
	built := 0
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			img, changed, err := s.Build(t.Context(), spec, nil)
			if err != nil || img.ID == "" {
				t.Errorf("build: %q, %v", img.ID, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if changed {
				built++
			}
		})
	}
	wg.Wait()
	if built != 1 {
		t.Errorf("%d of 6 built the image, want 1", built)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("list: %v, %v", list, err)
	}
	contains(t, s, list[0])
}

func TestWaitingForAnotherBuilderCanBeCancelled(t *testing.T) {
	s := open(t)
	spec := archive(t, "base", map[string]string{"x": "y"})
	inside, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		var once sync.Once
		_, _, err := s.Build(context.Background(), spec, func(api.Event) {
			once.Do(func() { close(inside); <-leave })
		})
		done <- err
	}()
	<-inside
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, _, err := s.Build(ctx, spec, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting build: %v, want cancelled", err)
	}
	// A living build's directory is not swept by others.
	other := made(t, s, archive(t, "other", map[string]string{"x": "z"}))
	close(leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	img, err := s.Get(t.Context(), "base")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, s, img, other)
}

func TestFullDiskLeavesNoHalfImage(t *testing.T) {
	source := open(t)
	spec := heavy(t, "base") // 13 MB
	img := made(t, source, spec)
	var stream bytes.Buffer
	if err := source.Export(t.Context(), img.ID, &stream); err != nil {
		t.Fatal(err)
	}

	runtime.LockOSThread() // never unlocked: the mount goes with the thread
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	disk := t.TempDir()
	if err := unix.Mount("test", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	s, err := Open(filepath.Join(disk, ".images"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), disk) || !strings.Contains(err.Error(), "MiB free") {
			t.Errorf("%s: %v, want no space left, where, and how much there is", what, err)
		}
		contains(t, s)
	}
	_, _, err = s.Build(t.Context(), spec, nil)
	check("build", err)
	size := stream.Len()
	_, _, err = s.Import(t.Context(), &stream, img.ID)
	check("import", err)
	// What cannot fit is not begun: others would have had a full disk meanwhile.
	if read := size - stream.Len(); read > size/2 {
		t.Errorf("%d of %d bytes were taken before it was refused", read, size)
	}

	if err := unix.Mount("test", disk, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if got := made(t, s, spec); got.ID != img.ID {
		t.Errorf("built %s, want %s", got.ID, img.ID)
	}
	contains(t, s, img)
	if free, err := s.Free(); err != nil || free <= 0 || free > 64<<20 {
		t.Errorf("%d bytes free, %v", free, err)
	}
}

func BenchmarkImport(b *testing.B) {
	s := open(b)
	files := make(map[string]string)
	for i := range 64 {
		files[fmt.Sprint("file", i)] = strings.Repeat(fmt.Sprintf("%06d some text that compresses\n", i), 1<<15)
	}
	img := made(b, s, archive(b, "base", files))
	var stream bytes.Buffer
	if err := s.Export(b.Context(), img.ID, &stream); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(img.Bytes)
	for b.Loop() {
		if _, _, err := open(b).Import(b.Context(), bytes.NewReader(stream.Bytes()), img.ID); err != nil {
			b.Fatal(err)
		}
	}
}
