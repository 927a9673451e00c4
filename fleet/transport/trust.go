package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Trust makes host keys known: each is added to its known_hosts file, whose
// lines stay as they are. A file is replaced as a whole, so one that is read
// meanwhile, or a controller that is killed, sees the old one or the new one.
func (d *Dialer) Trust(keys []*UnknownKeyError) error {
	files := map[string][]string{}
	for _, key := range keys {
		files[key.File] = append(files[key.File], key.Line())
	}
	for file, lines := range files {
		if err := appendLines(file, lines); err != nil {
			return fmt.Errorf("add to known hosts: %w", err)
		}
	}
	d.known.forget()
	return nil
}

// appendLines adds lines that are not there to a file, which may not be there.
func appendLines(file string, lines []string) (err error) {
	if linked, err := filepath.EvalSymlinks(file); err == nil {
		file = linked
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Two controllers at once: the second adds to what the first has written.
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
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
	next, err := os.CreateTemp(dir, ".known_hosts-")
	if err != nil {
		return err
	}
	defer func() {
		next.Close()
		if err != nil {
			os.Remove(next.Name())
		}
	}()
	if was, err := os.Stat(file); err == nil {
		owner := was.Sys().(*syscall.Stat_t)
		if err := next.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
		if err := next.Chmod(was.Mode().Perm()); err != nil {
			return err
		}
	}
	if _, err := next.Write(old); err != nil {
		return err
	}
	if err := next.Sync(); err != nil {
		return err
	}
	return os.Rename(next.Name(), file)
}
