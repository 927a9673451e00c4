package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/internal/setting"
)

// A tree reads a configuration directory.
type tree struct {
	dir  string
	err  error           // the first error other than "does not exist"
	seen map[string]bool // the files that were looked at; nil: not recorded

	instead map[string]string // contents that stand for those of files; "": not there
	// there holds the files and directories that files has found, if it was called: others
	// are not looked for, of which there are ten times as many.
	there map[string]bool
}

func (t *tree) see(name string) {
	if t.seen != nil {
		t.seen[filepath.Clean(name)] = true
	}
}

func openTree(dir string) *tree { return &tree{dir: dir} }

// missing reports whether it is known that a file or directory is not there.
func (t *tree) missing(name string) bool {
	return t.there != nil && !t.there[name] && !strings.HasPrefix(name, "../")
}

func (t *tree) fail(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && t.err == nil {
		t.err = err
	}
}

func (t *tree) read(name string) (string, bool) {
	t.see(name)
	if content, ok := t.instead[name]; ok {
		return content, content != ""
	}
	if t.missing(name) {
		return "", false
	}
	b, err := linux.ReadFile(filepath.Join(t.dir, name))
	t.fail(err)
	return string(b), err == nil
}

// scalar returns the first line of a file.
func (t *tree) scalar(name string) string {
	s, _ := t.read(name)
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSpace(s)
}

// first returns the first scalar that is not empty, and its file.
func (t *tree) first(names ...string) (value, name string) {
	for _, name := range names {
		if s := t.scalar(name); s != "" {
			return s, name
		}
	}
	return "", ""
}

// list returns the lines of a file without comments and blank lines.
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

// words returns the words of a list, separated by commas, blanks or lines.
func (t *tree) words(name string) (out []string) {
	for _, line := range t.list(name) {
		out = append(out, strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })...)
	}
	return out
}

// has reports whether a file exists.
func (t *tree) has(name string) bool {
	_, ok := t.read(name)
	return ok
}

// subdirs returns the names of a directory's subdirectories, 2 before 10, without
// backup copies.
func (t *tree) subdirs(name string) []string { return t.in(name, true) }

// names returns the names of the files in a directory, likewise.
func (t *tree) names(name string) []string { return t.in(name, false) }

func (t *tree) in(name string, dirs bool) (out []string) {
	t.see(name)
	if t.missing(name) {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(t.dir, name))
	t.fail(err)
	for _, e := range entries {
		if isBackup(e.Name()) {
			continue
		}
		t.see(filepath.Join(name, e.Name()))
		info, err := os.Stat(filepath.Join(t.dir, name, e.Name())) // follows links
		if err == nil && info.IsDir() == dirs {
			out = append(out, e.Name())
		}
	}
	order.Stable(out, func(a, b string) int {
		m, err1 := strconv.Atoi(a)
		n, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil {
			return strings.Compare(a, b)
		}
		return m - n
	})
	return out
}

// maxTreeDepth is the depth of the deepest file that has a meaning.
const maxTreeDepth = 4

// files returns the paths of all files below the directory.
func (t *tree) files() (out []string) {
	t.there = map[string]bool{}
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		entries, err := os.ReadDir(filepath.Join(t.dir, dir))
		t.fail(err)
		for _, e := range entries {
			rel := filepath.Join(dir, e.Name())
			t.there[rel] = true
			isDir := e.IsDir()
			if e.Type()&fs.ModeSymlink != 0 && !slices.Contains([]string{"vdir", "run", "cache"}, rel) {
				info, err := os.Stat(filepath.Join(t.dir, rel))
				isDir = err == nil && info.IsDir()
			}
			if isDir && depth < maxTreeDepth && !isBackup(e.Name()) {
				walk(rel, depth+1)
			} else {
				out = append(out, rel)
			}
		}
	}
	walk("", 1)
	return out
}

// files is a configuration to write: contents and targets of links, by path. An empty
// content removes the file; present creates an empty one.
type files struct {
	text map[string]string
	link map[string]string
}

const present = setting.Present

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

// replace makes dir hold the given files, and of the present ones those for which keep
// returns true.
func (f files) replace(dir string, keep func(rel string) bool) error {
	return replaceDir(dir, func(beside string) error {
		if err := copyKept(dir, beside, keep); err != nil {
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
			if err := linux.WriteFile(path, []byte(content), 0o644); err != nil {
				return err
			}
		}
		for rel, to := range f.link {
			if err := os.Symlink(to, filepath.Join(beside, rel)); err != nil {
				return err
			}
		}
		return nil
	})
}

// replaceDir replaces a configuration directory with what fill puts into an empty one.
// The whole directory changes in one rename: the new one is made beside the old one,
// synced, and exchanged.
func replaceDir(dir string, fill func(beside string) error) error {
	if err := sweepBeside(dir); err != nil {
		return err
	}
	beside, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(beside)
	if err := os.Chmod(beside, 0o755); err != nil {
		return err
	}
	if err := fill(beside); err != nil {
		return err
	}
	if err := syncFS(beside); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, beside, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) { // there was no directory yet
		err = os.Rename(beside, dir)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: beside, New: dir, Err: err}
	}
	return linux.SyncDir(filepath.Dir(dir))
}

// sweepBeside removes what a killed replaceDir left; the guest's lock is held.
func sweepBeside(dir string) error {
	parent, names, err := linux.Names(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer parent.Close()
	for _, name := range names {
		if strings.HasPrefix(name, "."+filepath.Base(dir)+".new-") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(parent.Name(), name)))
		}
	}
	return err
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
		b, err := linux.ReadFile(path)
		if err != nil {
			return err
		}
		return linux.WriteFile(target, b, info.Mode().Perm())
	})
}

func sameFS(a, b string) (bool, error) {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Stat(a, &x), unix.Stat(b, &y)); err != nil {
		return false, fmt.Errorf("look for the filesystems of %s and %s: %w", a, b, err)
	}
	return x.Dev == y.Dev, nil
}

// syncFS writes the filesystem of dir to disk: one call for many small files, and for
// all callers that ask before it begins.
func syncFS(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	one, _ := syncs.LoadOrStore(st.Dev, &together{})
	return one.(*together).do(func() error { return syncfs(dir) })
}

var syncs sync.Map // *together by device

// together calls a function once for all who ask before it begins.
type together struct {
	run  sync.Mutex // held by the caller that calls
	mu   sync.Mutex
	next func() error // shared by callers that have asked since the last call began
}

func (t *together) do(call func() error) error {
	t.mu.Lock()
	if t.next == nil {
		t.next = sync.OnceValue(func() error {
			t.run.Lock()
			defer t.run.Unlock()
			t.mu.Lock()
			t.next = nil
			t.mu.Unlock()
			return call()
		})
	}
	next := t.next
	t.mu.Unlock()
	return next()
}

// syncfs is replaced by a test that counts calls.
var syncfs = func(dir string) error {
	f, err := linux.Open(dir, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}
