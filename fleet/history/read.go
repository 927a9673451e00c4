package history

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// mostDamaged bounds how many damaged lines are reported.
const mostDamaged = 20

// readEnded returns the record of a run that is not under way: it waits for nobody, even if
// it was killed while it did.
func readEnded(data []byte, id string) report.KeptRecord {
	k := read(data, id)
	k.Waiting = ""
	return k
}

// read makes the record of a run from its journal. Lines that cannot be read are
// reported and skipped. The run counts as interrupted if the journal has no end.
func read(data []byte, id string) report.KeptRecord {
	var c report.Collector
	var head Head
	var end *End
	var k report.KeptRecord
	n, damaged := 0, 0
	var last time.Time
	for text := range bytes.Lines(data) {
		n++
		text = bytes.TrimSpace(text)
		if len(text) == 0 {
			continue
		}
		l, err := decode(text)
		if err == nil && l.Head == nil && l.End == nil && l.Kind == "" {
			err = errNoLine
		}
		if err != nil {
			if damaged++; damaged <= mostDamaged {
				k.Damaged = append(k.Damaged, fmt.Sprintf("line %d: %v", n, err))
			}
			continue
		}
		switch {
		case l.Head != nil:
			head = *l.Head
		case l.End != nil:
			end = l.End
		default:
			c.Add(l.Event)
			k.Waiting = waitingFor(l.Event, k.Waiting)
		}
		if l.Time.After(last) {
			last = l.Time
		}
	}
	if damaged > mostDamaged {
		k.Damaged = append(k.Damaged, fmt.Sprintf("and %d more lines", damaged-mostDamaged))
	}
	k.Report, _ = c.Run()
	k.Outputs = c.Outputs()
	k.Report.ID = id
	if k.Report.When.IsZero() {
		k.Report.When = timeOf(id)
	}
	if took := last.Sub(k.Report.When); took > k.Report.Took {
		k.Report.Took = took
	}
	waiting := k.Waiting
	k.HistoryRecord = summary(k.Report, head, end)
	if end == nil {
		k.Waiting = waiting
	}
	k.Cut = end != nil && end.Cut
	return k
}

var errNoLine = errors.New("it is not a line of a journal")

// summary returns the record of a run for a list.
func summary(run report.Run, head Head, end *End) report.HistoryRecord {
	r := report.HistoryRecord{
		ID: run.ID, When: run.When, Took: report.Seconds(run.Took), Who: run.Who, Verb: run.Verb,
		Status: report.KeptInterrupted, Outcomes: run.Counts(),
		Args: head.Args, Redacted: head.Redacted, Dir: head.Dir, Of: head.Of, Version: head.Version, Inventory: head.Inventory,
	}
	if end != nil {
		r.Exit, r.Error = &end.Exit, end.Error
		r.Status = report.KeptOK
		switch end.Exit {
		case 0:
		case outcome.ExitInterrupted:
			r.Status = report.KeptInterrupted
		default:
			r.Status = report.KeptFailed
		}
	}
	names := make([]string, len(run.Hosts))
	for i, h := range run.Hosts {
		names[i] = h.Name
	}
	r.Hosts = nodeset.Fold(names)
	return r
}

var idForm = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$`)

// timeOf returns the time in the ID of a run.
func timeOf(id string) time.Time {
	if !idForm.MatchString(id) {
		return time.Time{}
	}
	t, _ := time.Parse("20060102T150405Z", id[:16]) // the zero time: 20261399…
	return t
}
