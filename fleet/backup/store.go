package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	mark       = "vsfleet-backups"
	markText   = "backups of vsfleet, format 1\n"
	objectsDir = ".objects"
	newDir     = ".new"
	suffix     = ".backup"
)

// Store is a directory of backups that is in use.
type Store struct {
	place Place
	lock  *lock

	mu   sync.Mutex
	made map[string]bool // directories that are there
	has  map[string]bool // objects that are there
	free uint64          // bytes to write until free space is looked at
}

// Open opens a directory of backups to read it; nothing is written there. Close ends that, and
// the place.
func Open(ctx context.Context, p Place) (*Store, error) { return open(ctx, p, false, "") }

// Make opens a directory for backups to be added, and makes it if there is none or an empty one.
func Make(ctx context.Context, p Place) (*Store, error) { return open(ctx, p, true, usedShared) }

// OpenAlone opens a directory for backups to be removed.
func OpenAlone(ctx context.Context, p Place) (*Store, error) { return open(ctx, p, false, usedAlone) }

func open(ctx context.Context, p Place, anew bool, use use) (_ *Store, err error) {
	s := &Store{place: p, made: map[string]bool{}, has: map[string]bool{}}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	text, err := readAll(p, mark, 1<<10)
	switch {
	case errors.Is(err, fs.ErrNotExist) && anew:
		err = s.begin()
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%s is not a directory of backups", p)
	case err == nil && string(text) != markText:
		err = fmt.Errorf("%s is of a newer vsfleet: %q", p, text)
	}
	if err == nil && use != "" {
		s.lock, err = takeLock(ctx, p, use)
	}
	return s, err
}

// begin makes an empty directory one of backups.
func (s *Store) begin() error {
	list, err := s.place.List("")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, info := range list {
		if info.Name() != newDir && info.Name() != objectsDir && info.Name() != locksDir { // of one that was killed
			return fmt.Errorf("%s has other files (%s): name an empty directory, or one that is not there", s.place, info.Name())
		}
	}
	for _, dir := range []string{"", newDir, objectsDir, locksDir} {
		if err := s.place.MakeDir(dir); err != nil {
			return err
		}
	}
	return write(s.place, func(w io.Writer) (string, error) {
		_, err := io.WriteString(w, markText)
		return mark, err
	})
}

// Close ends the use of the directory.
func (s *Store) Close() error {
	var err error
	if s.lock != nil {
		err = s.lock.release()
	}
	return errors.Join(err, s.place.Close())
}

// maxList bounds what the list of a backup takes, compressed.
const maxList = 1 << 30

func readAll(p Place, name string, most int64) ([]byte, error) {
	f, err := p.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return b, err
}

func objectPath(object string) string { return path.Join(objectsDir, object[:2], object[2:]) }

// there reports whether the store has an object, and makes its directory if not.
func (s *Store) there(object string) (bool, error) {
	s.mu.Lock()
	has := s.has[object]
	s.mu.Unlock()
	if has {
		return true, nil
	}
	_, err := s.place.Stat(objectPath(object))
	if errors.Is(err, fs.ErrNotExist) {
		return false, s.makeDir(path.Join(objectsDir, object[:2]))
	}
	if err == nil {
		s.noteObject(object)
	}
	return err == nil, err
}

func (s *Store) noteObject(object string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has[object] = true
}

func (s *Store) makeDir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made[dir] {
		return nil
	}
	err := s.place.MakeDir(dir)
	s.made[dir] = err == nil
	return err
}

// spaceStep is how much is written between two looks at the free space; minSpace of it is left
// free, or a twentieth of the filesystem: a host that sends without end must not fill it.
const (
	spaceStep = 64 << 20
	minSpace  = 256 << 20
)

// room returns an error if n bytes more would not leave enough.
func (s *Store) room(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free >= uint64(n) {
		s.free -= uint64(n)
		return nil
	}
	left, all, err := s.place.Free()
	if err != nil {
		return err
	}
	if all > 0 && left < min(minSpace, all/20) {
		return fmt.Errorf("only %d MiB are left in %s", left>>20, s.place)
	}
	s.free = spaceStep
	return nil
}

// roomWriter writes as long as there is room.
type roomWriter struct {
	*Store
	w io.Writer
	n int64
}

func (r *roomWriter) Write(b []byte) (int, error) {
	if err := r.room(len(b)); err != nil {
		return 0, err
	}
	n, err := r.w.Write(b)
	r.n += int64(n)
	return n, err
}

// put keeps a content that is small, and returns its object and what that takes if it is new.
func (s *Store) put(content []byte) (object string, added int64, err error) {
	sum := sha256.Sum256(content)
	object = hex.EncodeToString(sum[:])
	if there, err := s.there(object); err != nil || there {
		return object, 0, err
	}
	added, err = s.write(bytes.NewReader(content), func() (string, error) { return object, nil })
	return object, added, err
}

// putStream keeps a content of any size.
func (s *Store) putStream(r io.Reader) (object string, added int64, err error) {
	sum := sha256.New()
	added, err = s.write(io.TeeReader(r, sum), func() (string, error) {
		object = hex.EncodeToString(sum.Sum(nil))
		if there, err := s.there(object); err != nil || there {
			return "", err
		}
		return object, nil
	})
	return object, added, err
}

func (s *Store) write(r io.Reader, name func() (string, error)) (added int64, err error) {
	var object string
	err = write(s.place, func(w io.Writer) (string, error) {
		room := &roomWriter{Store: s, w: w}
		z, err := zstd.NewWriter(room, zstd.WithEncoderCRC(true), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return "", err
		}
		if _, err := io.CopyBuffer(z, r, make([]byte, 1<<20)); err != nil {
			return "", err
		}
		if err := z.Close(); err != nil {
			return "", err
		}
		if object, err = name(); err != nil || object == "" {
			return "", err
		}
		added = room.n
		return objectPath(object), nil
	})
	if err == nil && object != "" {
		s.noteObject(object)
	}
	return added, err
}

// content calls read with a content, which is compared with its digest.
func (s *Store) content(ctx context.Context, object string, size int64, read func(io.Reader) error) error {
	err := s.uncompressed(object, func(r io.Reader) error {
		sum := sha256.New()
		n := int64(0)
		tee := io.TeeReader(&canceled{ctx, io.LimitReader(r, size+1)}, io.MultiWriter(sum, (*counter)(&n)))
		if err := read(tee); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, tee); err != nil {
			return err
		}
		if n != size || hex.EncodeToString(sum.Sum(nil)) != object {
			return errDamaged
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path.Join(s.place.String(), objectPath(object)), err)
	}
	return nil
}

var errDamaged = errors.New("it is damaged")

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

func (s *Store) uncompressed(object string, read func(io.Reader) error) error {
	if b, err := hex.DecodeString(object); err != nil || len(b) != sha256.Size || strings.ToLower(object) != object {
		return errors.New("it is not the name of an object")
	}
	f, err := s.place.Open(objectPath(object))
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(16<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	return read(decoded{z})
}

// decoded is a reader of what was compressed, whose errors say that it is damaged.
type decoded struct{ r io.Reader }

func (d decoded) Read(b []byte) (int, error) {
	n, err := d.r.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	return n, err
}

// canceled is a reader that ends with its context.
type canceled struct {
	ctx context.Context
	r   io.Reader
}

func (c *canceled) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}
