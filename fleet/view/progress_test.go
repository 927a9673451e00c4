package view

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// run is the same for a terminal and for a log. The ticks of a terminal are
// made by hand.
func run(p *Progress, tick func()) {
	p.Begin("web01", "build image bookworm")
	p.Begin("web02", "connecting")
	tick()
	p.Detail("web01", "unpacking libc6", 3, 10)
	tick()
	p.Print("web01", "the image is 300 MB\x1b[2J")
	p.End(Result{Host: "web02", Outcome: outcome.Unreachable, Err: errors.New("connection refused")})
	p.Begin("web01", "start guest www")
	tick()
	p.End(Result{Host: "web01", Outcome: outcome.Changed})
	p.Begin("web03", "connecting")
	p.End(Result{Host: "web03", Outcome: outcome.OK})
	tick()
}

func TestProgressInALog(t *testing.T) {
	golden(t, "progress", func(w io.Writer) error {
		p := NewProgress(Plain(w), 3)
		run(p, func() {})
		p.Close()
		return nil
	})
}

func TestProgressOnATerminal(t *testing.T) {
	golden(t, "progress-terminal", func(w io.Writer) error {
		p := &Progress{out: Output{Writer: w, Terminal: true, Width: func() int { return 60 }}, total: 3}
		run(p, func() { p.draw(p.status()) })
		p.draw("")
		return nil
	})
}

func TestProgressOfManyHostsAtOnce(t *testing.T) {
	var screen strings.Builder // guarded by Progress
	p := NewProgress(Output{Writer: &screen, Terminal: true, Width: func() int { return 80 }}, 50)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			host := "h" + string(rune('A'+i))
			for _, step := range []string{"one", "two", "three"} {
				p.Begin(host, step)
				p.Detail(host, step, 1, 2)
			}
			p.End(Result{Host: host, Outcome: outcome.Changed})
		})
	}
	all.Wait()
	p.Close()
	if got := strings.Count(screen.String(), ": changed\n"); got != 50 {
		t.Errorf("%d hosts ended, want 50", got)
	}
	if !strings.HasSuffix(screen.String(), "\n") && !strings.HasSuffix(screen.String(), "\r\x1b[K") {
		t.Errorf("a status line is left: %q", screen.String()[screen.Len()-20:])
	}
}
