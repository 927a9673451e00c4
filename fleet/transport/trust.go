package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Trust adds each host key to its known_hosts file, whose lines stay as they are.
// A file is replaced as a whole: whoever reads it meanwhile, or after a controller
// was killed, finds the old file or the new one.
func (d *Dialer) Trust(ctx context.Context, keys []*UnknownKeyError) error {
	files := map[string][]string{}
	for _, key := range keys {
		if info, err := os.Stat(key.File); err == nil && !info.Mode().IsRegular() {
			d.session.add(key)
			continue
		}
		files[key.File] = append(files[key.File], key.Line())
	}
	for file, lines := range files {
		if err := appendLines(ctx, file, lines); err != nil {
			return fmt.Errorf("add to known hosts: %w", err)
		}
	}
	d.known.clear()
	d.bastions.retry()
	return nil
}

// sessionKeys are the keys that are trusted by this process alone, by endpoint: those whose
// file is /dev/null, as ssh_config has it where host keys are not to be kept. Such a
// file must not be replaced.
type sessionKeys struct {
	mu   sync.Mutex
	keys map[string][]ssh.PublicKey
}

func (k *sessionKeys) add(e *UnknownKeyError) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = map[string][]ssh.PublicKey{}
	}
	k.keys[e.Name] = append(k.keys[e.Name], e.Key)
}

// has reports whether a key is trusted for an endpoint; any key, if key is nil.
func (k *sessionKeys) has(endpoint string, key ssh.PublicKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.keys[endpoint], func(have ssh.PublicKey) bool { return key == nil || sameKey(have, key) })
}

// appendLines adds lines to a file unless it has them. The file is made if it does
// not exist.
func appendLines(ctx context.Context, file string, lines []string) (err error) {
	if linked, err := filepath.EvalSymlinks(file); err == nil {
		file = linked
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Of two controllers at once, the second adds to what the first has written.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	lock, err := linux.LockDir(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	existing := strings.Split(string(old), "\n")
	if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
		old = append(old, '\n')
	}
	for _, line := range lines {
		if !slices.Contains(existing, line) {
			old, existing = append(append(old, line...), '\n'), append(existing, line)
		}
	}
	mode, chown := fs.FileMode(0o600), func(*os.File) error { return nil }
	if info, err := os.Stat(file); err == nil {
		owner := info.Sys().(*syscall.Stat_t)
		mode, chown = info.Mode().Perm(), func(f *os.File) error { return f.Chown(int(owner.Uid), int(owner.Gid)) }
	}
	return linux.ReplaceFileSync(file, mode, func(f *os.File) error {
		if err := chown(f); err != nil {
			return err
		}
		_, err := f.Write(old)
		return err
	})
}
