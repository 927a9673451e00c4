package owners

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// netRaw is security.capability of a file with cap_net_raw=ep, version 2.
var netRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// plant makes a guest's tree whose files have the ids that as returns for those inside.
func plant(t *testing.T, as func(uid, gid int) (int, int)) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"bin", "home/me", "var/mail", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for _, f := range []struct {
		name     string
		mode     uint32
		uid, gid int
	}{
		{"bin/su", 0o4755, 0, 0}, {"bin/wall", 0o2755, 0, 5}, {"bin/ping", 0o755, 0, 0}, {"home/me/file", 0o600, 1000, 1000},
		{"var/mail/me", 0o660, 1000, 8}, {"home/me/nobody", 0o644, 65534, 65534},
	} {
		path := filepath.Join(root, f.name)
		must(t, os.WriteFile(path, []byte(f.name), 0o600))
		uid, gid := as(f.uid, f.gid)
		must(t, os.Chown(path, uid, gid))
		must(t, unix.Chmod(path, f.mode))
	}
	must(t, unix.Setxattr(root+"/bin/ping", capsAttr, netRaw, 0))
	must(t, unix.Mkfifo(root+"/tmp/pipe", 0o600))
	must(t, os.Symlink("/etc/shadow", root+"/tmp/link"))
	must(t, os.Link(root+"/home/me/file", root+"/home/me/again"))
	for _, name := range []string{"home/me", "var/mail", "tmp/pipe", "tmp/link", "."} {
		uid, gid := as(0, 8)
		if name == "home/me" {
			uid, gid = as(1000, 1000)
		}
		must(t, os.Lchown(filepath.Join(root, name), uid, gid))
	}
	must(t, unix.Chmod(root+"/var/mail", 0o2775))
	return root
}

// listing describes all files of a tree.
func listing(t *testing.T, root string) (out []string) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		rel, err := filepath.Rel(root, path)
		caps := make([]byte, 100)
		n, _ := unix.Lgetxattr(path, capsAttr, caps)
		out = append(out, fmt.Sprintf("%s %o %d:%d %x", rel, st.Mode, st.Uid, st.Gid, caps[:max(n, 0)]))
		return err
	}))
	return out
}

func TestTreesGetPlainOwners(t *testing.T) {
	plain := func(uid, gid int) (int, int) { return uid, gid }
	want := listing(t, plant(t, plain))
	for _, row := range []struct {
		what string
		as   func(uid, gid int) (int, int)
		tags []uint32
		want Scheme
	}{
		{"plain owners", plain, []uint32{42}, Scheme{Kind: Plain}},
		{"tags of 24 bits, small", func(u, g int) (int, int) { return u, g | 42<<24 }, []uint32{42}, Scheme{ID24, 42}},
		{"tags of 24 bits", func(u, g int) (int, int) { return u | 0x9c<<24, g | 0x40<<24 }, []uint32{0x9c40}, Scheme{ID24, 0x9c40}},
		{"tags of 24 bits that nobody remembers", func(u, g int) (int, int) { return u | 0x9c<<24, g | 0x40<<24 }, []uint32{7}, Scheme{ID24, 0x9c40}},
		{"tags in user ids", func(u, g int) (int, int) { return u | 42<<16, g }, []uint32{42}, Scheme{UID16, 42}},
		{"tags in group ids, forgotten", func(u, g int) (int, int) { return u, g | 43<<16 }, nil, Scheme{GID16, 43}},
		{"shifted ids", func(u, g int) (int, int) { return u + 120<<16, g + 120<<16 }, []uint32{7}, Scheme{Shifted, 120}},
	} {
		t.Run(row.what, func(t *testing.T) {
			root := plant(t, row.as)
			// What the host's root made outside a context has no tag.
			must(t, os.Chown(root+"/bin", 0, 0))
			s, err := Look(t.Context(), root, row.tags...)
			must(t, err)
			if s.Scheme != row.want || s.Foreign != 0 || (s.Files == 0) != (row.want.Kind == Plain) {
				t.Fatalf("looked: %+v, want %+v", s, row.want)
			}
			must(t, s.Apply(t.Context(), root))
			if d := cmp.Diff(want, listing(t, root)); d != "" {
				t.Error(d)
			}
			again, err := Look(t.Context(), root, row.tags...)
			must(t, err)
			if again.Files != 0 || again.Scheme.Kind != Plain {
				t.Errorf("looked again: %+v", again)
			}
			must(t, s.Apply(t.Context(), root)) // as after a kill
			if d := cmp.Diff(want, listing(t, root)); d != "" {
				t.Error(d)
			}
			if a, b := stat(t, root+"/home/me/file"), stat(t, root+"/home/me/again"); a.Ino != b.Ino {
				t.Error("a hard link has become a copy")
			}
		})
	}
}

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	must(t, unix.Lstat(path, &st))
	return st
}

// After each step of a chown, killed there, the whole is the same.
func TestWhatAKillLeavesIsFinished(t *testing.T) {
	as := func(u, g int) (int, int) { return u | 42<<16, g }
	want := listing(t, plant(t, func(u, g int) (int, int) { return u, g }))
	for _, row := range []struct {
		what   string
		killed func(root string) error
	}{
		{"an owner is given, and the setuid bit is gone", func(root string) error { return os.Chown(root+"/bin/su", 0, 0) }},
		{"the capabilities are gone", func(root string) error { return os.Chown(root+"/bin/ping", 0, 0) }},
		{"half of the files", func(root string) error {
			return filepath.WalkDir(root+"/home", func(path string, _ os.DirEntry, err error) error {
				st := stat(t, path)
				return os.Lchown(path, int(st.Uid&0xffff), int(st.Gid))
			})
		}},
	} {
		t.Run(row.what, func(t *testing.T) {
			root := plant(t, as)
			s, err := Look(t.Context(), root, 42)
			must(t, err)
			must(t, row.killed(root))
			must(t, s.Apply(t.Context(), root))
			if d := cmp.Diff(want, listing(t, root)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestForeignOwnersAreCountedAndLeft(t *testing.T) {
	root := plant(t, func(u, g int) (int, int) { return u | 42<<16, g })
	must(t, os.Chown(root+"/home/me/nobody", 5_000_000, 1))
	s, err := Look(t.Context(), root, 42)
	must(t, err)
	if s.Foreign != 1 || s.Example != "home/me/nobody" || s.Scheme != (Scheme{UID16, 42}) {
		t.Fatalf("looked: %+v", s)
	}
	must(t, s.Apply(t.Context(), root))
	if st := stat(t, root+"/home/me/nobody"); st.Uid != 5_000_000 {
		t.Errorf("its owner is %d", st.Uid)
	}
}

// Unified files are immutable and shared with the trees of other guests.
func TestUnifiedFilesBecomeTheTreesOwn(t *testing.T) {
	root := plant(t, func(u, g int) (int, int) { return u, g })
	other := filepath.Dir(root) + "/other"
	must(t, os.Mkdir(other, 0o755))
	for _, name := range []string{"bin/ping", "bin/su", "home/me/file"} {
		must(t, os.Link(filepath.Join(root, name), filepath.Join(other, filepath.Base(name))))
		chattr(t, filepath.Join(root, name), true)
		t.Cleanup(func() { chattr(t, filepath.Join(other, filepath.Base(name)), false) })
	}
	must(t, os.WriteFile(root+"/bin/"+tmpName+"0", []byte("of a killed call"), 0o600))
	want := listing(t, root)
	s, err := Look(t.Context(), root)
	must(t, err)
	if s.Shared != 3 || s.SharedBytes == 0 || s.Immutable != 4 { // names: file has two
		t.Fatalf("looked: %+v", s)
	}
	must(t, s.Apply(t.Context(), root))
	var rest []string
	for _, line := range want {
		if !strings.Contains(line, tmpName) {
			rest = append(rest, line)
		}
	}
	if d := cmp.Diff(rest, listing(t, root)); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"bin/ping", "bin/su", "home/me/file"} {
		path, theirs := filepath.Join(root, name), filepath.Join(other, filepath.Base(name))
		b, err := os.ReadFile(path)
		must(t, err)
		if stat(t, path).Ino == stat(t, theirs).Ino || string(b) != name {
			t.Errorf("%s is still the others', or holds %q", name, b)
		}
		must(t, os.WriteFile(path, []byte("mine"), 0))
		if b, err := os.ReadFile(theirs); err != nil || string(b) != name {
			t.Errorf("the others' %s holds %q, %v", name, b, err)
		}
		if err := os.WriteFile(theirs, nil, 0); err == nil {
			t.Errorf("the others' %s is no longer immutable", name)
		}
	}
	if a, b := stat(t, root+"/home/me/file"), stat(t, root+"/home/me/again"); a.Ino != b.Ino || a.Nlink != 2 {
		t.Error("a hard link has become a copy")
	}
	if s, err := Look(t.Context(), root); err != nil || s.Shared != 0 || s.Immutable != 0 {
		t.Errorf("looked again: %+v, %v", s, err)
	}
}

// chattr sets or clears the immutable flag.
func chattr(t *testing.T, path string, on bool) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	must(t, err)
	flags &^= immutableFlag
	if on {
		flags |= immutableFlag
	}
	must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags))
}

func TestAccessListsOfShiftedTrees(t *testing.T) {
	root := plant(t, func(u, g int) (int, int) { return u + 120<<16, g + 120<<16 })
	acl := []byte{2, 0, 0, 0}
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, 1001 + 120<<16}, {4, 4, ^uint32(0)}, {8, 4, 33 + 120<<16}, {16, 6, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		acl = binary.LittleEndian.AppendUint16(acl, e.tag)
		acl = binary.LittleEndian.AppendUint16(acl, e.perm)
		acl = binary.LittleEndian.AppendUint32(acl, e.id)
	}
	const name = "system.posix_acl_access"
	must(t, unix.Setxattr(root+"/home/me/file", name, acl, 0))
	s, err := Look(t.Context(), root)
	must(t, err)
	must(t, s.Apply(t.Context(), root))
	got := make([]byte, 100)
	n, err := unix.Getxattr(root+"/home/me/file", name, got)
	must(t, err)
	var ids []uint32
	for at := 4; at < n; at += 8 {
		if id := binary.LittleEndian.Uint32(got[at+4:]); id != ^uint32(0) {
			ids = append(ids, id)
		}
	}
	if d := cmp.Diff([]uint32{1001, 33}, ids); d != "" {
		t.Error(d)
	}
}

// Links lead nowhere, and what is mounted in the tree is not the guest's.
func TestNothingOutsideTheTreeIsTouched(t *testing.T) {
	as := func(u, g int) (int, int) { return u | 42<<16, g }
	root := plant(t, as)
	outside := filepath.Dir(root) + "/outside"
	must(t, os.Mkdir(outside, 0o755))
	must(t, os.WriteFile(outside+"/file", nil, 0o644))
	must(t, os.Chown(outside, 42<<16, 0))
	must(t, os.Chown(outside+"/file", 42<<16, 0))
	must(t, os.Symlink(outside, root+"/tmp/out"))
	must(t, os.Symlink(outside+"/file", root+"/tmp/file"))
	s, err := Look(t.Context(), root, 42)
	must(t, err)
	must(t, s.Apply(t.Context(), root))
	for _, path := range []string{outside, outside + "/file"} {
		if st := stat(t, path); st.Uid != 42<<16 {
			t.Errorf("%s is %d's", path, st.Uid)
		}
	}
	if err := s.restore(-1, Kept{Path: "../outside/file", Mode: 0o4755}); err == nil {
		t.Error("a path led out of the tree")
	}
}
