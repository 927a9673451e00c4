package history

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// pollEvents is the interval at which journals are checked for new events.
const pollEvents = 100 * time.Millisecond

// Events calls each for the events of the named run (see Find). If name is empty, these
// are all runs under way, or else the last run. With follow, Events goes on with new
// events: of the named run until it ends, or else of all runs on this machine until ctx
// ends.
func (h *History) Events(ctx context.Context, name string, follow bool, each func(report.Event) error) error {
	t := &tail{keeper: h.keeper, files: map[string]*tailed{}, each: each}
	defer t.close()
	ids, err := h.running()
	if err != nil {
		return err
	}
	if name != "" || len(ids) == 0 && !follow {
		if name == "" {
			name = "last"
		}
		id, err := h.Find(ctx, name)
		if err != nil {
			return err
		}
		ids, t.only = []string{id}, id
	}
	if t.only != "" {
		data, path, err := h.data(ctx, t.only)
		switch {
		case err != nil:
			return err
		case path == "":
			return eachEvent(data, each)
		}
	}
	for {
		ended, err := t.poll(ids)
		if err != nil || !follow || ended {
			return err
		}
		ids = nil
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollEvents):
		}
	}
}

// running returns the IDs of the runs that are under way.
func (h *History) running() ([]string, error) {
	paths, err := h.keeper.journalFiles()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, path := range paths {
		if _, running := isRunning(path); running {
			ids = append(ids, idOf(path))
		}
	}
	return ids, nil
}

func eachEvent(data []byte, each func(report.Event) error) error {
	for text := range bytes.Lines(data) {
		l, err := decode(text)
		if err != nil || l.Head != nil || l.End != nil || l.Kind == "" {
			continue
		}
		if err := each(l.Event); err != nil {
			return err
		}
	}
	return nil
}

// tail reads new lines of journals.
type tail struct {
	keeper Keeper
	only   string // the ID of the one run; "": all
	begun  bool
	files  map[string]*tailed // by path
	each   func(report.Event) error
}

// tailed is an open journal. It can be read to its end even after it was removed.
type tailed struct {
	file *os.File
	in   *bufio.Reader
	rest []byte // the beginning of a line
}

// poll reads new events. The first call begins with the runs of ids; later calls add
// new journals. ended reports whether the only run that is read has ended.
func (t *tail) poll(ids []string) (ended bool, err error) {
	paths, err := t.keeper.journalFiles()
	if err != nil {
		return false, err
	}
	for _, path := range paths {
		if t.files[path] != nil || t.only != "" && idOf(path) != t.only || !t.begun && !slices.Contains(ids, idOf(path)) {
			continue
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		t.files[path] = &tailed{file: f, in: bufio.NewReaderSize(f, 64<<10)}
	}
	t.begun = true
	for path, f := range t.files {
		_, running := isRunning(path)
		if err := f.read(t.each); err != nil {
			return false, err
		}
		if !running { // what it had written by then has been read
			f.file.Close()
			delete(t.files, path)
			ended = ended || t.only != ""
		}
	}
	return ended || t.only != "" && len(t.files) == 0, nil
}

// read calls each for the events that were appended.
func (f *tailed) read(each func(report.Event) error) error {
	for {
		text, err := f.in.ReadBytes('\n')
		f.rest = append(f.rest, text...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		whole := f.rest
		f.rest = nil
		if err := eachEvent(whole, each); err != nil {
			return err
		}
	}
}

func (t *tail) close() {
	for _, f := range t.files {
		f.file.Close()
	}
}
