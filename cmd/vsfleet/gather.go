package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// said is what a command said on one host or in one guest.
type said struct {
	Host   string  `json:"host"`
	Guest  string  `json:"guest,omitempty"`
	Exit   *int    `json:"exit"` // null where nobody knows
	Stdout string  `json:"stdout"`
	Stderr string  `json:"stderr"`
	Cut    bool    `json:"cut"` // there was more than is kept
	Took   float64 `json:"tookSeconds"`
	report.Result
}

func (s said) where() string {
	if s.Guest == "" {
		return s.Host
	}
	return s.Host + "/" + s.Guest
}

// nothing reports whether the command was not even begun, or said nothing before
// it was given up: the errors at the end say why.
func (s said) nothing() bool { return s.Exit == nil && s.Stdout == "" && s.Stderr == "" }

// mostSaid is what is kept of each stream: a thousand hosts that all say a lot
// must not be the end of the controller.
const mostSaid = 1 << 20

// mostSaidByAll bounds what is kept of all places of a command together.
const mostSaidByAll = 512 << 20

// keep is the beginning of a stream.
type keep struct {
	bytes.Buffer
	cut bool
	all *atomic.Int64 // bytes kept of all streams
}

func (k *keep) Write(b []byte) (int, error) {
	room := mostSaid - k.Len()
	if over := k.all.Add(int64(min(len(b), room))) - mostSaidByAll; over > 0 {
		room = max(0, min(len(b), room)-int(over))
	}
	if len(b) > room {
		k.cut = true
		k.Buffer.Write(b[:room])
		return len(b), nil
	}
	return k.Buffer.Write(b)
}

// runner runs a command in one place: fleet.Access.Run.
type runner func(ctx context.Context, c fleet.Command, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error)

// run runs a command in all these places, and shows what it said: of one place
// as it comes, of several on a terminal as they end, those that say the same at
// the same time together, and elsewhere at the end, all that said the same
// together. What a command said before it was given up is shown as well.
func (a *app) run(cmd *cobra.Command, commands []fleet.Command, do runner) error {
	ctx := cmd.Context()
	if err := onlyOne(cmd, len(commands)); err != nil {
		return err
	}
	if len(commands) == 1 && a.output == view.AsTable {
		return a.stream(ctx, commands[0], a.stdin(cmd), do)
	}
	var failed error
	var kept atomic.Int64
	progress := a.asking(len(commands))
	records := view.NewRecords[said](a.stdout, a.output, len(commands))
	all := make([]said, len(commands))
	gathered := a.gather(progress)
	results := fanout.Each(ctx, commands, fanout.Limits{Forks: a.forks, Timeout: a.access.Timeout},
		func(ctx context.Context, c fleet.Command) (said, error) {
			stdout, stderr := keep{all: &kept}, keep{all: &kept}
			begun := time.Now()
			exit, err := do(ctx, c, nil, &stdout, &stderr)
			s := said{
				Stdout: stdout.String(), Stderr: stderr.String(), Cut: stdout.cut || stderr.cut,
				Took: report.Seconds(time.Since(begun)),
			}
			if err == nil {
				s.Exit = &exit
			}
			return s, err
		},
		follow(progress, where, &failed, func(i int, r fanout.Result[fleet.Command, said]) error {
			s := r.Value
			s.Host, s.Guest, s.Result = r.Host.Host.Name, r.Host.Guest, report.ResultOf(r.Outcome, r.Err)
			if s.Exit != nil && *s.Exit != 0 {
				s.Result = report.Result{Status: outcome.Failed, Class: outcome.KindExit, Error: fmt.Sprintf("exit status %d", *s.Exit)}
			}
			all[i] = s
			gathered.add(s)
			return records.Put(i, s)
		}))
	progress.Close()
	if err := gathered.end(); failed == nil {
		failed = err
	}
	if failed == nil {
		failed = records.Close(func(w io.Writer) error {
			if gathered.atOnce {
				return nil
			}
			return writeSaid(w, slices.DeleteFunc(all, said.nothing))
		})
	}
	if failed != nil {
		return failed
	}
	var problems []report.Host
	outcomes := fanout.Outcomes(results)
	for i, r := range results {
		switch {
		case r.Outcome != outcome.OK:
			problems = append(problems, report.HostOf(where(r.Host), r.Host.Host.Address, r.Outcome, r.Err))
		case *r.Value.Exit != 0:
			outcomes[i] = outcome.Failed
		}
	}
	return a.told(ctx, problems, outcomes)
}

// gathering is what was said and is not shown yet.
type gathering struct {
	out      view.Output
	progress *view.Progress
	atOnce   bool // show it soon, else at the end
	rest     []said
	timer    *time.Timer
	mu       sync.Mutex // of rest, failed and shown
	failed   error
}

// soon is how long what was said may wait for others that say the same.
const soon = 200 * time.Millisecond

// gather makes room for what is said. Only a terminal shows it before the end:
// what goes into a file or a pipe does not depend on who was quicker.
func (a *app) gather(p *view.Progress) *gathering {
	return &gathering{out: a.stdout, progress: p, atOnce: a.stdout.Terminal && a.output == view.AsTable}
}

// add is called within the progress's Around.
func (g *gathering) add(s said) {
	if !g.atOnce || s.nothing() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rest = append(g.rest, s)
	if g.timer == nil {
		g.timer = time.AfterFunc(soon, func() {
			_ = g.progress.Around(g.show) // its error is kept
		})
	}
}

// show prints what has come since the last time.
func (g *gathering) show() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = nil
	if g.failed == nil && len(g.rest) > 0 {
		g.failed = writeSaid(g.out, g.rest)
		g.rest = nil
	}
	return g.failed
}

// end shows what is left, where it is not for the end.
func (g *gathering) end() error {
	if !g.atOnce {
		return nil
	}
	return g.show()
}

func where(c fleet.Command) string { return said{Host: c.Host.Name, Guest: c.Guest}.where() }

// stream is run for one place.
func (a *app) stream(ctx context.Context, c fleet.Command, stdin io.Reader, do runner) error {
	stdout := visible(a.stdout)
	stderr := visible(a.stderr)
	within, cancel := fanout.Within(ctx, a.access.Timeout)
	defer cancel()
	exit, err := do(within, c, stdin, stdout, stderr)
	err = fanout.Late(within, err)
	stdout.end()
	stderr.end()
	switch {
	case err != nil:
		return a.lost(ctx, c, err)
	case exit != 0:
		fmt.Fprintf(a.stderr, "%s: exit status %d\n", where(c), exit)
		return a.ended(ctx, outcome.Failed)
	}
	return nil
}

// lost says why there is no exit status of a command.
func (a *app) lost(ctx context.Context, c fleet.Command, err error) error {
	problem := report.HostOf(where(c), "", outcome.Of(err), err)
	return a.told(ctx, []report.Host{problem}, []outcome.Outcome{problem.Status})
}

// writeSaid prints what was said, each different thing once.
func writeSaid(w io.Writer, records []said) error {
	type what struct {
		exit           int // -1: unknown
		stdout, stderr string
		cut            bool
	}
	var order []what
	places := map[what][]string{}
	for _, r := range records {
		key := what{-1, r.Stdout, r.Stderr, r.Cut}
		if r.Exit != nil {
			key.exit = *r.Exit
		}
		if places[key] == nil {
			order = append(order, key)
		}
		places[key] = append(places[key], r.where())
	}
	for _, key := range order {
		heading := view.Clean(nodeset.Fold(places[key]))
		switch {
		case key.exit < 0:
			heading += " (not to its end)"
		case key.exit > 0:
			heading += fmt.Sprintf(" (exit status %d)", key.exit)
		}
		if key.cut {
			heading += fmt.Sprintf(" (only the first %s)", view.Bytes(mostSaid))
		}
		if _, err := fmt.Fprintln(w, heading+":"); err != nil {
			return err
		}
		for _, text := range []string{key.stdout, key.stderr} {
			for line := range strings.Lines(text) {
				if _, err := fmt.Fprintln(w, "  "+clean(line)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// clean makes a line fit for a terminal. Tabs may stay: they move nothing back.
func clean(line string) string {
	fields := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
	for i, field := range fields {
		fields[i] = view.Clean(field)
	}
	return strings.Join(fields, "\t")
}

// lines makes what goes to a terminal fit for it, line by line. What goes into
// a file or a pipe stays as it is.
type lines struct {
	out  view.Output
	rest []byte
}

func visible(out view.Output) *lines { return &lines{out: out} }

func (l *lines) Write(b []byte) (int, error) {
	if !l.out.Terminal {
		return l.out.Write(b)
	}
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 && len(l.rest) < mostSaid {
			return len(b), nil
		}
		if i < 0 {
			i = len(l.rest) - 1
		}
		if _, err := fmt.Fprintln(l.out, clean(string(l.rest[:i+1]))); err != nil {
			return 0, err
		}
		l.rest = l.rest[i+1:]
	}
}

// end writes what was left without a line's end.
func (l *lines) end() {
	if len(l.rest) > 0 {
		fmt.Fprintln(l.out, clean(string(l.rest)))
		l.rest = nil
	}
}
