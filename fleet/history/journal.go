package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Bounds of one journal.
const (
	mostProgress = 16 << 20 // bytes after which events that only show progress are left out
	mostJournal  = 256 << 20
)

// stall is how long a run waits for a line to be written. After that, the run never
// waits again, and drops lines that exceed the queue.
const stall = 2 * time.Second

// behind is the length of the queue of lines to write.
const behind = 4096

// journal is the file of one run. It is locked by its writer.
type journal struct {
	lock  *linux.Lock
	file  *os.File
	lines chan pending
	sync  chan struct{} // of one: what was written is to be synced
	done  chan struct{} // the writer has ended

	mu      sync.Mutex
	size    int64
	cut     bool  // lines were left out
	err     error // the first one
	stalled bool
	closed  bool
	adding  sync.WaitGroup // calls of add
	syncer  sync.WaitGroup
}

// pending is a line that is to be written.
type pending struct {
	text    []byte
	sync    bool
	written chan struct{} // closed when the kernel has it; nil: nobody waits
}

const journalSuffix = ".jsonl"

// createJournal creates the journal of a run. It creates missing directories,
// accessible to this user only.
func createJournal(dir, id string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := linux.TryLockFile(filepath.Join(dir, id+journalSuffix))
	if err != nil {
		return nil, err
	}
	j := newJournal(f.File)
	j.lock = f
	return j, nil
}

func newJournal(f *os.File) *journal {
	j := &journal{file: f, lines: make(chan pending, behind), sync: make(chan struct{}, 1), done: make(chan struct{})}
	j.syncer.Go(j.syncAll)
	go j.writeAll()
	return j
}

// add writes a line. It returns when the kernel has the line, which then survives the
// end of this process; with sync it is synced to disk soon after. Progress lines are
// not waited for, and are dropped first.
func (j *journal) add(text []byte, sync, progress bool) {
	p := pending{text: append(text, '\n'), sync: sync}
	j.mu.Lock()
	if most := int64(mostJournal); j.closed || j.size > most || progress && j.size > mostProgress {
		j.cut = j.cut || !progress
		j.mu.Unlock()
		return
	}
	j.adding.Add(1)
	defer j.adding.Done()
	j.size += int64(len(p.text))
	wait := !progress && !j.stalled
	j.mu.Unlock()
	if wait {
		p.written = make(chan struct{})
	}
	select {
	case j.lines <- p:
	default:
		if !j.queue(p, wait) {
			return
		}
	}
	if !wait {
		return
	}
	timer := time.NewTimer(stall)
	defer timer.Stop()
	select {
	case <-p.written:
	case <-timer.C:
		j.setStalled()
	}
}

// queue adds a line to the queue. If wait is set, it waits for room.
func (j *journal) queue(p pending, wait bool) bool {
	if wait {
		timer := time.NewTimer(stall)
		defer timer.Stop()
		select {
		case j.lines <- p:
			return true
		case <-timer.C:
			j.setStalled()
		}
	}
	j.setFailed(fmt.Errorf("write %s: %w", j.file.Name(), errStalled))
	return false
}

var errStalled = errors.New("the disk does not answer")

func (j *journal) setStalled() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stalled = true
	if j.err == nil {
		j.err = fmt.Errorf("write %s: %w", j.file.Name(), errStalled)
	}
}

// writeAll writes lines until the queue is closed. After an error it begins a new line,
// so that the partly written one is a line by itself, which readers report and skip.
func (j *journal) writeAll() {
	defer close(j.done)
	torn := false
	for p := range j.lines {
		text := p.text
		if torn {
			text = append([]byte("\n"), text...)
		}
		_, err := j.file.Write(text)
		torn = err != nil
		if err != nil {
			j.setFailed(err)
		}
		if p.written != nil {
			close(p.written)
		}
		if p.sync && err == nil {
			select {
			case j.sync <- struct{}{}:
			default: // it will be synced with what was written before
			}
		}
	}
}

func (j *journal) setFailed(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cut = true
	if j.err == nil {
		j.err = err
	}
}

// syncAll syncs the file on each request.
func (j *journal) syncAll() {
	for range j.sync {
		if err := j.file.Sync(); err != nil {
			j.setFailed(err)
		}
	}
}

// close writes the remaining lines and stops the writer, but keeps the lock. It waits
// for the disk for a bounded time.
func (j *journal) close() (cut bool, err error) {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.adding.Wait()
	close(j.lines)
	synced := make(chan struct{})
	go func() {
		<-j.done
		close(j.sync)
		j.syncer.Wait()
		close(synced)
	}()
	timer := time.NewTimer(stall)
	defer timer.Stop()
	select {
	case <-synced:
	case <-timer.C:
		j.setStalled()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cut, j.err
}

// isCut reports whether lines have been dropped.
func (j *journal) isCut() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cut
}
