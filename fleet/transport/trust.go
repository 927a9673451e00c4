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
	"syscall"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Trust adds each host key to its known_hosts file, whose lines stay as they are.
// A file is replaced as a whole: whoever reads it meanwhile, or after a controller
// was killed, finds the old file or the new one.
func (d *Dialer) Trust(ctx context.Context, keys []*UnknownKeyError) error {
	files := map[string][]string{}
	for _, key := range keys {
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
