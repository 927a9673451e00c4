package transport

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

func TestTrustKeepsWhatIsThere(t *testing.T) {
	key, _ := sshtest.NewKey(t, t.TempDir(), "host")
	unknown := func(name, file string) *UnknownKeyError {
		return &UnknownKeyError{Key: key.PublicKey(), Name: name + ":22", File: file}
	}
	t.Run("lines, mode, a link, and a last line without its end", func(t *testing.T) {
		dir := t.TempDir()
		file, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
		const old = "# mine\nold 1024 35 1234567"
		write(t, file, old)
		if err := os.Chmod(file, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("real", link); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time there is nothing to add
			if err := new(Dialer).Trust(t.Context(), []*UnknownKeyError{unknown("a", link), unknown("b", link), unknown("a", link)}); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		if !strings.HasPrefix(string(b), old+"\n") || len(lines) != 5 || !strings.HasPrefix(lines[2], "a ssh-ed25519 ") || !strings.HasPrefix(lines[3], "b ") {
			t.Errorf("%q", b)
		}
		info, err := os.Lstat(link)
		if err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("the link is %v, error %v", info.Mode(), err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("mode %v, error %v", info.Mode(), err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".known_hosts-*")); left != nil {
			t.Errorf("left over: %v", left)
		}
	})
	t.Run("what another controller adds at the same moment", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "new", "known_hosts")
		var all sync.WaitGroup
		const n = 20
		for i := range n {
			all.Go(func() {
				if err := new(Dialer).Trust(t.Context(), []*UnknownKeyError{unknown(fmt.Sprint("host", i), file)}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		b, err := os.ReadFile(file)
		if err != nil || strings.Count(string(b), "\n") != n {
			t.Errorf("%d lines of %d, error %v", strings.Count(string(b), "\n"), n, err)
		}
	})
}
