package tree

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// write makes an archive of headers; a file's content is its name.
func write(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		must(t, tw.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := tw.Write([]byte(h.Name))
			must(t, err)
		}
	}
	must(t, tw.Close())
	return &b
}

func reg(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name + "/"} }
func sym(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}
func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

func onto(over bool) Onto {
	if over {
		return Archives
	}
	return Empty
}

// TestExtractStaysInside unpacks into <tmp>/root, beside <tmp>/outside, and
// looks at both: "in" and "out" are files that must be there with this content.
func TestExtractStaysInside(t *testing.T) {
	type files map[string]string
	outside := "" // the absolute path, for links
	for _, row := range []struct {
		name    string
		archive func() []tar.Header
		over    bool // over a tree with bin -> usr/bin
		fails   string
		in      files
	}{
		{"a path that climbs out", func() []tar.Header { return []tar.Header{reg("../outside/secret")} }, false, `".."`, nil},
		{"a path that climbs out from within", func() []tar.Header { return []tar.Header{reg("a/../../outside/secret")} }, false, `".."`, nil},
		{"a path that climbs and stays inside", func() []tar.Header { return []tar.Header{dir("a"), reg("a/../b")} }, false, `".."`, nil},
		{"an absolute path means the root", func() []tar.Header { return []tar.Header{reg("/etc/passwd")} }, false, "", files{"etc/passwd": "/etc/passwd"}},
		{"a dotted path", func() []tar.Header { return []tar.Header{reg("././etc//./passwd")} }, false, "", files{"etc/passwd": "././etc//./passwd"}},
		{"a name with dots in it", func() []tar.Header { return []tar.Header{reg("..a/...")} }, false, "", files{"..a/...": "..a/..."}},
		{"a file through an absolute link", func() []tar.Header { return []tar.Header{sym("x", outside), reg("x/secret")} }, false, "symbolic link", nil},
		{"a file through a climbing link", func() []tar.Header { return []tar.Header{sym("x", "../outside"), reg("x/secret")} }, false, "symbolic link", nil},
		{"a file through a link to /proc", func() []tar.Header { return []tar.Header{sym("x", "/proc/self/root"), reg("x/tmp")} }, false, "symbolic link", nil},
		{"a file through two links", func() []tar.Header {
			return []tar.Header{dir("d"), sym("d/x", ".."), sym("y", "d/x/../outside"), reg("y/secret")}
		}, false, "symbolic link", nil},
		{"a directory through a link", func() []tar.Header { return []tar.Header{sym("x", "../outside"), dir("x/new")} }, false, "symbolic link", nil},
		{"a missing parent through a link", func() []tar.Header { return []tar.Header{sym("x", "../outside"), reg("x/new/file")} }, false, "symbolic link", nil},
		{"a file in a link's place", func() []tar.Header { return []tar.Header{sym("x", outside+"/secret"), reg("x")} }, false, "", files{"x": "x"}},
		{"a directory in a link's place", func() []tar.Header { return []tar.Header{sym("x", "../outside"), dir("x"), reg("x/secret")} }, false, "", files{"x/secret": "x/secret"}},
		{"a hard link to a path outside", func() []tar.Header { return []tar.Header{link("x", "../outside/secret"), reg("x")} }, false, `".."`, nil},
		{"a hard link to an absolute path is one of the tree", func() []tar.Header { return []tar.Header{link("x", outside+"/secret")} }, false, "no such file", nil},
		{"a hard link through a link", func() []tar.Header {
			return []tar.Header{sym("d", "../outside"), link("x", "d/secret"), reg("x")}
		}, false, "symbolic link", nil},
		{"a hard link to a link, then written", func() []tar.Header {
			return []tar.Header{sym("s", outside+"/secret"), link("x", "s"), reg("x")}
		}, false, "", files{"x": "x"}},
		{"a hard link before its target", func() []tar.Header { return []tar.Header{link("x", "later"), reg("later")} }, false, "no such file", nil},
		{"a hard link to itself", func() []tar.Header { return []tar.Header{reg("x"), link("x", "x")} }, false, "itself", nil},
		{"a hard link to a directory", func() []tar.Header { return []tar.Header{dir("d"), link("x", "d")} }, false, "not permitted", nil},
		{"a file over a hard link leaves the other", func() []tar.Header { return []tar.Header{reg("one"), link("two", "one"), reg("two")} }, false, "", files{"one": "one", "two": "two"}},
		{"the last of two files wins", func() []tar.Header { return []tar.Header{reg("./x"), reg("x")} }, false, "", files{"x": "x"}},
		{"a file in an empty directory's place", func() []tar.Header { return []tar.Header{dir("x"), reg("x")} }, false, "", files{"x": "x"}},
		{"a file in a full directory's place", func() []tar.Header { return []tar.Header{reg("x/y"), reg("x")} }, false, "stands in the way", nil},
		{"a directory over a directory keeps the files", func() []tar.Header { return []tar.Header{dir("x"), reg("x/y"), dir("x")} }, false, "", files{"x/y": "x/y"}},
		{"a root that is a link", func() []tar.Header { return []tar.Header{sym("./", "../outside"), reg("secret")} }, false, "", files{"secret": "secret"}},
		{"a file below a file", func() []tar.Header { return []tar.Header{reg("x"), reg("x/y")} }, false, "not a directory", nil},
		{"a name that is too long", func() []tar.Header { return []tar.Header{reg(strings.Repeat("n", 256))} }, false, "name too long", nil},
		{"a sparse bomb", func() []tar.Header {
			return []tar.Header{{Typeflag: tar.TypeReg, Name: "bomb", Size: 1 << 50}}
		}, false, "MiB free", nil},
		{"a device node is left out", func() []tar.Header {
			return []tar.Header{{Typeflag: tar.TypeBlock, Name: "dev/sda", Devmajor: 8}, {Typeflag: tar.TypeChar, Name: "whiteout"}, reg("x"),
				{Typeflag: tar.TypeLink, Name: "dev/disk", Linkname: "dev/sda"}, {Typeflag: tar.TypeLink, Name: "dev/root", Linkname: "dev/disk"}}
		}, false, "", files{"x": "x"}},
		{"an ACL by names", func() []tar.Header {
			return []tar.Header{{Typeflag: tar.TypeDir, Name: "d/", PAXRecords: map[string]string{"SCHILY.acl.access": "user::rwx\nuser:alice:rwx\n"}}}
		}, false, "ACL with users' names", nil},
		{"a second archive goes through the first one's link", func() []tar.Header { return []tar.Header{reg("bin/tool")} }, true, "", files{"usr/bin/tool": "bin/tool"}},
		{"a second archive's directory does not cut a link", func() []tar.Header { return []tar.Header{dir("bin"), reg("bin/tool")} }, true, "", files{"usr/bin/tool": "bin/tool"}},
		{"a second archive's absolute link ends at the root", func() []tar.Header { return []tar.Header{sym("x", "/usr"), reg("x/file")} }, true, "", files{"usr/file": "x/file"}},
		{"a second archive's climbing link ends at the root", func() []tar.Header { return []tar.Header{sym("x", "../../../usr"), reg("x/file")} }, true, "", files{"usr/file": "x/file"}},
		{"a second archive's link out leads nowhere", func() []tar.Header { return []tar.Header{sym("x", outside), reg("x/secret")} }, true, "", nil},
		{"a second archive's magic link", func() []tar.Header { return []tar.Header{sym("x", "/proc/self/cwd"), reg("x/file")} }, true, "", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			tmp := t.TempDir()
			root := filepath.Join(tmp, "root")
			outside = filepath.Join(tmp, "outside")
			must(t, os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755))
			must(t, os.Mkdir(outside, 0o755))
			must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("untouched"), 0o600))
			if row.over {
				must(t, os.Symlink("usr/bin", filepath.Join(root, "bin")))
			}
			var before unix.Stat_t
			must(t, unix.Stat(filepath.Join(outside, "secret"), &before))

			headers := row.archive()
			var archive *bytes.Buffer
			if headers[0].Size > 0 { // promised, not written
				archive = new(bytes.Buffer)
				must(t, tar.NewWriter(archive).WriteHeader(&headers[0]))
			} else {
				archive = write(t, headers...)
			}
			umask := unix.Umask(0o077) // must not be seen in the tree
			_, err := Extract(context.Background(), root, archive, onto(row.over))
			unix.Umask(umask)
			if row.fails != "" && (err == nil || !strings.Contains(err.Error(), row.fails)) {
				t.Errorf("error is %v, want one with %q", err, row.fails)
			}
			if row.fails == "" && row.in != nil && err != nil {
				t.Errorf("extract: %v", err)
			}
			for name, want := range row.in {
				if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
					t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
				}
			}
			var after unix.Stat_t
			must(t, unix.Stat(filepath.Join(outside, "secret"), &after))
			names, err := os.ReadDir(outside)
			must(t, err)
			if len(names) != 1 || after.Ctim != before.Ctim || after.Nlink != 1 {
				t.Errorf("outside was touched: %v, %+v", names, after)
			}
			if info, err := os.Stat(filepath.Join(root, "etc")); err == nil && info.Mode().Perm() != 0o755 {
				t.Errorf("a directory that is implied is %v", info.Mode())
			}
			must(t, Normalize(context.Background(), root))
			digest(t, root) // what is there is a tree
		})
	}
}

func TestUnpackRefusesWhatPackDoesNotWrite(t *testing.T) {
	for _, row := range []struct {
		name    string
		archive []tar.Header
		fails   string
	}{
		{"a name twice", []tar.Header{reg("a"), reg("a")}, "out of order"},
		{"an earlier name later", []tar.Header{reg("b"), reg("a")}, "out of order"},
		{"a directory after its file", []tar.Header{dir("a"), reg("a/b"), dir("a")}, "out of order"},
		{"names ordered as whole paths", []tar.Header{dir("a"), reg("a-b"), reg("a/x")}, "out of order"},
		{"a missing directory", []tar.Header{reg("a/b")}, "no directory"},
		{"a link as a directory", []tar.Header{sym("a", "/etc"), reg("a/b")}, "no directory"},
		{"a file as a directory", []tar.Header{reg("a"), reg("a/b")}, "no directory"},
		{"a hard link to what comes later", []tar.Header{link("a", "b"), reg("b")}, "not a file before it"},
		{"a hard link to a hard link", []tar.Header{reg("a"), link("b", "a"), link("c", "b")}, "not a file before it"},
		{"a hard link to a directory", []tar.Header{dir("a"), link("b", "a")}, "not a file before it"},
		{"the root", []tar.Header{dir(".")}, "not an entry"},
		{"a device node", []tar.Header{{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}}, "not an entry"},
		{"a path that climbs", []tar.Header{reg("../a")}, `".."`},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, unpack := Unpack(t.Context(), t.TempDir(), write(t, row.archive...))
			_, receive := Receive(t.Context(), t.TempDir(), write(t, row.archive...), bufio.NewWriter(io.Discard))
			for _, err := range []error{unpack, receive} {
				if err == nil || !strings.Contains(err.Error(), row.fails) {
					t.Errorf("error is %v, want one with %q", err, row.fails)
				}
			}
		})
	}
}

func TestEqualArchivesMakeEqualTrees(t *testing.T) {
	var sums []Sum
	for range 2 {
		root := t.TempDir()
		_, err := Extract(context.Background(), root, write(t, reg("usr/bin/one"), sym("bin", "usr/bin"), dir("gone"), reg("gone")), Empty)
		must(t, err)
		_, err = Extract(context.Background(), root, write(t, reg("bin/two"), reg("usr/bin/three"), dir("usr"), reg("usr/four")), Archives)
		must(t, err)
		sums = append(sums, digest(t, root))
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // times count in seconds
	}
	if sums[0] != sums[1] {
		t.Errorf("the trees are %+v and %+v", sums[0], sums[1])
	}
}

func TestAttributesOfTheHostStayOut(t *testing.T) {
	root := t.TempDir()
	h := tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.redirect": "/etc",
		"SCHILY.xattr.security.selinux": "x", "SCHILY.xattr.user.mine": "kept",
	}}
	_, err := Extract(context.Background(), root, write(t, h), Empty)
	must(t, err)
	list := make([]byte, 1024)
	n, err := unix.Listxattr(filepath.Join(root, "d"), list)
	if err != nil || string(list[:n]) != "user.mine\x00" {
		t.Errorf("attributes are %q (%v), want user.mine only", list[:n], err)
	}
}

// onSmallDisk gives the rest of the test a filesystem of its own, in a
// mount namespace that goes with the test's thread.
func onSmallDisk(t testing.TB, options string) string {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	must(t, unix.Unshare(unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	dir := t.TempDir()
	must(t, unix.Mount("test", dir, "tmpfs", 0, options))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestUnpackingStopsBeforeTheDiskIsFull(t *testing.T) {
	disk := onSmallDisk(t, "size=8m")
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for i := range 16 {
		must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: string(rune('a' + i)), Mode: 0o644, Size: 1 << 20}))
		_, err := tw.Write(bytes.Repeat([]byte{1}, 1<<20))
		must(t, err)
	}
	must(t, tw.Close())
	_, err := Unpack(context.Background(), disk, &b)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), disk) || !strings.Contains(err.Error(), "MiB free") {
		t.Errorf("error is %v, want no space left, where, and how much there is", err)
	}
	var st unix.Statfs_t
	must(t, unix.Statfs(disk, &st))
	if st.Bavail == 0 {
		t.Error("nothing is left free")
	}
}

func TestUnpackingSaysThatInodesAreOut(t *testing.T) {
	disk := onSmallDisk(t, "nr_inodes=4")
	_, err := Unpack(context.Background(), disk, write(t, reg("a"), reg("b"), reg("c"), reg("d"), reg("e")))
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "0 inodes free") {
		t.Errorf("error is %v, want no space left for want of inodes", err)
	}
}

// FuzzUnpack holds that a stream, whatever it is, stays inside the root, and
// that one which is taken has the digest of what it became.
func FuzzUnpack(f *testing.F) {
	src := f.TempDir()
	plant(f, src)
	must(f, os.Remove(filepath.Join(src, "big")))
	must(f, os.Remove(filepath.Join(src, "usr/hole")))
	var stream bytes.Buffer
	_, err := Pack(context.Background(), src, &stream)
	must(f, err)
	f.Add(stream.Bytes())
	f.Add(write(f, dir("a"), reg("a/b"), link("c", "a/b"), sym("d", "a")).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		root := confined(t)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second) // for terabytes of nothing
		defer cancel()
		sum, err := Unpack(ctx, root, bytes.NewReader(data))
		if err != nil || bytes.Contains(data, []byte("posix_acl")) { // the kernel makes mode and ACL agree
			return
		}
		if got := digest(t, root); got != sum {
			t.Errorf("the stream is %+v, the tree %+v", sum, got)
		}
	})
}

func FuzzExtract(f *testing.F) {
	f.Add(write(f, sym("x", "../outside"), reg("x/secret")).Bytes(), true)
	f.Add(write(f, dir("a"), link("b", "../outside/secret"), reg("b")).Bytes(), false)
	f.Add(write(f, reg("a/b/c"), sym("a/b/d", "/"), dir("a/b/d")).Bytes(), true)
	f.Fuzz(func(t *testing.T, data []byte, over bool) {
		root := confined(t)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := Extract(ctx, root, bytes.NewReader(data), onto(over)); err == nil {
			digest(t, root)
		}
	})
}

// confined returns a root, and fails the test if anything beside it changed.
func confined(t *testing.T) (root string) {
	tmp := t.TempDir()
	root = filepath.Join(tmp, "root")
	secret := filepath.Join(tmp, "outside", "secret")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Mkdir(filepath.Dir(secret), 0o755))
	must(t, os.WriteFile(secret, nil, 0o600))
	var before unix.Stat_t
	must(t, unix.Stat(secret, &before))
	t.Cleanup(func() {
		var after unix.Stat_t
		must(t, unix.Stat(secret, &after))
		names, err := os.ReadDir(filepath.Dir(secret))
		must(t, err)
		beside, err := os.ReadDir(tmp)
		must(t, err)
		if len(names) != 1 || len(beside) != 2 || after.Ctim != before.Ctim || after.Nlink != 1 {
			t.Errorf("outside was touched: %v, %v, %+v", beside, names, after)
		}
	})
	return root
}
