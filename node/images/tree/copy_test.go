package tree

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func openDir(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestCopyKeepsWhatATreeHolds(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	plant(t, from)
	want := digest(t, from)
	must(t, unix.Mknod(filepath.Join(from, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(filepath.Join(from, "usr/socket"), unix.S_IFSOCK|0o666, 0))
	must(t, unix.Setxattr(filepath.Join(from, "empty"), "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(from, "usr"), []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0))
	defer unix.Umask(unix.Umask(0o077))
	got, err := Copy{From: openDir(t, from), To: to}.Copy(t.Context())
	must(t, err)
	if got.Nodes != 2 || got.Entries != want.Files {
		t.Errorf("copied %+v of %+v", got, want)
	}
	must(t, os.Remove(filepath.Join(from, "null")))
	must(t, os.Remove(filepath.Join(from, "usr/socket")))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(from, "usr"), []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0))
	if a, b := digest(t, from), digest(t, to); a != b {
		t.Errorf("the copy is %+v, want %+v", b, a)
	}
	if n, err := unix.Listxattr(filepath.Join(to, "empty"), nil); err != nil || n > 0 {
		t.Errorf("attributes came along: %d bytes, %v", n, err)
	}
}

func TestCopyLeavesOut(t *testing.T) {
	from := onSmallDisk(t, "size=1m") // a mount namespace of its own
	for _, dir := range []string{"proc", "home", "srv/data", "var/cache/apt"} {
		must(t, os.MkdirAll(filepath.Join(from, dir), 0o755))
	}
	for _, dir := range []string{"home", "srv/data"} {
		must(t, unix.Mount("test", filepath.Join(from, dir), "tmpfs", 0, "size=1m"))
	}
	for _, file := range []string{"proc/x", "home/x", "srv/data/x", "srv/x", "var/cache/apt/x", "swap"} {
		must(t, os.WriteFile(filepath.Join(from, file), nil, 0o644))
	}
	to := t.TempDir()
	_, err := Copy{
		From: openDir(t, from), To: to,
		Omit:  func(p string) bool { return p == "proc" || p == "swap" || p == "var/cache/apt" },
		Cross: func(p string) bool { return p == "srv/data" },
	}.Copy(t.Context())
	must(t, err)
	var got []string
	must(t, filepath.Walk(to, func(p string, info os.FileInfo, err error) error {
		if rel, _ := filepath.Rel(to, p); rel != "." {
			got = append(got, rel)
		}
		return err
	}))
	if want := "home proc srv srv/data srv/data/x srv/x var var/cache var/cache/apt"; strings.Join(got, " ") != want {
		t.Errorf("copied %q, want %q", got, want)
	}
}

// Files grow, shrink, disappear and are replaced while they are copied.
func TestCopyOfWhatChanges(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{"a-grows", "b-shrinks", "c-goes", "d-becomes-a-pipe"} {
		must(t, os.WriteFile(filepath.Join(from, name), bytes.Repeat([]byte("x"), 3<<20), 0o644))
	}
	must(t, os.Link(filepath.Join(from, "c-goes"), filepath.Join(from, "e-linked")))
	done := false
	c := Copy{From: openDir(t, from), To: to, Changing: true, Report: func(int64) {
		if done {
			return
		}
		done = true
		must(t, os.Truncate(filepath.Join(from, "a-grows"), 4<<20))
		must(t, os.Truncate(filepath.Join(from, "b-shrinks"), 1<<20))
		must(t, os.Remove(filepath.Join(from, "c-goes")))
		must(t, os.Remove(filepath.Join(from, "d-becomes-a-pipe")))
		must(t, unix.Mkfifo(filepath.Join(from, "d-becomes-a-pipe"), 0o600))
	}}
	_, err := c.Copy(t.Context())
	must(t, err)
	for name, want := range map[string]int64{"a-grows": 3 << 20, "b-shrinks": 1 << 20, "c-goes": -1, "d-becomes-a-pipe": 0, "e-linked": 3 << 20} {
		size := int64(-1)
		if info, err := os.Lstat(filepath.Join(to, name)); err == nil {
			size = info.Size()
		}
		if size != want {
			t.Errorf("%s has %d bytes, want %d", name, size, want)
		}
	}
}

func TestCopyOfALayerStaysOne(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(from, "d"), 0o700))
	must(t, unix.Setxattr(filepath.Join(from, "d"), "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Mknod(filepath.Join(from, "gone"), unix.S_IFCHR, 0))
	must(t, CopyLayer(t.Context(), openDir(t, from), to))
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(to, "gone"), &st))
	buf := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(to, "d"), "trusted.overlay.opaque", buf); err != nil || string(buf[:n]) != "y" || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("opaque is %q (%v), the whiteout has mode %o", buf[:n], err, st.Mode)
	}
	must(t, Normalize(t.Context(), to)) // what is no layer any more keeps nothing of it
	if n, err := unix.Listxattr(filepath.Join(to, "d"), nil); err != nil || n > 0 {
		t.Errorf("attributes are left: %d bytes, %v", n, err)
	}
}

// TestLayers stacks a layer on a tree of usr/bin/{a,b}, bin -> usr/bin, etc/{x,y}, and
// out, a link that leads out of it.
func TestLayers(t *testing.T) {
	type files map[string]string // "-": it is not there
	for _, row := range []struct {
		name  string
		layer []tar.Header
		fails string
		want  files
	}{
		{"a marker removes a file", []tar.Header{reg("etc/.wh.x")}, "", files{"etc/x": "-", "etc/y": "below", "etc/.wh.x": "-"}},
		{"a marker removes a directory", []tar.Header{reg(".wh.etc")}, "", files{"etc": "-"}},
		{"a marker removes a link, and not what it leads to", []tar.Header{reg(".wh.bin")}, "", files{"bin": "-", "usr/bin/a": "below"}},
		{"a marker goes through a link", []tar.Header{reg("bin/.wh.a")}, "", files{"usr/bin/a": "-", "usr/bin/b": "below"}},
		{"a marker leaves what its own layer has, before it", []tar.Header{reg("etc/x"), reg("etc/.wh.x")}, "", files{"etc/x": "etc/x"}},
		{"a marker leaves what its own layer has, after it", []tar.Header{reg("etc/.wh.x"), reg("etc/x")}, "", files{"etc/x": "etc/x"}},
		{"a marker of nothing", []tar.Header{reg("no/.wh.thing"), reg("etc/x/.wh.y")}, "", files{"etc/x": "below", "no": "-"}},
		{"opaque hides what is below", []tar.Header{dir("etc"), reg("etc/.wh..wh..opq"), reg("etc/new")}, "", files{"etc/x": "-", "etc/y": "-", "etc/new": "etc/new", "etc/.wh..wh..opq": "-"}},
		{"opaque after its neighbours", []tar.Header{dir("etc"), reg("etc/new"), reg("etc/.wh..wh..opq")}, "", files{"etc/x": "-", "etc/new": "etc/new"}},
		{"opaque root", []tar.Header{reg(".wh..wh..opq"), reg("new")}, "", files{"etc": "-", "bin": "-", "new": "new"}},
		{"aufs's own files", []tar.Header{dir(".wh..wh.plnk"), reg(".wh..wh.aufs")}, "", files{".wh..wh.plnk": "-", ".wh..wh.aufs": "-", "etc/x": "below"}},
		{"a marker that climbs", []tar.Header{reg("../outside/.wh.secret")}, `".."`, nil},
		{"a marker of the directory itself", []tar.Header{reg("etc/.wh..")}, "removes no file's name", nil},
		{"a marker of the parent", []tar.Header{reg("etc/.wh...")}, "removes no file's name", nil},
		{"a marker of no name", []tar.Header{reg("etc/.wh.")}, "removes no file's name", nil},
		{"a marker through a link out", []tar.Header{reg("out/.wh.secret")}, "", files{}},
		{"a file replaces a full directory", []tar.Header{reg("etc")}, "", files{"etc": "etc"}},
		{"a directory replaces a link", []tar.Header{dir("bin"), reg("bin/new")}, "", files{"bin/new": "bin/new", "usr/bin/new": "-"}},
		{"a file below a link follows it", []tar.Header{reg("bin/new")}, "", files{"usr/bin/new": "bin/new"}},
		{"a hard link to a file below", []tar.Header{link("etc/z", "etc/x")}, "", files{"etc/z": "below"}},
		{"a hard link before its target", []tar.Header{link("new/z", "new/x"), reg("new/x")}, "no such file", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			root := confined(t)
			for _, name := range []string{"usr/bin/a", "usr/bin/b", "etc/x", "etc/y"} {
				must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755))
				must(t, os.WriteFile(filepath.Join(root, name), []byte("below"), 0o644))
			}
			must(t, os.Symlink("usr/bin", filepath.Join(root, "bin")))
			must(t, os.Symlink("../outside", filepath.Join(root, "out")))
			archive := write(t, row.layer...).Bytes()
			m, err := ReadMarkers(t.Context(), bytes.NewReader(archive), 1<<30)
			if err == nil {
				err = m.Apply(t.Context(), root)
			}
			if err == nil {
				_, err = Extract(t.Context(), root, bytes.NewReader(archive), Layers)
			}
			if row.fails == "" && err != nil || row.fails != "" && (err == nil || !strings.Contains(err.Error(), row.fails)) {
				t.Errorf("error is %v, want %q", err, row.fails)
			}
			for name, want := range row.want {
				got := "-"
				if b, err := os.ReadFile(filepath.Join(root, name)); err == nil {
					got = string(b)
				} else if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
					got = "there"
				}
				if got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestTooManyEntriesAreRefused(t *testing.T) {
	defer func(n int) { maxEntries = n }(maxEntries)
	maxEntries = 100
	var names []tar.Header
	for range 101 { // each replaces the one before: the disk stays empty
		names = append(names, reg("x"))
	}
	if _, err := Extract(t.Context(), t.TempDir(), write(t, names...), Empty); err == nil || !strings.Contains(err.Error(), "more than 100 files") {
		t.Errorf("extract: %v", err)
	}
	// What another host sends is not on the disk by then, if it is directories alone.
	for i := range names {
		names[i] = dir(fmt.Sprintf("d%03d", i))
	}
	if _, err := Unpack(t.Context(), t.TempDir(), write(t, names...)); err == nil || !strings.Contains(err.Error(), "more than 100 files") {
		t.Errorf("unpack: %v", err)
	}
	if _, err := Receive(t.Context(), t.TempDir(), write(t, names...), bufio.NewWriter(io.Discard)); err == nil || !strings.Contains(err.Error(), "more than 100 files") {
		t.Errorf("receive: %v", err)
	}
	from := t.TempDir()
	for i := range 101 {
		must(t, os.Mkdir(filepath.Join(from, strings.Repeat("d", i+1)), 0o755))
	}
	if _, err := (Copy{From: openDir(t, from), To: t.TempDir()}).Copy(t.Context()); err == nil || !strings.Contains(err.Error(), "more than 100 files") {
		t.Errorf("copy: %v", err)
	}
}

// What an archive holds is not kept in memory: a million files cost as much as a few.
func TestFilesCostNoMemory(t *testing.T) {
	headers := func(n int) []byte {
		h := make([]tar.Header, n)
		for i := range h {
			h[i] = tar.Header{Typeflag: tar.TypeReg, Name: "d/" + strings.Repeat("n", 80), Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 100)}}
		}
		return write(t, h...).Bytes()
	}
	archive := headers(30000)
	var before, after runtime.MemStats
	root := onSmallDisk(t, "size=8m")
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	_, err := Extract(t.Context(), root, &watched{Reader: bytes.NewReader(archive), every: 1 << 23, look: func() {
		runtime.GC()
		runtime.ReadMemStats(&after)
		peak = max(peak, after.HeapAlloc)
	}}, Empty)
	must(t, err)
	if grown := int64(peak) - int64(before.HeapAlloc); peak == 0 || grown > 4<<20 {
		t.Errorf("the heap grew by %d KiB in the middle of 30000 files", grown>>10)
	}
}

type watched struct {
	*bytes.Reader
	n, every int
	look     func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if w.n += n; w.n >= w.every {
		w.n = 0
		w.look()
	}
	return n, err
}

// FuzzLayer holds that markers and entries of a layer stay inside the root.
func FuzzLayer(f *testing.F) {
	f.Add(write(f, reg("out/.wh.secret"), reg("a/.wh..wh..opq"), dir("a"), sym("b", "a")).Bytes())
	f.Add(write(f, reg(".wh.."), link("x", "out/secret")).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		root := confined(t)
		must(t, os.Mkdir(filepath.Join(root, "a"), 0o755))
		must(t, os.Symlink("../outside", filepath.Join(root, "out")))
		m, err := ReadMarkers(t.Context(), bytes.NewReader(data), 1<<20)
		if err != nil {
			return
		}
		if err := m.Apply(t.Context(), root); err != nil {
			return
		}
		if _, err := Extract(t.Context(), root, bytes.NewReader(data), Layers); err == nil {
			digest(t, root)
		}
	})
}
