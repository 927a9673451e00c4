package tree

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// deep makes directories in one another, more than a process may open at once and
// with a path that no system call takes, and puts a file into the last.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range levels {
		if err == nil {
			err = unix.Mkdirat(fd, "deeper", 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		up := fd
		fd, err = unix.Openat(up, "deeper", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(up)
	}
	if err == nil {
		err = unix.Mknodat(fd, "file", unix.S_IFREG|0o600, 0)
	}
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
}

func TestRemoveTakesATreeOfAnyDepth(t *testing.T) {
	few := syscall.Rlimit{Cur: 256, Max: 256}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few.Max = old.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)

	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tree")
	for _, sub := range []string{"", "/a", "/a/b", "/many"} {
		if err := os.Mkdir(dir+sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	deep(t, dir, 3000)
	deep(t, dir+"/a/b", 700)
	for i := range 2500 {
		if err := os.Symlink(outside, dir+"/many/"+strings.Repeat("x", i/100+1)+string(rune('a'+i%26))+string(rune('a'+i/26%26))); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	// A name that it would have used itself.
	if err := os.WriteFile(dir+"/.lifted-1", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("what a link leads to: %v", err)
	}
	if err := Remove(dir); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := os.Symlink(outside, dir); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir); err != nil {
		t.Errorf("a link: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("what a link leads to: %v", err)
	}
}

func TestTreeThatIsTooDeepIsRefusedInALine(t *testing.T) {
	dir := t.TempDir()
	deep(t, dir, 1000)
	defer Remove(filepath.Join(dir, "deeper"))
	_, err := Digest(t.Context(), dir)
	if err == nil || len(err.Error()) > 600 || !strings.Contains(err.Error(), "no program can name") {
		t.Errorf("error %v", err)
	}
}

func TestRemoveLeavesWhatIsMountedAndSaysSoInALine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	at := dir + strings.Repeat("/"+strings.Repeat("d", 200), 15)
	if err := errors.Join(os.MkdirAll(at, 0o700), os.WriteFile(dir+"/file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(unix.Unmount(at, unix.MNT_DETACH), Remove(dir)); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(at+"/kept", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := Remove(dir)
	if err == nil || len(err.Error()) > 600 || !errors.Is(err, unix.EBUSY) && !strings.Contains(err.Error(), "mounted") {
		t.Errorf("error of %d bytes: %v", len(err.Error()), err)
	}
	if _, err := os.Lstat(at + "/kept"); err != nil {
		t.Errorf("what is mounted: %v", err)
	}
	if _, err := os.Lstat(dir + "/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is beside: %v", err)
	}
}
