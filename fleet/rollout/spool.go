package rollout

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// spool is a stream that many read, each at its own pace and from the
// beginning, while it is still being written. It lies in a file that has no
// name, so nothing is left of it whatever happens to this process.
type spool struct {
	file *os.File
	most int64 // bytes

	mu     sync.Mutex
	grown  *sync.Cond
	size   int64
	closed bool
	err    error // why it is not whole
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

// brokenSpool is one that could not be made.
func brokenSpool(err error) *spool {
	s := &spool{closed: true, err: err}
	s.grown = sync.NewCond(&s.mu)
	return s
}

// Write appends for all readers.
func (s *spool) Write(b []byte) (int, error) {
	s.mu.Lock()
	size := s.size
	s.mu.Unlock()
	if size+int64(len(b)) > s.most {
		return 0, fmt.Errorf("it is more than the %d MiB that such an image can be", s.most>>20)
	}
	if size>>roomShift != (size+int64(len(b)))>>roomShift || size == 0 {
		if err := s.room(); err != nil {
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

// roomShift: each 16 MiB it is looked whether there is room for more.
const roomShift = 24

// leastRoom is left to others on the controller's filesystem, or a twentieth
// of it where that is less. A host that sends without end must not fill it.
const leastRoom = 256 << 20

func (s *spool) room() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(s.file.Fd()), &fs); err != nil {
		return fmt.Errorf("keep an image on its way: %w", err)
	}
	left := fs.Bavail * uint64(fs.Bsize)
	if least := min(leastRoom, fs.Blocks*uint64(fs.Bsize)/20); left < least {
		return fmt.Errorf("keep an image on its way: only %d MiB are left in %s (TMPDIR=… chooses another place)", left>>20, os.TempDir())
	}
	return nil
}

// finish tells the readers that no more will come, and why if it is not all.
func (s *spool) finish(err error) {
	s.mu.Lock()
	s.closed, s.err = true, err
	s.mu.Unlock()
	s.grown.Broadcast()
}

// broken is why the stream is not whole, or nil as long as it may become so.
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

// reader reads it from the beginning until it is finished, or ctx ends.
func (s *spool) reader(ctx context.Context, progress func(done int64)) io.Reader {
	return &spoolReader{spool: s, ctx: ctx, progress: progress}
}

type spoolReader struct {
	*spool
	ctx      context.Context
	progress func(done int64)
	off      int64
	told     int64
}

// progressStep is how much is read between two words about it.
const progressStep = 1 << 20

func (r *spoolReader) Read(b []byte) (int, error) {
	forget := context.AfterFunc(r.ctx, func() {
		r.mu.Lock() // not between a reader's look at the context and its wait
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
	case closed && err != nil: // what came of it is of no use to anyone
		return 0, err
	case r.off == size:
		return 0, io.EOF
	}
	n, err := r.file.ReadAt(b[:min(int64(len(b)), size-r.off)], r.off)
	r.off += int64(n)
	if r.progress != nil && r.off-r.told >= progressStep {
		r.told = r.off
		r.progress(r.off)
	}
	return n, err
}
