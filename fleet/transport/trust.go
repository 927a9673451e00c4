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

// Trust makes host keys known: each is added to its known_hosts file, whose
// lines stay as they are. A file is replaced as a whole, so one that is read
// meanwhile, or a controller that is killed, sees the old one or the new one.
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
	d.known.forget()
	return nil
}

// appendLines adds lines that are not there to a file, which may not be there.
func appendLines(ctx context.Context, file string, lines []string) (err error) {
	if linked, err := filepath.EvalSymlinks(file); err == nil {
		file = linked
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Two controllers at once: the second adds to what the first has written.
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
	have := strings.Split(string(old), "\n")
	if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
		old = append(old, '\n')
	}
	for _, line := range lines {
		if !slices.Contains(have, line) {
			old, have = append(append(old, line...), '\n'), append(have, line)
		}
	}
	mode, give := fs.FileMode(0o600), func(*os.File) error { return nil }
	if was, err := os.Stat(file); err == nil {
		owner := was.Sys().(*syscall.Stat_t)
		mode, give = was.Mode().Perm(), func(f *os.File) error { return f.Chown(int(owner.Uid), int(owner.Gid)) }
	}
	return linux.ReplaceFileSync(file, mode, func(f *os.File) error {
		if err := give(f); err != nil {
			return err
		}
		_, err := f.Write(old)
		return err
	})
}
