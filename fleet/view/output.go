package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// Outputs shows the output of commands as they end, equal output together. It does so
// on terminals only: what goes into a file or a pipe must not depend on which host was
// quicker.
type Outputs struct {
	out      Output
	progress *Progress
	live     bool // on a terminal
	rest     []report.OutputRecord
	timer    *time.Timer
	mu       sync.Mutex // of rest, failed and shown
	failed   error
}

// soon is how long an output waits for equal ones.
const soon = 200 * time.Millisecond

// NewOutputs shows outputs above the line of a progress.
func NewOutputs(o Output, f Format, p *Progress) *Outputs {
	return &Outputs{out: o, progress: p, live: o.Terminal && f == AsTable}
}

// Add adds an output. It must be called within the progress's Around.
func (o *Outputs) Add(r report.OutputRecord) {
	if !o.live || r.Empty() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest = append(o.rest, r)
	if o.timer == nil {
		o.timer = time.AfterFunc(soon, func() {
			_ = o.progress.Around(o.show) // show keeps its error
		})
	}
}

// show prints what was added since the last time.
func (o *Outputs) show() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timer = nil
	if o.failed == nil && len(o.rest) > 0 {
		o.failed = OutputTable(o.out, o.rest)
		o.rest = nil
	}
	return o.failed
}

// Close shows what is left, and reports whether outputs were shown at all: if not, the
// caller prints them.
func (o *Outputs) Close() (shown bool, err error) {
	if !o.live {
		return false, nil
	}
	return true, o.show()
}

// OutputTable prints what commands wrote, each different output once.
func OutputTable(w io.Writer, records []report.OutputRecord) error {
	type what struct {
		exit           int // -1: unknown
		stdout, stderr string
		cut            bool
	}
	var order []what
	places := map[what][]string{}
	for _, r := range records {
		if r.Empty() {
			continue
		}
		key := what{-1, r.Stdout, r.Stderr, r.Cut}
		if r.Exit != nil {
			key.exit = *r.Exit
		}
		if places[key] == nil {
			order = append(order, key)
		}
		places[key] = append(places[key], r.Place())
	}
	for _, key := range order {
		heading := Clean(nodeset.Fold(places[key]))
		switch {
		case key.exit < 0:
			heading += " (not to its end)"
		case key.exit > 0:
			heading += fmt.Sprintf(" (exit status %d)", key.exit)
		}
		if key.cut {
			heading += fmt.Sprintf(" (only the first %s)", Bytes(report.MostOutput))
		}
		if _, err := fmt.Fprintln(w, heading+":"); err != nil {
			return err
		}
		for _, text := range []string{key.stdout, key.stderr} {
			for line := range strings.Lines(text) {
				if _, err := fmt.Fprintln(w, "  "+cleanLine(line)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// cleanLine makes control characters visible, except tabs: they do not move back.
func cleanLine(line string) string {
	fields := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
	for i, field := range fields {
		fields[i] = Clean(field)
	}
	return strings.Join(fields, "\t")
}

// Lines makes control characters visible in what goes to a terminal, line by line.
// What goes into a file or a pipe is not changed.
type Lines struct {
	out  Output
	rest []byte
}

// NewLines returns a Lines that writes to an output.
func NewLines(o Output) *Lines { return &Lines{out: o} }

func (l *Lines) Write(b []byte) (int, error) {
	if !l.out.Terminal {
		return l.out.Write(b)
	}
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 && len(l.rest) < report.MostOutput {
			return len(b), nil
		}
		if i < 0 {
			i = len(l.rest) - 1
		}
		if _, err := fmt.Fprintln(l.out, cleanLine(string(l.rest[:i+1]))); err != nil {
			return 0, err
		}
		l.rest = l.rest[i+1:]
	}
}

// Close writes an unfinished last line.
func (l *Lines) Close() {
	if len(l.rest) > 0 {
		fmt.Fprintln(l.out, cleanLine(string(l.rest)))
		l.rest = nil
	}
}
