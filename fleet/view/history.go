package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// HistoryTable prints recorded runs.
func HistoryTable(w io.Writer, records []report.HistoryRecord) error {
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{
			shortID(r.ID), r.When.Local().Format(time.DateTime), Duration(time.Duration(r.Took * float64(time.Second))), r.Who,
			CommandLine(r.Args), r.Hosts, keptText(r),
		})
	}
	return Table(w, []string{"ID", "WHEN", ">TOOK", "WHO", "COMMAND", "HOSTS", "OUTCOME"}, rows)
}

// shortID returns the last part of an ID, which distinguishes runs that began at the
// same time.
func shortID(id string) string { return id[strings.LastIndexByte(id, '-')+1:] }

// keptText describes the outcome of a run, such as "interrupted, ok 3, failed 1".
func keptText(r report.HistoryRecord) string {
	var parts []string
	for _, c := range outcomes {
		n := r.Outcomes[c.outcome]
		if c.outcome == unknown {
			n = r.Outcomes[""]
		}
		if n > 0 && (c.outcome != unknown || r.Status != report.KeptRunning) {
			parts = append(parts, fmt.Sprintf("%s %d", c.outcome, n))
		}
	}
	switch r.Status {
	case report.KeptRunning, report.KeptInterrupted:
		parts = slices.Insert(parts, 0, string(r.Status))
	case report.KeptFailed:
		if r.Error != "" {
			parts = append(parts, r.Error)
		}
	}
	if r.Waiting != "" {
		parts = append(parts, r.Waiting)
	}
	return strings.Join(parts, ", ")
}

// Kept prints a recorded run: when it was, its command and inventory, then what was
// printed when it ended or, with output, the output of its commands.
func Kept(o Output, f Format, k report.KeptRecord, output bool) error {
	return Write(o, f, []report.KeptRecord{k}, func(w io.Writer) error {
		to := o
		to.Writer = w
		if output {
			return OutputTable(to, k.Outputs)
		}
		return to.writeKept(k)
	})
}

func (o Output) writeKept(k report.KeptRecord) error {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(o, "%-10s %s\n", name, Clean(text))
		}
	}
	line("run", k.ID)
	line("who", k.Who)
	line("when", fmt.Sprintf("%s, %s", k.When.Local().Format(time.DateTime), Duration(time.Duration(k.Took*float64(time.Second)))))
	line("command", "vsfleet "+CommandLine(k.Args))
	line("directory", k.Dir)
	line("rerun of", k.Of)
	inventory := strings.Join(k.Inventory.Files, ", ")
	if k.Inventory.Revision != "" {
		inventory += ", git " + k.Inventory.Revision[:min(12, len(k.Inventory.Revision))]
		if k.Inventory.Dirty {
			inventory += " and changes"
		}
	}
	line("inventory", inventory)
	line("version", k.Version)
	status := string(k.Status)
	if k.Exit != nil {
		status += fmt.Sprintf(", exit status %d", *k.Exit)
	}
	line("status", status)
	line("error", k.Error)
	fmt.Fprintln(o)
	run := k.Report
	run.Hosts = slices.Clone(run.Hosts)
	hosts, steps := run.Hosts, false
	for i := range hosts {
		steps = steps || len(hosts[i].Steps) > 0
		if hosts[i].Status == "" {
			hosts[i].Status, hosts[i].Error = unknown, progressText(hosts[i])
		}
	}
	if steps {
		if err := o.writePlan(o.Writer, hosts, k.Report.Notes); err != nil {
			return err
		}
	}
	Notes(o, hosts)
	for _, text := range k.Damaged {
		fmt.Fprintln(o, o.paint(red, "journal: "+Clean(text)))
	}
	if k.Cut {
		fmt.Fprintln(o, "more was written than is kept")
	}
	if err := RecapRun(o, run); err != nil {
		return err
	}
	Hints(o, hosts)
	return nil
}

// progressText describes how far a host had got when its run broke off.
func progressText(h report.Host) string {
	ended := 0
	for _, s := range h.Steps {
		if s.Status != "" {
			ended++
		}
	}
	if len(h.Steps) == 0 {
		return "what came of it is not known"
	}
	return fmt.Sprintf("what came of it is not known: %d of %d steps had ended", ended, len(h.Steps))
}
