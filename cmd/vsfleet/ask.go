package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

// progress returns the display of a run.
func (a *app) progress(hosts int) *view.Progress {
	return a.showing(view.NewProgress(a.log(), hosts, a.verbose))
}

// asking returns the display of a question: the hosts that have not answered yet.
func (a *app) asking(n int) *view.Progress { return a.showing(view.NewQuestion(a.log(), n)) }

// log returns where progress is shown.
func (a *app) log() view.Output {
	if a.quiet {
		return view.Plain(io.Discard)
	}
	return a.stderr
}

// showing makes p show what hosts wait for on the way to them.
func (a *app) showing(p *view.Progress) *view.Progress {
	a.shown = p
	a.access.Waiting = func(host, why string) {
		p.Watch(report.Event{Kind: report.Warning, Host: host, Message: why})
	}
	return p
}

// follow returns the watch of a question: it shows progress and calls each for every
// result. failed is set to the first error of each.
func follow[H, V any](p *view.Progress, name func(H) string, failed *error, each func(i int, r fanout.Result[H, V]) error) fanout.Watch[H, V] {
	return fanout.Watch[H, V]{
		Begin: func(h H) { p.Watch(report.Event{Kind: report.Started, Host: name(h)}) },
		End: func(i int, r fanout.Result[H, V]) {
			result := report.ResultOf(r.Outcome, r.Err)
			p.Watch(report.Event{Kind: report.Done, Host: name(r.Host), Result: &result})
			if err := p.Around(func() error { return each(i, r) }); err != nil && *failed == nil {
				*failed = err
			}
		},
	}
}

// listing is how records are shown to people.
type listing[R any] struct {
	table func(w io.Writer, records []R) error
	none  string        // said if the hosts that answered have no records: no volumes
	live  func(R) error // if not nil: it shows each as it comes, and there is no table
}

// ask asks hosts a question and prints the records of each host; a host without an
// answer has a record with the reason. For people, only answers are printed.
func ask[V, R any](a *app, hosts []*inventory.Host, question func(fleet.Watch[V]) fleet.Answers[V],
	record func(h *inventory.Host, v V, result report.Result) []R, shown listing[R],
) (fleet.Answers[V], error) {
	var failed error
	progress := a.asking(len(hosts))
	records := view.NewRecords[R](a.stdout, a.output, len(hosts))
	answered, count := make([][]R, len(hosts)), 0
	answers := question(follow(progress, func(h *inventory.Host) string { return h.Name }, &failed,
		func(i int, r fanout.Result[*inventory.Host, V]) error {
			list := record(r.Host, r.Value, report.ResultOf(r.Outcome, r.Err))
			if r.Outcome == outcome.OK {
				answered[i] = list
				count++
				for k := 0; shown.live != nil && k < len(list); k++ {
					if err := shown.live(list[k]); err != nil {
						return err
					}
				}
			}
			return records.Put(i, list...)
		}))
	progress.Close()
	if failed == nil {
		failed = records.Close(func(w io.Writer, _ []R) error {
			list := slices.Concat(answered...)
			if len(list) > 0 && shown.live == nil {
				return shown.table(w, list)
			}
			if len(list) == 0 && count > 0 && shown.none != "" && !a.quiet {
				fmt.Fprintf(a.stderr, "%s on %s\n", shown.none, view.Count(count, "host"))
			}
			return nil
		})
	}
	return answers, failed
}

// show prints records that need no question.
func show[R any](a *app, records []R, table func(w io.Writer, records []R) error) error {
	return view.Write(a.stdout, a.output, records, func(w io.Writer) error { return table(w, records) })
}

// printTexts prints the answers to a request that has no data: as a table, it prints
// them on standard error.
func (a *app) printTexts(records []report.TextRecord) error {
	if a.output != view.AsTable {
		return view.Write(a.stdout, a.output, records, nil)
	}
	for _, r := range records {
		if r.Status == outcome.OK && !a.quiet {
			fmt.Fprintf(a.stderr, "%s: %s\n", view.Clean(r.Host), view.Clean(r.Text))
		}
	}
	return nil
}
