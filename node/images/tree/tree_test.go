package tree

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// acl returns a POSIX ACL in the format of the kernel, with one named user.
func acl(user uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, user}, {4, 4, ^uint32(0)}, {16, 4, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// netRaw is security.capability of a program with cap_net_raw=ep, as ping has.
var netRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plant makes a tree with one of everything.
func plant(t testing.TB, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string, mode uint32) {
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), []byte(content), 0o600))
		must(t, unix.Chmod(at(name), mode))
	}
	write("usr/bin/su", "setuid", 0o4755)
	write("usr/bin/ping", "capable", 0o755)
	must(t, unix.Setxattr(at("usr/bin/ping"), "security.capability", netRaw, 0))
	write("usr/bin/wall", "setgid of another", 0o755)
	must(t, os.Chown(at("usr/bin/wall"), 1000, 65533))
	must(t, unix.Chmod(at("usr/bin/wall"), 0o2755))
	must(t, os.Link(at("usr/bin/su"), at("usr/bin/aaa-sorts-first")))
	must(t, os.Link(at("usr/bin/su"), at("usr/zzz")))
	must(t, os.Symlink("usr/bin", at("bin")))
	must(t, os.Symlink("/etc/passwd", at("absolute")))
	must(t, os.Symlink("../../../../outside", at("dangling")))
	must(t, os.Link(at("dangling"), at("dangling-twice")))
	must(t, os.Lchown(at("absolute"), 7, 8))
	write("odd/new\nline", "", 0o644)
	write("odd/\xff\xfe not utf-8", "", 0)
	write("odd/-rf", "x", 0o644)
	write("odd/"+strings.Repeat("n", 255), "x", 0o644)
	write("odd/"+strings.Repeat(strings.Repeat("d", 100)+"/", 5)+"deep", "x", 0o644)
	write("a-b", "sorts between a and a/x by bytes", 0o644)
	write("a/x", "x", 0o644)
	write("usr/hole", strings.Repeat("\x00", 1<<20)+"x"+strings.Repeat("\x00", 1<<20), 0o644)
	write("big", strings.Repeat("0123456789abcdef", 1<<16), 0o644)
	must(t, os.MkdirAll(at("empty/dir"), 0o755))
	must(t, unix.Chmod(at("empty/dir"), 0o1777))
	must(t, unix.Mkfifo(at("fifo"), 0o620))
	write("acl/file", "x", 0o640)
	must(t, unix.Setxattr(at("acl/file"), "system.posix_acl_access", acl(1000), 0))
	must(t, unix.Setxattr(at("acl/file"), "user.note", []byte("a\x00b"), 0))
	must(t, unix.Setxattr(at("acl/file"), "user.empty", nil, 0))
	// After the file, which would inherit it.
	must(t, unix.Setxattr(at("acl"), "system.posix_acl_default", acl(2000), 0))
	old := unix.Timespec{Sec: -86400}
	for _, name := range []string{"usr/bin/su", "absolute", "empty"} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func digest(t testing.TB, dir string) Sum {
	t.Helper()
	sum, err := Digest(context.Background(), dir)
	must(t, err)
	return sum
}

func TestRoundTripKeepsEverything(t *testing.T) {
	ctx := context.Background()
	a, b := t.TempDir(), t.TempDir()
	plant(t, a)
	var stream, again bytes.Buffer
	packed, err := Pack(ctx, a, &stream)
	must(t, err)
	if sum := digest(t, a); sum != packed {
		t.Errorf("Pack says %+v, Digest %+v", packed, sum)
	}
	unpacked, err := Unpack(ctx, b, bytes.NewReader(stream.Bytes()))
	must(t, err)
	if unpacked != packed {
		t.Errorf("Unpack says %+v, Pack %+v", unpacked, packed)
	}
	if sum := digest(t, b); sum != packed {
		t.Errorf("what was unpacked is %+v, want %+v", sum, packed)
	}
	_, err = Pack(ctx, b, &again)
	must(t, err)
	if !bytes.Equal(stream.Bytes(), again.Bytes()) {
		t.Error("the copy packs into other bytes")
	}
	// Not by the digest alone, which could be blind for both.
	var su, zzz, ping unix.Stat_t
	must(t, unix.Stat(filepath.Join(b, "usr/bin/su"), &su))
	must(t, unix.Stat(filepath.Join(b, "usr/zzz"), &zzz))
	must(t, unix.Stat(filepath.Join(b, "usr/bin/ping"), &ping))
	if su.Ino != zzz.Ino || su.Nlink != 3 || su.Mode&unix.S_ISUID == 0 || su.Mtim.Sec != -86400 {
		t.Errorf("usr/bin/su became %+v", su)
	}
	var hole unix.Stat_t
	must(t, unix.Stat(filepath.Join(b, "usr/hole"), &hole))
	if hole.Size != 2<<20+1 || hole.Blocks*512 > 1<<20 {
		t.Errorf("a file of zeros has %d bytes in %d blocks, want it sparse", hole.Size, hole.Blocks)
	}
	value := make([]byte, 64)
	n, err := unix.Getxattr(filepath.Join(b, "usr/bin/ping"), "security.capability", value)
	if err != nil || !bytes.Equal(value[:n], netRaw) {
		t.Errorf("capability of ping: %x, %v", value[:n], err)
	}
}

func TestExtractTakesWhatPackWrote(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	plant(t, a)
	var stream bytes.Buffer
	packed, err := Pack(context.Background(), a, &stream)
	must(t, err)
	x, err := Extract(context.Background(), b, &stream, Empty)
	must(t, err)
	if sum := digest(t, b); sum != packed || x.Entries != packed.Files || x.Bytes != packed.Bytes {
		t.Errorf("extracted %+v as %+v, want %+v", x, sum, packed)
	}
}

func TestDigestSees(t *testing.T) {
	for _, row := range []struct {
		name  string
		touch func(at func(string) string) error
		same  bool
	}{
		{"another content of equal size", func(at func(string) string) error {
			return rewrite(at("a/x"), "y")
		}, false},
		{"a permission", func(at func(string) string) error { return os.Chmod(at("a/x"), 0o600) }, false},
		{"a setuid bit that is gone", func(at func(string) string) error { return os.Chmod(at("usr/bin/su"), 0o755) }, false},
		{"an owner", func(at func(string) string) error { return os.Lchown(at("bin"), 5, 0) }, false},
		{"a second of time", func(at func(string) string) error { return stamp(at("a/x"), 1, 0) }, false},
		{"where a link leads", func(at func(string) string) error {
			if err := os.Remove(at("bin")); err != nil {
				return err
			}
			return os.Symlink("usr/sbin", at("bin"))
		}, false},
		{"a hard link that became a copy", func(at func(string) string) error {
			if err := os.Remove(at("usr/zzz")); err != nil {
				return err
			}
			return os.WriteFile(at("usr/zzz"), []byte("setuid"), 0o755)
		}, false},
		{"a capability", func(at func(string) string) error { return unix.Removexattr(at("usr/bin/ping"), "security.capability") }, false},
		{"an attribute's value", func(at func(string) string) error {
			return unix.Setxattr(at("acl/file"), "user.note", []byte("a\x00c"), 0)
		}, false},
		{"a default ACL", func(at func(string) string) error { return unix.Removexattr(at("acl"), "system.posix_acl_default") }, false},
		{"a new empty directory", func(at func(string) string) error { return os.Mkdir(at("empty/er"), 0o755) }, false},
		{"a name", func(at func(string) string) error { return os.Rename(at("a/x"), at("a/y")) }, false},
		{"no fraction of a second", func(at func(string) string) error { return stamp(at("a/x"), 0, 5) }, true},
		{"no attribute of the host", func(at func(string) string) error {
			return unix.Setxattr(at("a"), "trusted.overlay.opaque", []byte("y"), 0)
		}, true},
		{"nothing of the root directory", func(at func(string) string) error { return os.Chmod(at("."), 0o700) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			plant(t, dir)
			at := func(name string) string { return filepath.Join(dir, name) }
			for _, name := range []string{"a/x", "a", "empty", "usr", "acl/file"} {
				must(t, stamp(at(name), 0, 0))
			}
			before := digest(t, dir)
			must(t, row.touch(at))
			for _, name := range []string{"a", "empty", "usr"} { // not by their times
				must(t, stamp(at(name), 0, 0))
			}
			if after := digest(t, dir); (after.ID == before.ID) != row.same {
				t.Errorf("ID is the same: %v, want %v", after.ID == before.ID, row.same)
			}
		})
	}
}

// stamp sets a file's time to a fixed one, and some more.
func stamp(name string, sec, nsec int64) error {
	at := unix.Timespec{Sec: 1e9 + sec, Nsec: nsec}
	return unix.UtimesNano(name, []unix.Timespec{at, at})
}

func rewrite(name, content string) error {
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		return err
	}
	return stamp(name, 0, 0)
}

func TestDigestRefusesWhatNoImageHolds(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "dev"), 0o755))
	must(t, unix.Mknod(filepath.Join(dir, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	if _, err := Digest(context.Background(), dir); err == nil || !strings.Contains(err.Error(), "dev/null is a device node") {
		t.Errorf("digest with a device node: %v", err)
	}
	must(t, Normalize(context.Background(), dir))
	if sum := digest(t, dir); sum.Files != 1 {
		t.Errorf("after Normalize: %+v, want the directory dev only", sum)
	}
}

func TestPackStopsWhenCancelled(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Pack(ctx, dir, io.Discard); err != context.Canceled {
		t.Errorf("cancelled Pack: %v", err)
	}
}

func BenchmarkDigest(b *testing.B) {
	dir := b.TempDir()
	for i := range 64 {
		must(b, os.WriteFile(filepath.Join(dir, string(rune('A'+i))), bytes.Repeat([]byte{byte(i)}, 1<<20), 0o644))
	}
	b.SetBytes(64 << 20)
	for b.Loop() {
		digest(b, dir)
	}
}

func BenchmarkUnpack(b *testing.B) {
	src := b.TempDir()
	for i := range 64 {
		must(b, os.WriteFile(filepath.Join(src, string(rune('A'+i))), bytes.Repeat([]byte{byte(i)}, 1<<20), 0o644))
	}
	var stream bytes.Buffer
	_, err := Pack(context.Background(), src, &stream)
	must(b, err)
	b.SetBytes(64 << 20)
	for b.Loop() {
		_, err := Unpack(context.Background(), b.TempDir(), bytes.NewReader(stream.Bytes()))
		must(b, err)
	}
}

// What archives hold besides the files: a commit's id (git archive), a label
// (tar -V), what was in a directory (tar -g). One volume of several is refused.
func TestEntriesThatAreNoFiles(t *testing.T) {
	raw := func(kind byte, name, content string) []byte {
		b := make([]byte, 512, 1024)
		copy(b, name)
		copy(b[100:], "0000755\x000000000\x000000000\x00")
		copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", len(content)))
		b[156] = kind
		copy(b[257:], "ustar\x0000")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		if content != "" {
			b = append(b, content...)
			b = append(b, make([]byte, 512-len(content)%512)...)
		}
		return b
	}
	end := make([]byte, 1024)
	for _, row := range []struct {
		name    string
		archive [][]byte
		entries int64
		err     string
	}{
		{"a commit's id", [][]byte{raw('g', "pax_global_header", "52 comment=0123456789abcdef0123456789abcdef01234567\n"), raw('0', "etc/motd", "hello"), end}, 1, ""},
		{"a label", [][]byte{raw('V', "backup of monday", ""), raw('0', "etc/motd", "hello"), end}, 1, ""},
		{"what was in a directory", [][]byte{raw('D', "etc/", "Ymotd\x00\x00"), raw('0', "etc/motd", "hello"), end}, 2, ""},
		{"one volume of several", [][]byte{raw('M', "etc/motd", "hello"), end}, 0, "one of several volumes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			x, err := Extract(t.Context(), dir, bytes.NewReader(bytes.Join(row.archive, nil)), Empty)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("%v, want %s", err, row.err)
				}
				return
			}
			b, _ := os.ReadFile(dir + "/etc/motd")
			if err != nil || x.Entries != row.entries || x.Nodes != 0 || string(b) != "hello" {
				t.Errorf("%+v, %q, %v", x, b, err)
			}
		})
	}
}
