package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A tree is a configuration directory while it is read. It remembers which
// files were asked for, so that the rest can be named as unknown.
type tree struct {
	dir   string
	known map[string]bool
	err   error // the first that was not "does not exist"
}

func openTree(dir string) *tree { return &tree{dir: dir, known: map[string]bool{}} }

func (t *tree) read(name string) (string, bool) {
	t.known[name] = true
	b, err := os.ReadFile(filepath.Join(t.dir, name))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && t.err == nil {
			t.err = err
		}
		return "", false
	}
	return string(b), true
}

// scalar is the first line of a file.
func (t *tree) scalar(name string) string {
	s, _ := t.read(name)
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSpace(s)
}

// list is one value a line; comments and blank lines do not count.
func (t *tree) list(name string) []string {
	s, _ := t.read(name)
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// has is a boolean: the file is there.
func (t *tree) has(name string) bool {
	_, ok := t.read(name)
	return ok
}

// subdirs names the directories in one, in order.
func (t *tree) subdirs(name string) []string {
	entries, err := os.ReadDir(filepath.Join(t.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && t.err == nil {
		t.err = err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}

// unknown are the files that nobody asked for, as paths below the directory.
func (t *tree) unknown() []string {
	var out []string
	filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // what cannot be read is not known either; read said so
		}
		if rel, err := filepath.Rel(t.dir, path); err == nil && !t.known[rel] {
			out = append(out, rel)
		}
		return nil
	})
	return out
}

// files are a configuration to be written: contents by path, links by path.
// An empty content removes the file; "present" stands for an empty file.
type files struct {
	text map[string]string
	link map[string]string
}

const present = "\n"

func list(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return strings.Join(values, "\n") + "\n"
}

func scalar(value string) string {
	if value == "" {
		return ""
	}
	return value + "\n"
}

// replace makes dir hold the files given, and besides them whatever it held
// that keep wants. The whole directory changes in one rename: it is made anew
// beside, synced, and exchanged.
func (f files) replace(dir string, keep func(rel string) bool) error {
	// What a killed one left; the guest's lock is held.
	old, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".new-*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	beside, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(beside)
	if err := os.Chmod(beside, 0o755); err != nil {
		return err
	}
	err = copyKept(dir, beside, keep)
	if err != nil {
		return err
	}
	for rel, content := range f.text {
		if content == "" {
			continue
		}
		path := filepath.Join(beside, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if content == present {
			content = ""
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	for rel, to := range f.link {
		if err := os.Symlink(to, filepath.Join(beside, rel)); err != nil {
			return err
		}
	}
	if err := syncFS(beside); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, beside, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) { // it is the first
		err = os.Rename(beside, dir)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: beside, New: dir, Err: err}
	}
	return syncFS(filepath.Dir(dir))
}

func copyKept(from, to string, keep func(rel string) bool) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == from {
			return fs.SkipAll
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." || d.IsDir() || !keep(rel) {
			return err
		}
		target := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, info.Mode().Perm())
	})
}

// syncFS writes the filesystem of dir to disk: one call for many small files.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}
