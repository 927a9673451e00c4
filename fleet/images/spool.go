package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// spool is a stream with many readers, each of which reads it from the beginning
// and at its own pace, while it is still written. It is a file without a name:
// nothing is left of it whatever happens to this process.
type spool struct {
	file *os.File
	most int64 // bytes

	mu     sync.Mutex
	grown  *sync.Cond
	size   int64
	closed bool
	err    error // if it is not whole
}

func newSpool(most int64) (*spool, error) {
	file, err := os.CreateTemp("", "vsfleet-image-")
	if err != nil {
		return nil, fmt.Errorf("keep an image on its way: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	s := &spool{file: file, most: most}
	s.grown = sync.NewCond(&s.mu)
	return s, nil
}

// brokenSpool returns a spool that could not be created.
func brokenSpool(err error) *spool {
	s := &spool{closed: true, err: err}
	s.grown = sync.NewCond(&s.mu)
	return s
}

// Write appends to the stream.
func (s *spool) Write(b []byte) (int, error) {
	s.mu.Lock()
	size := s.size
	s.mu.Unlock()
	if size+int64(len(b)) > s.most {
		return 0, fmt.Errorf("it is more than the %d MiB that such an image can be", s.most>>20)
	}
	if size>>spaceShift != (size+int64(len(b)))>>spaceShift || size == 0 {
		if err := s.checkSpace(); err != nil {
			return 0, err
		}
	}
	n, err := s.file.WriteAt(b, size)
	s.mu.Lock()
	s.size += int64(n)
	s.mu.Unlock()
	s.grown.Broadcast()
	if err != nil {
		err = fmt.Errorf("keep an image on its way (TMPDIR=… chooses where): %w", err)
	}
	return n, err
}

// spaceShift is the interval at which Write checks the free space: 16 MiB.
const spaceShift = 24

// minSpace is left free on the controller's filesystem, or a twentieth of it if
// that is less. A host that sends without end must not fill it.
const minSpace = 256 << 20

func (s *spool) checkSpace() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(s.file.Fd()), &fs); err != nil {
		return fmt.Errorf("keep an image on its way: %w", err)
	}
	left := fs.Bavail * uint64(fs.Bsize)
	if least := min(minSpace, fs.Blocks*uint64(fs.Bsize)/20); left < least {
		return fmt.Errorf("keep an image on its way: only %d MiB are left in %s (TMPDIR=… chooses another place)", left>>20, os.TempDir())
	}
	return nil
}

// finish ends the stream for its readers, with an error if it is not whole.
func (s *spool) finish(err error) {
	s.mu.Lock()
	s.closed, s.err = true, err
	s.mu.Unlock()
	s.grown.Broadcast()
}

// broken returns why the stream is not whole, or nil if it is or may still become so.
func (s *spool) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// reader returns a reader that begins at the start and ends when the stream is
// finished or ctx ends.
func (s *spool) reader(ctx context.Context, progress func(done int64)) io.Reader {
	return &spoolReader{spool: s, ctx: ctx, progress: progress}
}

type spoolReader struct {
	*spool
	ctx      context.Context
	progress func(done int64)
	off      int64
	reported int64
}

// progressStep is the number of bytes between two calls of progress.
const progressStep = 1 << 20

func (r *spoolReader) Read(b []byte) (int, error) {
	forget := context.AfterFunc(r.ctx, func() {
		r.mu.Lock() // so that no reader is between looking at the context and waiting
		defer r.mu.Unlock()
		r.grown.Broadcast()
	})
	defer forget()
	r.mu.Lock()
	for r.off == r.size && !r.closed && r.ctx.Err() == nil {
		r.grown.Wait()
	}
	size, closed, err := r.size, r.closed, r.err
	r.mu.Unlock()
	switch {
	case r.ctx.Err() != nil:
		return 0, context.Cause(r.ctx)
	case closed && err != nil: // the part that came is of no use
		return 0, err
	case r.off == size:
		return 0, io.EOF
	}
	n, err := r.file.ReadAt(b[:min(int64(len(b)), size-r.off)], r.off)
	r.off += int64(n)
	if r.progress != nil && r.off-r.reported >= progressStep {
		r.reported = r.off
		r.progress(r.off)
	}
	return n, err
}
