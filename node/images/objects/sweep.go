package objects

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seal has the kernel compare the content with digests at every read, and refuse writes
// (fs-verity). Most filesystems are made without it.
func seal(fd int) {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: 4096}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg)))
}

// Walk calls visit for each object. Other files have an empty name.
func (s *Store) Walk(ctx context.Context, visit func(name, path string, st *unix.Stat_t) error) error {
	dirs, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range dirs {
		files, err := os.ReadDir(filepath.Join(s.dir, d.Name()))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			path := filepath.Join(s.dir, d.Name(), f.Name())
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); errors.Is(err, unix.ENOENT) {
				continue // removed meanwhile
			} else if err != nil {
				return &fs.PathError{Op: "stat", Path: path, Err: err}
			}
			name := d.Name() + f.Name()
			if !valid(name) || len(d.Name()) != 2 || !f.Type().IsRegular() {
				name = ""
			}
			if err := visit(name, path, &st); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sweep removes all objects that keep does not name, and what killed calls left. It
// returns their number and the space that they took; with dry it only counts them. Objects
// that were adopted get their owner and mode once they have no other name. The
// caller holds the store alone.
func (s *Store) Sweep(ctx context.Context, keep map[string]bool, dry bool) (removed int, space int64, err error) {
	err = s.Walk(ctx, func(name, path string, st *unix.Stat_t) error {
		if keep[name] {
			if adopted := st.Mode&0o7777 != Mode || st.Uid != 0 || st.Gid != 0; adopted && st.Nlink == 1 && !dry {
				return s.finish(name)
			}
			return nil
		}
		removed++
		space += st.Blocks * 512
		if dry {
			return nil
		}
		return os.Remove(path)
	})
	return removed, space, err
}

// finish makes an object that was adopted like all others.
func (s *Store) finish(name string) error {
	f, err := s.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return own(f)
}

// Check reads an object and compares its content with its name.
func (s *Store) Check(ctx context.Context, name string) error {
	f, err := s.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	have, _, err := Copy(ctx, io.Discard, f)
	if err != nil {
		return err
	}
	return compare(name, have)
}

// Copy copies all of a file to w, and returns the name of its content, and its size.
func Copy(ctx context.Context, w io.Writer, f *os.File) (name string, size int64, err error) {
	sum, buf := sha256.New(), make([]byte, 1<<18)
	for {
		if err := ctx.Err(); err != nil {
			return "", size, err
		}
		n, err := f.Read(buf)
		size += int64(n)
		sum.Write(buf[:n])
		if err == io.EOF {
			return hex.EncodeToString(sum.Sum(nil)), size, nil
		}
		if err == nil {
			_, err = w.Write(buf[:n])
		}
		if err != nil {
			return "", size, fmt.Errorf("object %s: %w", f.Name(), err)
		}
	}
}

// checked are the objects that CheckOnce has found sound, by what changes with every change
// of a file.
var checked sync.Map

// CheckOnce is Check that this process does once for an object, until something changes it: for
// who needs the same objects again and again, as guests with the same files.
func (s *Store) CheckOnce(ctx context.Context, name string) error {
	var st unix.Stat_t
	if !valid(name) || unix.Lstat(s.path(name), &st) != nil {
		return s.Check(ctx, name)
	}
	key := [4]int64{int64(st.Dev), int64(st.Ino), st.Ctim.Sec, st.Ctim.Nsec}
	if was, ok := checked.Load(key); ok && was == name {
		return nil
	}
	err := s.Check(ctx, name)
	if err == nil {
		checked.Store(key, name)
	}
	return err
}

// Compare returns an error unless the content is that of the object.
func Compare(name string, content []byte) error {
	sum := sha256.Sum256(content)
	return compare(name, hex.EncodeToString(sum[:]))
}

func compare(name, have string) error {
	if have != name {
		return fmt.Errorf("object %s is damaged: its content is %s now", name, have)
	}
	return nil
}
