package view

import (
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// run is the same for a terminal and for a log. The ticks of a terminal are
// made by hand.
func run(p *Progress, tick func()) {
	of := func(host string, kind report.EventKind, step report.Step, message string) report.Event {
		return report.Event{Kind: kind, Host: host, Step: &step, Message: message}
	}
	ended := func(host string, o outcome.Outcome) report.Event {
		return report.Event{Kind: report.Done, Host: host, Result: &report.Result{Status: o}}
	}
	build := report.Step{Kind: api.StepBuildImage, Name: "bookworm"}
	start := report.Step{Kind: api.StepStart, Name: "www"}
	p.Watch(report.Event{Kind: report.Started, Host: "web01", State: "connect"})
	p.Watch(report.Event{Kind: report.Started, Host: "web02", State: "connect"})
	tick()
	p.Watch(report.Event{Kind: report.Done, Host: "web01", State: "connect"})
	p.Watch(report.Event{Kind: report.Progress, Message: "waiting for web03"})
	tick()
	p.Watch(of("web01", report.Started, build, ""))
	tick()
	unpacking := of("web01", report.Progress, build, "unpacking libc6")
	unpacking.Done, unpacking.Total = 3, 10
	p.Watch(unpacking)
	tick()
	p.Watch(of("web01", report.Warning, build, "the image is 300 MB\x1b[2J"))
	p.Watch(ended("web02", outcome.Unreachable))
	p.Watch(of("web01", report.Started, start, ""))
	tick()
	start.Outcome, start.Took = api.Changed, 1500*time.Millisecond
	p.Watch(of("web01", report.Done, start, ""))
	p.Watch(ended("web01", outcome.Changed))
	p.Watch(report.Event{Kind: report.Started, Host: "web03", State: "connect"})
	p.Watch(ended("web03", outcome.OK))
	tick()
}

func TestProgressInALog(t *testing.T) {
	golden(t, "progress", func(w io.Writer) error {
		p := NewProgress(Plain(w), 3, 0)
		run(p, func() {})
		p.Close()
		return nil
	})
	golden(t, "progress-verbose", func(w io.Writer) error {
		p := NewProgress(Plain(w), 3, 1)
		run(p, func() {})
		p.Close()
		return nil
	})
	golden(t, "progress-question", func(w io.Writer) error {
		p := NewQuestion(Plain(w), 3)
		run(p, func() {})
		p.Close()
		return nil
	})
}

func TestProgressOnATerminal(t *testing.T) {
	golden(t, "progress-terminal", func(w io.Writer) error {
		p := newProgress(terminal(w, 60), 3)
		run(p, func() { p.draw(p.status()) })
		p.draw("")
		return nil
	})
	golden(t, "progress-question-terminal", func(w io.Writer) error {
		p := newProgress(terminal(w, 60), 3)
		p.asks = true
		run(p, func() { p.draw(p.status()) })
		p.draw("")
		return nil
	})
}

func TestProgressOfManyHostsAtOnce(t *testing.T) {
	var screen strings.Builder // guarded by Progress
	p := NewProgress(terminal(&screen, 80), 50, 0)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			host := "h" + string(rune('A'+i))
			for _, step := range []string{"one", "two", "three"} {
				of := &report.Step{Kind: api.StepStart, Name: step}
				p.Watch(report.Event{Kind: report.Started, Host: host, Step: of})
				p.Watch(report.Event{Kind: report.Progress, Host: host, Step: of, Message: "one of two", Done: 1, Total: 2})
			}
			p.Watch(report.Event{Kind: report.Done, Host: host, Result: &report.Result{Status: outcome.Changed}})
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

// Who has been at work the longest comes first, with the time; at level 2 each state of
// a host has a line.
func TestProgressNamesTheSlowest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen strings.Builder
		p := newProgress(terminal(&screen, 200), 3)
		p.level = 2
		state := func(kind report.EventKind, host, name string) {
			p.Watch(report.Event{Kind: kind, Host: host, State: name})
		}
		state(report.Started, "web01", "connect")
		time.Sleep(time.Second) // of the test's own clock
		state(report.Started, "web02", "connect")
		state(report.Done, "web01", "connect")
		time.Sleep(2 * time.Minute)
		state(report.Started, "web01", "change")
		if got, want := p.status(), "0/3 hosts · web01 (2m01s): change · web02 (2m00s): connect"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		state(report.Done, "web02", "connect")
		if got, want := screen.String(), "web01: connect: 1.0s\nweb02: connect: 2m00s\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
