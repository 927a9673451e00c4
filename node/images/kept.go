package images

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// A difference that was made is kept in the new image's directory, as differenceMagic, its
// parts, and the sha256 of both. It goes with the image, and with its base by Collect.
const (
	keptPrefix = "from-"
	keptSuffix = ".difference"
	// Bounds of what is kept of all images together. What was made last stays.
	mostKept      = 16
	mostKeptBytes = 1 << 30
)

func (s *Store) keptPath(id, base string) string {
	return filepath.Join(s.path(id), keptPrefix+strings.TrimPrefix(base, "sha256:")+keptSuffix)
}

// makerWait bounds the wait for another call that makes the same difference, which goes
// as fast as its receiver.
var makerWait = time.Minute

// sendKept sends the difference that is kept, or makes it. Who wants the same meanwhile
// waits, and sends what was made, unless that takes long.
func (s *Store) sendKept(ctx context.Context, id, base string, old *base, out *sender) (err error) {
	if sent, err := s.sendFile(ctx, id, base, out); sent || err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, makerWait)
	defer cancel()
	w, err := s.lockWork(waiting, "difference-"+filepath.Base(s.path(id))+"-"+filepath.Base(s.path(base)))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return s.makeDifference(ctx, id, old, out.from, out.part)
	}
	if err != nil {
		return err
	}
	defer w.abandon(&err)
	if sent, err := s.sendFile(ctx, id, base, out); sent || err != nil {
		return err
	}
	k, err := s.newKeeper(filepath.Join(w.path, "parts"))
	if err != nil {
		return err
	}
	defer k.file.Close()
	err = s.makeDifference(ctx, id, old, 0, func(head partHead, first int) (io.Writer, error) {
		to, err := out.part(head, first)
		return io.MultiWriter(k, to), err
	})
	if err == nil && k.finish() == nil && os.Rename(k.file.Name(), s.keptPath(id, base)) == nil {
		s.trimKept()
	}
	return err // it was sent, whether it is kept or not
}

// A keeper writes a file until that fails: a full disk keeps no image from being sent.
type keeper struct {
	file *os.File
	buf  *bufio.Writer
	sum  hash.Hash
	left int64 // bytes that it may have
}

func (s *Store) newKeeper(path string) (*keeper, error) {
	free, err := s.Free()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	k := &keeper{file: f, buf: bufio.NewWriterSize(f, 1<<16), sum: sha256.New(), left: min(free, mostKeptBytes)}
	_, err = io.WriteString(k, differenceMagic)
	return k, err
}

// Write returns no error: finish does.
func (k *keeper) Write(b []byte) (int, error) {
	if k.left -= int64(len(b)); k.left > 0 {
		k.sum.Write(b)
		_, _ = k.buf.Write(b)
	}
	return len(b), nil
}

func (k *keeper) finish() error {
	_, err := k.buf.Write(k.sum.Sum(nil))
	if k.left <= 0 {
		err = unix.ENOSPC
	}
	return errors.Join(err, k.buf.Flush()) // not synced: if not all of it reaches the disk, its digest shows that
}

// sendFile sends the difference that is kept, once it was compared with its digest. One that
// is damaged, or of another vsnode's format, is removed.
func (s *Store) sendFile(ctx context.Context, id, base string, out *sender) (sent bool, err error) {
	f, err := os.Open(s.keptPath(id, base))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	size, err := checkKept(ctx, f)
	if err != nil {
		return false, err
	}
	if size < 0 {
		return false, os.Remove(f.Name())
	}
	if _, err := f.Seek(int64(len(differenceMagic)), io.SeekStart); err != nil {
		return false, err
	}
	in := bufio.NewReaderSize(&whileWanted{ctx, io.LimitReader(f, size)}, 1<<16)
	for next := 0; ; {
		head, err := readPartHead(in)
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		w, err := out.part(head, next)
		if err != nil {
			return false, err
		}
		next += head.contents()
		if _, err := w.Write(head); err != nil {
			return false, err
		}
		if err := skipFrame(io.TeeReader(in, w)); err != nil {
			return false, err
		}
	}
}

// checkKept returns the size of the parts in a file, or less than 0 if they are not what was
// kept.
func checkKept(ctx context.Context, f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := st.Size() - int64(len(differenceMagic)) - sha256.Size
	if size < 0 {
		return -1, nil
	}
	sum, magic, want := sha256.New(), make([]byte, len(differenceMagic)), make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, magic); err != nil {
		return 0, err
	}
	sum.Write(magic)
	if _, err := io.Copy(sum, &whileWanted{ctx, io.LimitReader(f, size)}); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(f, want); err != nil {
		return 0, err
	}
	if string(magic) != differenceMagic || !bytes.Equal(sum.Sum(nil), want) {
		return -1, nil
	}
	return size, nil
}

// kept returns the differences that are kept of an image ("*": of all).
func (s *Store) kept(id string) []string {
	paths, _ := filepath.Glob(s.keptPath(id, "*")) // no such pattern fails
	return paths
}

// trimKept removes what was kept first, while there is too much.
func (s *Store) trimKept() {
	for {
		var oldest string
		var since time.Time
		n, size := 0, int64(0)
		for _, path := range s.kept("*") {
			st, err := os.Lstat(path)
			if err != nil {
				continue // removed meanwhile
			}
			if n++; oldest == "" || st.ModTime().Before(since) {
				oldest, since = path, st.ModTime()
			}
			size += st.Size()
		}
		if n <= mostKept && size <= mostKeptBytes || os.Remove(oldest) != nil {
			return
		}
	}
}

// dropUnused removes the differences to images that this host has no longer, and with all what
// arrived of images that did not come to their end.
func (s *Store) dropUnused(ctx context.Context, images []api.Image, all bool) error {
	for _, img := range images {
		for _, path := range s.kept(img.ID) {
			base := "sha256:" + strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), keptPrefix), keptSuffix)
			if here, err := s.Has(base); err == nil && !here {
				_ = os.Remove(path) // or somebody else has
			}
		}
	}
	if !all {
		return nil
	}
	paths, _ := filepath.Glob(filepath.Join(s.dir, partPrefix+"*"))
	for _, path := range paths {
		if err := sweepOne(ctx, path); err != nil {
			return err
		}
	}
	return nil
}
