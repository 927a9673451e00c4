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

// stall is how long a run waits for the disk to take a line. After that it never waits
// again, and lines that the disk is behind with are left out.
const stall = 2 * time.Second

// behind is the number of lines that wait for the disk.
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

// createJournal creates the journal of a run. The directory and its parents are made
// if they are missing, for this user alone.
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

// add writes a line. It returns when the kernel has the line, which then survives
// the end of this process; with sync the disk has it soon after. Progress waits for
// nothing and is the first to be left out.
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

// queue waits until there is room for a line, if the run is to wait at all.
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

// writeAll writes lines until there are no more. After an error, the next line begins
// anew: what was half written is a line by itself, which a reader names and skips.
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

// syncAll syncs the file whenever it is asked to.
func (j *journal) syncAll() {
	for range j.sync {
		if err := j.file.Sync(); err != nil {
			j.setFailed(err)
		}
	}
}

// close writes what is left and stops writing; the lock is kept. It waits a while for
// the disk.
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

// isCut reports whether lines were left out so far.
func (j *journal) isCut() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cut
}
