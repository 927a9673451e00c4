package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"
)

const locksDir = ".locks"

// use is how a directory is used.
type use string

const (
	usedShared use = "use"   // objects are added or read
	usedAlone  use = "prune" // objects are removed
)

// A lock is refreshed until it is released. One that was not refreshed for staleAfter counts
// for nothing: its vsfleet was killed.
const (
	refreshEvery = time.Minute
	staleAfter   = 30 * time.Minute
)

type lock struct {
	place Place
	name  string
	stop  context.CancelFunc
	ended chan struct{}

	mu        sync.Mutex
	refreshed time.Time // by the wall clock, which goes on while a machine sleeps
}

// held returns an error once the lock may count for nothing, as after a laptop's sleep. It is
// not refreshed again: others may have used the directory since.
func (l *lock) held() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().Round(0).Sub(l.refreshed) > staleAfter {
		return fmt.Errorf("%s was not refreshed for %v: this machine or the way to the directory stood still, and another vsfleet may have used it since; run the command again", l.name, staleAfter)
	}
	return nil
}

// takeLock notes how the directory is used, unless another use excludes that.
func takeLock(ctx context.Context, p Place, how use) (*lock, error) {
	if err := p.MakeDir(locksDir); err != nil {
		return nil, err
	}
	l := &lock{place: p, name: path.Join(locksDir, string(how)+"-"+rand.Text()), ended: make(chan struct{})}
	if err := l.refresh(); err != nil {
		return nil, err
	}
	if err := l.alone(how); err != nil {
		return nil, errors.Join(err, p.Remove(l.name))
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(l.ended)
		tick := time.NewTicker(refreshEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if l.held() != nil {
					return // whoever needs the lock asks again
				}
				_ = l.refresh() // held shows it if the next tries fail, too
			}
		}
	}()
	return l, nil
}

// refresh gives the lock a new time: that of the directory's machine.
func (l *lock) refresh() error {
	now := time.Now().Round(0)
	err := write(l.place, func(w io.Writer) (string, error) {
		_, err := io.WriteString(w, now.Format(time.RFC3339)+"\n")
		return l.name, err
	})
	if err == nil {
		l.mu.Lock()
		l.refreshed = now
		l.mu.Unlock()
	}
	return err
}

// alone looks for others that exclude this use.
func (l *lock) alone(how use) error {
	mine, err := l.place.Stat(l.name)
	if err != nil {
		return err
	}
	others, err := l.place.List(locksDir)
	if err != nil {
		return err
	}
	for _, other := range others {
		name := path.Join(locksDir, other.Name())
		kind, _, _ := strings.Cut(other.Name(), "-")
		switch {
		case name == l.name || how == usedShared && use(kind) == usedShared:
		case mine.ModTime().Sub(other.ModTime()) > staleAfter:
			if err := l.place.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		default:
			return fmt.Errorf("%s is in use by another vsfleet since %s: wait for it; if it was killed, remove %s",
				l.place, other.ModTime().Local().Format(time.DateTime), path.Join(l.place.String(), name))
		}
	}
	return nil
}

func (l *lock) release() error {
	l.stop()
	<-l.ended
	if err := l.place.Remove(l.name); !errors.Is(err, fs.ErrNotExist) { // it counted for nothing, and another use removed it
		return err
	}
	return nil
}
