package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vsfleet/vsfleet/fleet/report"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// Progress shows on standard error how a run over many hosts goes on: on a
// terminal in one line that is redrawn, elsewhere in one line per step that has
// something to say. Its methods may be called from many goroutines, and never
// wait for the terminal's reader longer than a write takes.
type Progress struct {
	out   Output
	total int
	level int  // of detail: 1 the messages of steps, 2 also the states of hosts
	asks  bool // a question: the answers go to standard output, and no line here

	mu      sync.Mutex
	done    int
	failed  int
	current []activity           // hosts at work, the longest at work first
	begun   map[string]bool      // by host and step: it has its line
	ended   map[string]bool      // by host
	since   map[string]time.Time // that a host is at work, over its states
	drawn   string               // the status line that is on the screen
	stop    chan struct{}
	stopped chan struct{}
}

// activity is what a host is doing.
type activity struct {
	host, text string
	since      time.Time // that the host is at work
	state      time.Time // that it is in its state
}

// redraw is the interval at which the status line changes: an eye follows no faster.
const redraw = 100 * time.Millisecond

// NewProgress shows a run on a number of hosts. Level 1 also shows each message of a
// step, level 2 also how long each host was in each of its states. Close ends it.
func NewProgress(o Output, hosts int, level int) *Progress {
	p := newProgress(o, hosts)
	p.level = level
	p.start()
	return p
}

// NewQuestion shows, on a terminal only, which hosts have not answered yet and what a
// host waits for.
func NewQuestion(o Output, hosts int) *Progress {
	p := newProgress(o, hosts)
	p.asks = true
	p.start()
	return p
}

func newProgress(o Output, hosts int) *Progress {
	return &Progress{out: o, total: hosts, begun: map[string]bool{}, ended: map[string]bool{}, since: map[string]time.Time{}}
}

func (p *Progress) start() {
	if p.out.Terminal {
		p.stop, p.stopped = make(chan struct{}), make(chan struct{})
		go p.run()
	}
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

// Watch shows an event. The errors of hosts come together at the end, in the
// recap.
func (p *Progress) Watch(e report.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case e.Kind == report.HostPlan || e.Kind == report.Written || e.Host == "" && e.Message == "":
		// for the history
	case e.Host == "":
		if !p.asks || p.out.Terminal {
			p.print("vsfleet", e.Message)
		}
	case e.Kind == report.Warning && e.Step == nil:
		p.print(e.Host, e.Message)
	case p.asks:
		p.question(e)
	case e.Step != nil:
		p.step(e)
	case e.Kind == report.Done && e.State != "":
		if i := p.activity(e.Host); p.level > 1 && i >= 0 {
			p.print(e.Host, fmt.Sprintf("%s: %s", e.State, Duration(time.Since(p.current[i].state))))
		}
		p.idle(e.Host)
	case e.Kind == report.Done:
		p.finish(e)
		// That a run has stopped is one line of the recap, not one for each of its hosts.
		if e.Result != nil && e.Result.Status != outcome.OK && e.Result.Status != outcome.Stopped {
			p.print(e.Host, string(e.Result.Status))
		}
	default:
		p.set(e.Host, e.State)
		p.current[p.activity(e.Host)].state = time.Now()
	}
}

// question shows an event of a host that is asked: it has answered when its
// first state is behind it.
func (p *Progress) question(e report.Event) {
	switch {
	case p.ended[e.Host]:
	case e.Kind == report.Done && e.Step == nil:
		p.finish(e)
	default:
		p.set(e.Host, "")
	}
}

func (p *Progress) step(e report.Event) {
	_, what := StepText(*e.Step)
	if e.Kind == report.Done {
		if p.level > 0 {
			text := fmt.Sprintf("%s: %s in %s", what, e.Step.Outcome, Duration(e.Step.Took))
			if e.Step.Sent > 0 {
				text += fmt.Sprintf(", %s sent", Bytes(uint64(e.Step.Sent)))
			}
			if strings.HasPrefix(e.Step.Why, "skipped: ") {
				text = what + ": " + Clean(e.Step.Why)
			}
			if e.Step.Output != "" {
				text += "\n" + e.Step.Output
			}
			p.print(e.Host, text)
		}
		return
	}
	p.set(e.Host, what)
	if e.Kind == report.Started {
		return
	}
	if key := e.Host + "\x00" + what; !p.begun[key] {
		p.begun[key] = true
		if !p.out.Terminal {
			p.print(e.Host, what)
		}
	}
	if e.Message == "" {
		return
	}
	text := what + ": " + e.Message
	if e.Kind == report.Warning {
		text = what + ": warning: " + e.Message
	}
	if p.level > 0 || e.Kind == report.Warning {
		p.print(e.Host, text)
	}
	if e.Total > 0 {
		text = fmt.Sprintf("%s %d%%", text, e.Done*100/e.Total)
	}
	p.set(e.Host, text)
}

func (p *Progress) idle(host string) {
	p.current = slices.DeleteFunc(p.current, func(a activity) bool { return a.host == host })
}

// finish counts a host as done.
func (p *Progress) finish(e report.Event) {
	p.done++
	p.ended[e.Host] = true
	p.idle(e.Host)
	if e.Result != nil && (e.Result.Status == outcome.Failed || e.Result.Status == outcome.Unreachable) {
		p.failed++
	}
}

// Around calls write, which may print lines, above the status line if there is one.
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

// Close removes the status line.
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
	if i := p.activity(host); i >= 0 {
		p.current[i].text = what
		return
	}
	since := time.Now()
	if begun, ok := p.since[host]; ok {
		since = begun // it was at work before, in another state
	}
	p.since[host] = since
	p.current = append(p.current, activity{host: host, text: what, since: since})
	slices.SortStableFunc(p.current, func(a, b activity) int { return a.since.Compare(b.since) })
}

// activity returns the index of a host in current, or -1.
func (p *Progress) activity(host string) int {
	return slices.IndexFunc(p.current, func(a activity) bool { return a.host == host })
}

// print prints a line for a host above the status line.
func (p *Progress) print(host, text string) {
	text = Clean(host) + ": " + indented(text) + "\n"
	if p.drawn != "" {
		text = eraseLine + text + p.drawn
	}
	// If standard error is gone, the run goes on.
	_, _ = io.WriteString(p.out, text)
}

// slow is the time after which the status line shows how long a host has been working.
const slow = 5 * time.Second

// status is "12/40 hosts, 1 failed · web01 (2m10s): build image bookworm · …", the slowest
// host first.
func (p *Progress) status() string {
	text := fmt.Sprintf("%d/%d hosts", p.done, p.total)
	if p.failed > 0 {
		text += fmt.Sprintf(", %d failed", p.failed)
	}
	var b strings.Builder
	b.WriteString(text)
	for _, a := range p.current {
		b.WriteString(" · " + Clean(a.host))
		if at := time.Since(a.since); at >= slow {
			fmt.Fprintf(&b, " (%s)", Duration(at.Truncate(time.Second)))
		}
		if a.text != "" {
			b.WriteString(": " + Clean(a.text))
		}
	}
	return truncate(b.String(), p.out.Width()-1) // the last column would wrap the line
}

// eraseLine moves to the first column and clears the line.
const eraseLine = "\r\x1b[K"

// draw replaces the status line.
func (p *Progress) draw(status string) {
	if status == p.drawn {
		return
	}
	p.drawn = status
	_, _ = io.WriteString(p.out, eraseLine+status) // see print
}

// truncate cuts a text to a number of characters.
func truncate(s string, width int) string {
	width = max(width, 1)
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
