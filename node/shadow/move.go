package shadow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// A Move has the files that a guest gives up when it moves from one image to another.
type Move struct {
	From string `json:"from"` // IDs of images
	To   string `json:"to"`
	// Files are the paths below the root, each with the sha256 of what takes its place, or
	// "" if nothing does.
	Files map[string]string `json:"files"`
}

// A Store keeps the files that the last Move took from a guest that does not run. A file's
// name in it is the sha256 of its path.
type Store struct {
	Dir   string   // on the filesystem of the layer; it need not exist
	Upper *os.File // the guest's upper layer
	// Merge returns the content that takes the place of a file when the guest moves from
	// one image to another.
	Merge func(from, to, name string, guest []byte) ([]byte, error)
}

func (s Store) record() string { return filepath.Join(s.Dir, "move.json") }

// Last returns the last move; it is zero if there was none.
func (s Store) Last() (m Move, err error) {
	b, err := os.ReadFile(s.record())
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// Begin makes m the last move. Nothing of it is done before that is on the disk.
func (s Store) Begin(m Move) error {
	b, err := json.Marshal(m)
	if err == nil {
		err = os.RemoveAll(s.Dir)
	}
	if err == nil {
		err = os.Mkdir(s.Dir, 0o700)
	}
	if err == nil {
		err = linux.ReplaceFileSync(s.record(), 0o600, func(f *os.File) error { _, err := f.Write(b); return err })
	}
	return err
}

// Do takes the files of a move that are not taken yet.
func (s Store) Do(ctx context.Context, m Move) error {
	return s.each(ctx, m, func(f place) error {
		if f.sum == "" {
			if err := unix.Renameat2(unix.AT_FDCWD, f.at, unix.AT_FDCWD, f.aside, unix.RENAME_NOREPLACE); err != unix.ENOENT && err != unix.EEXIST {
				return err
			}
			return nil // it was taken before
		}
		data, err := s.Read(f.name)
		if err != nil || Sum(data) == f.sum {
			return err
		}
		if err := os.Link(f.at, f.aside); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return s.merge(f, m.From, m.To, data)
	})
}

// Undo puts the files of a move back. What the guest has written in their place since
// stays, merged for the image that it returns to if it was merged before; stays is called
// with each of these.
func (s Store) Undo(ctx context.Context, m Move, stays func(name string)) error {
	return s.each(ctx, m, func(f place) error {
		was, err := os.Lstat(f.aside)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is back, or was never taken
		}
		if err != nil {
			return err
		}
		is, err := os.Lstat(f.at)
		there := !errors.Is(err, fs.ErrNotExist)
		if err != nil && there {
			return err
		}
		var data []byte
		if there && f.sum != "" && is.Mode().IsRegular() {
			if data, err = s.Read(f.name); err != nil {
				return err
			}
		}
		switch {
		case !there && f.sum == "", there && (os.SameFile(was, is) || data != nil && Sum(data) == f.sum):
			// rename(2) of two names of one file does nothing.
			if err := unix.Rename(f.aside, f.at); err != nil {
				return err
			}
			if err := os.Remove(f.aside); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		case data != nil:
			if err = s.merge(f, m.To, m.From, data); err == nil {
				err = os.Remove(f.aside)
			}
		}
		stays(f.name)
		return err
	})
}

// merge puts a merged file in the place of one, with its owner and mode.
func (s Store) merge(f place, from, to string, data []byte) error {
	var st unix.Stat_t
	err := unix.Lstat(f.at, &st)
	if err == nil {
		data, err = s.Merge(from, to, f.name, data)
	}
	fresh := f.aside + ".new"
	if err == nil {
		err = linux.ReplaceFileSync(fresh, fs.FileMode(st.Mode&0o777), func(file *os.File) error {
			_, err := file.Write(data)
			return errors.Join(err, file.Chown(int(st.Uid), int(st.Gid)))
		})
	}
	if err == nil {
		err = unix.Rename(fresh, f.at)
	}
	return err
}

// A place is a file of a move.
type place struct {
	name, sum string
	at, aside string // where it is: in a directory that is held open, and in the store
}

// each calls do for the files of a move whose directories are there; then all is on the
// disk.
func (s Store) each(ctx context.Context, m Move, do func(place) error) error {
	for name, sum := range m.Files {
		dir, err := openBelow(s.Upper, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			continue // the guest has removed it
		}
		// The last part of a path is not followed by rename(2), link(2) and lstat(2).
		at := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + path.Base(name)
		if err = ctx.Err(); err == nil {
			err = do(place{name, sum, at, filepath.Join(s.Dir, Sum([]byte(name)))})
		}
		dir.Close()
		if err != nil {
			return &os.PathError{Op: "move", Path: "/" + name, Err: err}
		}
	}
	return unix.Syncfs(int(s.Upper.Fd()))
}

// maxFile bounds the files that are merged.
const maxFile = 64 << 20

// Read returns a regular file of the layer.
func (s Store) Read(name string) ([]byte, error) {
	f, err := openBelow(s.Upper, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, errors.Join(err, fmt.Errorf("%s is not a file of at most %d bytes", name, maxFile))
	}
	return io.ReadAll(f)
}

// Sum returns the sha256 of some data as text.
func Sum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
