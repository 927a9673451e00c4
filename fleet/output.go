package fleet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
)

// CommandsOn returns one command for many hosts.
func CommandsOn(hosts []*inventory.Host, argv []string) []Command {
	list := make([]Command, len(hosts))
	for i, h := range hosts {
		list[i] = Command{Host: h, Argv: argv}
	}
	return list
}

// CommandsIn returns one command for many guests.
func CommandsIn(guests []inventory.Instance, argv []string) []Command {
	list := make([]Command, len(guests))
	for i, g := range guests {
		list[i] = Command{Host: g.Host, Guest: g.Guest.Name, Argv: argv}
	}
	return list
}

// Place names the host, or the guest on it, in which the command runs.
func (c Command) Place() string {
	return report.OutputRecord{Host: c.Host.Name, Guest: c.Guest}.Place()
}

// Runner runs a command in one place: [Access.Run].
type Runner func(ctx context.Context, c Command, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error)

// Output is what came of a command in one place.
type Output = fanout.Result[Command, report.OutputRecord]

// Outputs runs commands and returns the beginning of what each of them writes, also of
// those that are given up. A command has failed if its exit status is not 0.
func Outputs(ctx context.Context, commands []Command, limits fanout.Limits, run Runner, watch fanout.Watch[Command, report.OutputRecord]) []Output {
	var kept atomic.Int64
	end := watch.End
	watch.End = func(i int, r Output) { end(i, finished(r)) }
	results := fanout.Each(ctx, commands, limits, func(ctx context.Context, c Command) (report.OutputRecord, error) {
		stdout, stderr := beginning{all: &kept}, beginning{all: &kept}
		begun := time.Now()
		exit, err := run(ctx, c, nil, &stdout, &stderr)
		r := report.OutputRecord{
			Stdout: stdout.String(), Stderr: stderr.String(), Cut: stdout.cut || stderr.cut,
			Took: report.Seconds(time.Since(begun)),
		}
		if err == nil {
			r.Exit = &exit
		}
		return r, err
	}, watch)
	for i, r := range results {
		results[i] = finished(r)
	}
	return results
}

// Streamed runs one command, writes its output to streams as it arrives, and also
// returns the beginning of the output. The deadline of ctx is that of the command.
func Streamed(ctx context.Context, c Command, run Runner, stdin io.Reader, stdout, stderr io.Writer) Output {
	var kept atomic.Int64
	out, errs := beginning{all: &kept}, beginning{all: &kept}
	begun := time.Now()
	exit, err := run(ctx, c, stdin, io.MultiWriter(&out, stdout), io.MultiWriter(&errs, stderr))
	err = fanout.TimeoutOr(ctx, err)
	r := Output{Host: c, Outcome: outcome.Of(err), Err: err}
	r.Value = report.OutputRecord{
		Stdout: out.String(), Stderr: errs.String(), Cut: out.cut || errs.cut, Took: report.Seconds(time.Since(begun)),
	}
	if err == nil {
		r.Value.Exit = &exit
	}
	return finished(r)
}

// finished completes the record with its place and its outcome.
func finished(r Output) Output {
	o := &r.Value
	o.Host, o.Guest, o.Result = r.Host.Host.Name, r.Host.Guest, report.ResultOf(r.Outcome, r.Err)
	if o.Exit != nil && *o.Exit != 0 {
		r.Outcome = outcome.Failed
		o.Result = report.Result{Status: outcome.Failed, Class: outcome.KindExit, Error: fmt.Sprintf("exit status %d", *o.Exit)}
	}
	return r
}

// mostOutput bounds what is kept of all places of a command together.
const mostOutput = 512 << 20

// beginning keeps the beginning of a stream: a thousand hosts that write a lot must not
// exhaust the memory of the controller.
type beginning struct {
	bytes.Buffer
	cut bool
	all *atomic.Int64 // bytes kept of all streams
}

func (b *beginning) Write(p []byte) (int, error) {
	room := report.MostOutput - b.Len()
	if over := b.all.Add(int64(min(len(p), room))) - mostOutput; over > 0 {
		room = max(0, min(len(p), room)-int(over))
	}
	if len(p) > room {
		b.cut = true
		b.Buffer.Write(p[:room])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
