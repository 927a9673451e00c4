package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// said is what a command said on one host or in one guest.
type said struct {
	Host   string `json:"host"`
	Guest  string `json:"guest,omitempty"`
	Exit   int    `json:"exit"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	Cut    bool   `json:"cut"` // there was more than is kept
	TookNS int64  `json:"tookNanoseconds"`
}

func (s said) where() string {
	if s.Guest == "" {
		return s.Host
	}
	return s.Host + "/" + s.Guest
}

// mostSaid is what is kept of each stream: a thousand hosts that all say a lot
// must not be the end of the controller.
const mostSaid = 1 << 20

// keep is the beginning of a stream.
type keep struct {
	bytes.Buffer
	cut bool
}

func (k *keep) Write(b []byte) (int, error) {
	room := mostSaid - k.Len()
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
// as it comes, of several when each is done, those that say the same together.
func (a *app) run(ctx context.Context, commands []fleet.Command, do runner) error {
	if len(commands) == 1 && a.output == view.AsTable {
		return a.stream(ctx, commands[0], do)
	}
	results := fanout.Each(ctx, commands, a.forks, func(ctx context.Context, c fleet.Command) (said, error) {
		var stdout, stderr keep
		begun := time.Now()
		exit, err := do(ctx, c, nil, &stdout, &stderr)
		return said{
			Host: c.Host.Name, Guest: c.Guest, Exit: exit,
			Stdout: stdout.String(), Stderr: stderr.String(), Cut: stdout.cut || stderr.cut,
			TookNS: time.Since(begun).Nanoseconds(),
		}, err
	})
	var records []said
	var problems []view.Result
	statuses := fanout.Statuses(results)
	for i, r := range results {
		if r.Status != fanout.OK {
			problems = append(problems, view.Result{Host: where(r.Host), Address: r.Host.Host.Address, Class: classes[r.Status], Err: r.Err})
			continue
		}
		records = append(records, r.Value)
		if r.Value.Exit != 0 {
			statuses[i] = fanout.Failed
		}
	}
	if err := view.Write(a.stdout, a.output, records, func(w io.Writer) error { return writeSaid(w, records) }); err != nil {
		return err
	}
	return a.told(ctx, problems, statuses)
}

func where(c fleet.Command) string { return said{Host: c.Host.Name, Guest: c.Guest}.where() }

// stream is run for one place.
func (a *app) stream(ctx context.Context, c fleet.Command, do runner) error {
	stdout := visible(a.stdout)
	stderr := visible(a.stderr)
	exit, err := do(ctx, c, os.Stdin, stdout, stderr)
	stdout.end()
	stderr.end()
	switch {
	case err != nil:
		return a.lost(ctx, c, err)
	case exit != 0:
		fmt.Fprintf(a.stderr, "%s: exit status %d\n", where(c), exit)
		return ended(ctx, fanout.Failed)
	}
	return nil
}

// lost says why there is no exit status of a command.
func (a *app) lost(ctx context.Context, c fleet.Command, err error) error {
	problem := view.Result{Host: where(c), Class: view.Failed, Err: err}
	return a.told(ctx, []view.Result{problem}, []fanout.Status{statusOf(err)})
}

// writeSaid prints what was said, each different thing once.
func writeSaid(w io.Writer, records []said) error {
	type what struct {
		exit           int
		stdout, stderr string
		cut            bool
	}
	var order []what
	places := map[what][]string{}
	for _, r := range records {
		key := what{r.Exit, r.Stdout, r.Stderr, r.Cut}
		if places[key] == nil {
			order = append(order, key)
		}
		places[key] = append(places[key], r.where())
	}
	for _, key := range order {
		heading := view.Clean(nodeset.Fold(places[key]))
		if key.exit != 0 {
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
