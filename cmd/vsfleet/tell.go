package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// told says which hosts gave no answer, and makes the exit status of all.
func (a *app) told(ctx context.Context, failures []view.Result, outcomes []outcome.Outcome) error {
	if err := view.Errors(a.stderr, failures); err != nil {
		return err
	}
	a.hint(failures)
	return a.ended(ctx, outcomes...)
}

// hint names the command that helps with what several hosts may lack.
func (a *app) hint(failures []view.Result) {
	for _, f := range failures {
		var unknown *transport.UnknownKeyError
		if errors.As(f.Err, &unknown) {
			fmt.Fprintln(a.stderr, "hint: vsfleet trust shows the keys of all hosts that are not known, and adds those that you accept to known_hosts")
			return
		}
	}
}

// question is asked before what cannot be taken back.
type question struct {
	text string
	no   string // what to say after a no
	mute string // why it cannot be asked without a terminal
	hint string // what to do then
}

// ask a question; anything but yes is an error.
func (a *app) ask(ctx context.Context, q question) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !a.stderr.Terminal {
		return usage("%s", q.hint)(errors.New(q.mute))
	}
	fmt.Fprint(a.stderr, q.text, " [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n') // its end is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
		return &usageError{err: errors.New(q.no)}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sayForeign names the guests that the inventory does not know, and what the
// hosts do not honour of the configuration of others.
func (a *app) sayForeign(report *rollout.Report) {
	if a.quiet {
		return
	}
	hosts := map[string][]string{} // by what is to be said
	var order []string
	say := func(host, text string) {
		if hosts[text] == nil {
			order = append(order, text)
		}
		hosts[text] = append(hosts[text], host)
	}
	for _, h := range report.Hosts {
		for _, guest := range h.Plan.Foreign {
			say(h.Host, "guest "+guest+" is not in the inventory: left alone")
		}
		for _, guest := range slices.Sorted(maps.Keys(h.Plan.Unread)) {
			for _, line := range api.Explain(h.Plan.Unread[guest]) {
				say(h.Host, "guest "+guest+": not honoured: "+line)
			}
		}
	}
	for i, text := range order {
		if i == mostForeign {
			fmt.Fprintf(a.stderr, "… and %d more of these: vsfleet guest status shows all guests\n", len(order)-i)
			break
		}
		fmt.Fprintf(a.stderr, "%s: %s\n", view.Clean(nodeset.Fold(hosts[text])), view.Clean(text))
	}
}

// mostForeign lines are said of guests that the inventory does not know: a host
// may say that it has tens of thousands.
const mostForeign = 100

// progress tells of a run while it goes on.
type progress struct {
	view    *view.Progress // nil: quiet
	verbose bool

	mu    sync.Mutex
	begun map[*api.Step]bool
}

func (a *app) progress(hosts int) *progress {
	p := &progress{verbose: a.verbose, begun: map[*api.Step]bool{}}
	if !a.quiet {
		p.view = view.NewProgress(a.stderr, hosts)
	}
	return p
}

func (p *progress) close() {
	if p.view != nil {
		p.view.Close()
	}
}

// watch hears of one host. Its errors come together with those of the others
// in the recap.
func (p *progress) watch(e rollout.Event) {
	switch {
	case p.view == nil:
	case e.Host == "":
		p.view.Print("vsfleet", e.Message)
	case e.Answered:
		p.view.Idle(e.Host)
	case e.Outcome != "":
		p.view.End(view.Result{Host: e.Host, Outcome: e.Outcome})
	case e.Step == nil:
		p.view.Detail(e.Host, e.Message, 0, 0)
	default:
		p.step(e)
	}
}

func (p *progress) step(e rollout.Event) {
	_, what := view.StepText(*e.Step)
	if e.Result != nil {
		if p.verbose {
			p.view.Print(e.Host, fmt.Sprintf("%s: %s in %s", what, e.Result.Outcome, view.Duration(e.Result.Took)))
		}
		return
	}
	p.mu.Lock()
	first := !p.begun[e.Step]
	p.begun[e.Step] = true
	p.mu.Unlock()
	if first {
		p.view.Begin(e.Host, what)
	}
	if e.Message == "" {
		return
	}
	p.view.Detail(e.Host, what+": "+e.Message, e.Done, e.Total)
	if p.verbose || strings.HasPrefix(e.Message, api.Warning) {
		p.view.Print(e.Host, what+": "+e.Message)
	}
}
