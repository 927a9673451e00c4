package view

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/diff"

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

// OutputDiffs prints the output that most places have, and how the others differ from
// it.
func OutputDiffs(o Output, w io.Writer, records []report.OutputRecord) error {
	var order []string
	groups := map[string][]report.OutputRecord{}
	for _, r := range records {
		if r.Empty() {
			continue
		}
		text := outputText(r)
		if groups[text] == nil {
			order = append(order, text)
		}
		groups[text] = append(groups[text], r)
	}
	if len(order) == 0 {
		return nil
	}
	most := slices.MaxFunc(order, func(a, b string) int { return len(groups[a]) - len(groups[b]) })
	if err := OutputTable(w, groups[most]); err != nil {
		return err
	}
	for _, text := range order {
		if text == most {
			continue
		}
		var names []string
		for _, r := range groups[text] {
			names = append(names, r.Place())
		}
		of, than := Clean(nodeset.Fold(names)), Clean(groups[most][0].Place())
		if _, err := fmt.Fprintln(w, of+" differs:"); err != nil {
			return err
		}
		var b strings.Builder
		o.writeDiff(&b, string(diff.Diff(than, []byte(most), of, []byte(text))))
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// outputText returns the output and exit status of a command as lines.
func outputText(r report.OutputRecord) string {
	var b strings.Builder
	for _, text := range []string{r.Stdout, r.Stderr} {
		for line := range strings.Lines(text) {
			b.WriteString(strings.TrimRight(line, "\r\n") + "\n")
		}
	}
	switch {
	case r.Exit == nil:
		b.WriteString("(not to its end)\n")
	case *r.Exit > 0:
		fmt.Fprintf(&b, "(exit status %d)\n", *r.Exit)
	}
	return b.String()
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

// Named writes lines of one of several places as they arrive, each after the name of
// the place, above the progress line.
type Named struct {
	out      Output
	progress *Progress
	name     string
	rest     []byte
}

// NewNamed returns a Named for a place.
func NewNamed(o Output, p *Progress, name string) *Named {
	return &Named{out: o, progress: p, name: Clean(name) + ": "}
}

func (n *Named) Write(b []byte) (int, error) {
	n.rest = append(n.rest, b...)
	i := bytes.LastIndexByte(n.rest, '\n')
	if i < 0 && len(n.rest) >= report.MostOutput {
		i = len(n.rest) - 1
	}
	if i < 0 {
		return len(b), nil
	}
	lines := n.rest[:i+1]
	n.rest = n.rest[i+1:]
	return len(b), n.write(lines)
}

func (n *Named) write(lines []byte) error {
	var b strings.Builder
	for line := range strings.Lines(string(lines)) {
		line = strings.TrimRight(line, "\r\n")
		if n.out.Terminal {
			line = cleanLine(line)
		}
		b.WriteString(n.name + line + "\n")
	}
	return n.progress.Around(func() error {
		_, err := io.WriteString(n.out, b.String())
		return err
	})
}

// Close writes an unfinished last line.
func (n *Named) Close() error {
	rest := n.rest
	n.rest = nil
	if len(rest) == 0 {
		return nil
	}
	return n.write(rest)
}

// Close writes an unfinished last line.
func (l *Lines) Close() {
	if len(l.rest) > 0 {
		fmt.Fprintln(l.out, cleanLine(string(l.rest)))
		l.rest = nil
	}
}
