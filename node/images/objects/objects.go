package objects

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Store is a directory of objects.
type Store struct{ dir string }

// At returns the store in dir, or where a symbolic link there leads. Nothing is created there
// before the first object.
func At(dir string) *Store {
	if _, err := os.Readlink(dir); err == nil {
		if to, err := filepath.EvalSymlinks(dir); err == nil { // else Share says why
			dir = to
		}
	}
	return &Store{dir}
}

// Dir returns the store's directory.
func (s *Store) Dir() string { return s.dir }

// Share locks the store against those who remove objects, and makes its directory.
func (s *Store) Share(ctx context.Context) (*linux.Lock, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	return linux.ShareDir(ctx, s.dir)
}

// Alone locks the store against all others. The error is fs.ErrNotExist if there is none.
func (s *Store) Alone(ctx context.Context) (*linux.Lock, error) { return linux.LockDir(ctx, s.dir) }

// Sync writes all objects to the disk.
func (s *Store) Sync() error {
	dir, err := os.Open(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", s.dir, err)
	}
	return nil
}

// Place returns the path of an object below the store's directory: "ab/cdef…".
func Place(name string) string { return name[:2] + "/" + name[2:] }

func (s *Store) path(name string) string { return filepath.Join(s.dir, name[:2], name[2:]) }

// valid reports whether a name is that of an object.
func valid(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == sha256.Size && strings.ToLower(name) == name
}

// Open opens an object. Its content may be damaged: Check finds that.
func (s *Store) Open(name string) (*os.File, error) {
	if !valid(name) {
		return nil, fmt.Errorf("object %q: want 64 hexadecimal digits", name)
	}
	f, err := os.OpenFile(s.path(name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("object %s is missing: %w", name, err)
	}
	return f, err
}

// Mode is that of an object: who may reach it is decided by the directory above.
const Mode = 0o444

// Take moves the file at path below dir into the store, unless its content is there. The
// caller has synced it and computed the name. added reports whether it was new.
func (s *Store) Take(name string, dir *os.File, path string) (added bool, err error) {
	return s.put(name, dir, path, true)
}

// Adopt is Take for a file that is in use where it is: it keeps that name, and its owner
// and mode until a Sweep finds that it has no other name any more.
func (s *Store) Adopt(name string, dir *os.File, path string) (added bool, err error) {
	return s.put(name, dir, path, false)
}

func (s *Store) put(name string, dir *os.File, path string, move bool) (added bool, err error) {
	if !valid(name) {
		return false, fmt.Errorf("object %q: want 64 hexadecimal digits", name)
	}
	if err := os.Mkdir(filepath.Join(s.dir, name[:2]), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	fd, err := unix.Openat(int(dir.Fd()), path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	source := os.NewFile(uintptr(fd), path)
	defer source.Close()
	there, err := s.holds(name, source)
	if err == nil && !there {
		if move {
			err = own(source)
		}
		if err == nil {
			err = s.place(name, dir, source, path, move)
		}
	}
	if err == nil && there && move {
		err = unix.Unlinkat(int(dir.Fd()), path, 0)
	}
	if err != nil {
		return false, fmt.Errorf("put %s into the store: %w", path, err)
	}
	return !there, nil
}

// holds reports whether the store has the content of a file under its name. One that is
// damaged does not count, and is replaced.
func (s *Store) holds(name string, source *os.File) (bool, error) {
	object, err := s.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer object.Close()
	a, err := source.Stat()
	if err != nil {
		return false, err
	}
	b, err := object.Stat()
	if err != nil || os.SameFile(a, b) {
		return err == nil, err
	}
	return a.Size() == b.Size() && same(source, object), nil
}

// same compares two files. One that cannot be read is not the same: a disk's bad block and
// fs-verity are noticed here.
func same(a, b io.Reader) bool {
	x, y := make([]byte, 1<<17), make([]byte, 1<<17)
	for {
		n, err := io.ReadFull(a, x)
		m, merr := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		if err != nil || merr != nil {
			return ended(err) && ended(merr)
		}
	}
}

func ended(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

// place gives the file its name in the store.
func (s *Store) place(name string, dir, source *os.File, path string, move bool) error {
	to := s.path(name)
	var err error
	if move {
		err = unix.Renameat(int(dir.Fd()), path, unix.AT_FDCWD, to)
	} else if err = s.link(dir, path, to); errors.Is(err, unix.EMLINK) {
		err = unix.EXDEV
	}
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	if err := s.copy(source, to); err != nil || !move {
		return err
	}
	return unix.Unlinkat(int(dir.Fd()), path, 0)
}

// link makes to another name of the file, in the place of a damaged object if there is one.
func (s *Store) link(dir *os.File, path, to string) error {
	err := unix.Linkat(int(dir.Fd()), path, unix.AT_FDCWD, to, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	beside := beside(to)
	if err := unix.Linkat(int(dir.Fd()), path, unix.AT_FDCWD, beside, 0); err != nil {
		return err
	}
	return os.Rename(beside, to)
}

// copy copies a file from another filesystem.
func (s *Store) copy(source *os.File, to string) (err error) {
	if _, err := source.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.OpenFile(beside(to), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, source)
	if err == nil {
		err = f.Chmod(Mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), to)
}

// beside returns a name that nobody else has, since others may put in the same object.
func beside(path string) string { return filepath.Join(filepath.Dir(path), newPrefix+rand.Text()) }

const newPrefix = ".new-"

// own gives a file the attributes of an object, and seals it.
func own(f *os.File) error {
	var st unix.Stat_t
	fd := int(f.Fd())
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != 0 || st.Gid != 0 {
		if err := unix.Fchown(fd, 0, 0); err != nil {
			return err
		}
	}
	if st.Mode&0o7777 != Mode {
		if err := unix.Fchmod(fd, Mode); err != nil {
			return err
		}
	}
	list := make([]byte, 1<<16)
	n, err := unix.Flistxattr(fd, list)
	if err != nil && err != unix.ENOTSUP {
		return err
	}
	for name := range strings.SplitSeq(string(list[:max(n, 0)]), "\x00") {
		if name == "security.capability" || strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_") {
			if err := unix.Fremovexattr(fd, name); err != nil && err != unix.ENODATA {
				return err
			}
		}
	}
	seal(fd)
	return nil
}
