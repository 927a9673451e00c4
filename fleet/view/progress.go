package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// Progress tells on standard error how a run over many hosts goes on: on a
// terminal in one line that is redrawn, elsewhere in a line a step. Its methods
// may be called from many goroutines, and never wait for the terminal's reader
// longer than a write takes.
type Progress struct {
	out   Output
	total int

	mu      sync.Mutex
	done    int
	failed  int
	current []activity // hosts at work, the longest at work first
	drawn   string     // the status line that is on the screen
	stop    chan struct{}
	stopped chan struct{}
}

type activity struct{ host, text string }

// redraw is how often a status line changes: as often as an eye follows.
const redraw = 100 * time.Millisecond

// NewProgress begins to tell of a run over so many hosts. Close ends it.
func NewProgress(o Output, hosts int) *Progress {
	p := &Progress{out: o, total: hosts}
	if o.Terminal {
		p.stop, p.stopped = make(chan struct{}), make(chan struct{})
		go p.run()
	}
	return p
}

func (p *Progress) run() {
	defer close(p.stopped)
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.mu.Lock()
			p.draw(p.status())
			p.mu.Unlock()
		case <-p.stop:
			return
		}
	}
}

// Begin says what a host begins to do: a step, "connecting", "pushing vsnode".
func (p *Progress) Begin(host, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(host, what)
	if !p.out.Terminal {
		p.print(host, what)
	}
}

// Detail says how that goes on: "unpacking libc6". Of the 0 that total may be,
// nothing is known. Only a terminal shows it.
func (p *Progress) Detail(host, what string, done, total int64) {
	if !p.out.Terminal {
		return
	}
	if total > 0 {
		what = fmt.Sprintf("%s %d%%", what, done*100/total)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(host, what)
}

// End says what came of a host. Hosts that are as they should be say nothing.
func (p *Progress) End(r Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(r)
	switch {
	case r.Err != nil:
		p.print(r.Host, string(r.Outcome)+": "+r.Err.Error())
	case r.Outcome != outcome.OK:
		p.print(r.Host, string(r.Outcome))
	}
}

// Idle marks a host as having nothing to do for now.
func (p *Progress) Idle(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle(host)
}

func (p *Progress) idle(host string) {
	p.current = slices.DeleteFunc(p.current, func(a activity) bool { return a.host == host })
}

// finish takes a host out of those that are at work.
func (p *Progress) finish(r Result) {
	p.done++
	p.idle(r.Host)
	if r.Outcome == outcome.Failed || r.Outcome == outcome.Unreachable {
		p.failed++
	}
}

// Asked begins to wait for the answer of a host, and Answered ends it. A log
// hears of neither: the answers come on standard output.
func (p *Progress) Asked(host string) { p.Detail(host, "", 0, 0) }

// Answered ends the wait for a host.
func (p *Progress) Answered(r Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(r)
}

// Around writes what is not the progress's, above the status line where there
// is one.
func (p *Progress) Around(write func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn == "" {
		return write()
	}
	_, _ = io.WriteString(p.out, eraseLine) // see print
	defer func() { _, _ = io.WriteString(p.out, p.drawn) }()
	return write()
}

// Print writes a line of a host's above the status line.
func (p *Progress) Print(host, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(host, text)
}

// Close takes the status line away.
func (p *Progress) Close() {
	if p.stop == nil {
		return
	}
	close(p.stop)
	<-p.stopped
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw("")
}

func (p *Progress) set(host, what string) {
	for i := range p.current {
		if p.current[i].host == host {
			p.current[i].text = what
			return
		}
	}
	p.current = append(p.current, activity{host, what})
}

func (p *Progress) print(host, text string) {
	text = Clean(host) + ": " + indented(text) + "\n"
	if p.drawn != "" {
		text = eraseLine + text + p.drawn
	}
	// Nobody is left to tell if standard error is gone: the run goes on.
	_, _ = io.WriteString(p.out, text)
}

// status is "12/40 hosts, 1 failed · web01: build image bookworm · …".
func (p *Progress) status() string {
	text := fmt.Sprintf("%d/%d hosts", p.done, p.total)
	if p.failed > 0 {
		text += fmt.Sprintf(", %d failed", p.failed)
	}
	var b strings.Builder
	b.WriteString(text)
	for _, a := range p.current {
		b.WriteString(" · " + Clean(a.host))
		if a.text != "" {
			b.WriteString(": " + Clean(a.text))
		}
	}
	return truncate(b.String(), p.out.Width()-1) // the last column would wrap the line
}

// eraseLine goes to the first column and clears what is right of it.
const eraseLine = "\r\x1b[K"

// draw replaces the status line.
func (p *Progress) draw(status string) {
	if status == p.drawn {
		return
	}
	p.drawn = status
	_, _ = io.WriteString(p.out, eraseLine+status) // see print
}

// truncate cuts a text to so many characters.
func truncate(s string, width int) string {
	width = max(width, 1)
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
