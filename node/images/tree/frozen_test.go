package tree

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDigestIsFrozen holds the digest of a tree to what it was when images were
// first named by it. If it fails, every image gets another ID: the change is wrong,
// not this test.
func TestDigestIsFrozen(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"bin", "empty", "etc", "etc/nested"} {
		must(t, os.Mkdir(at(d), 0o755))
	}
	must(t, unix.Chmod(at("empty"), 0o1777))
	for _, f := range []struct {
		name, content string
		mode          uint32
	}{
		{"bin/su", "set-user-ID", 0o4755}, {"bin/ping", "capable", 0o755}, {"etc/passwd", "root:x:0:0::/:/bin/sh\n", 0o644},
		{"etc/nested/odd\nname \xff", "", 0o600}, {"a-b", "sorts between a and a/x", 0o640},
	} {
		must(t, os.WriteFile(at(f.name), []byte(f.content), 0o600))
		must(t, unix.Chmod(at(f.name), f.mode))
	}
	must(t, os.Link(at("bin/su"), at("bin/zsu")))
	must(t, os.Symlink("../etc/passwd", at("bin/link")))
	must(t, unix.Mkfifo(at("fifo"), 0o620))
	must(t, os.Lchown(at("a-b"), 1000, 65533))
	must(t, unix.Setxattr(at("bin/ping"), "security.capability", netRaw, 0))
	must(t, unix.Setxattr(at("etc/passwd"), "user.note", []byte("a\x00b"), 0))
	must(t, unix.Setxattr(at("etc/passwd"), "system.posix_acl_access", acl(1000), 0))
	for i, name := range []string{"bin/su", "bin/ping", "etc/passwd", "etc/nested/odd\nname \xff", "a-b", "bin/link", "fifo", "etc/nested", "bin", "empty", "etc"} {
		at := []unix.Timespec{{Sec: 1000000000 + int64(i), Nsec: 999}, {Sec: 1000000000 + int64(i), Nsec: 999}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, name), at, unix.AT_SYMLINK_NOFOLLOW))
	}

	want := Sum{ID: "sha256:8414d62d18baa99db1d3b05284e2db9a1bf7d402b407e9087e84ecb2a5d4756d", Bytes: 63, Files: 12}
	if sum := digest(t, dir); sum != want {
		t.Errorf("the tree is %+v, want %+v", sum, want)
	}
}
