package view

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// HostPlan is what would be done on one host.
type HostPlan struct {
	Host    string
	Steps   []api.Step
	Diffs   []string // of the files that each of Steps writes; nil: not asked for
	Err     error    // why there is no plan
	Refused []RefusedGuest
	Result  report.Result // of the host; if it failed, why
}

// RefusedGuest is a guest that the host cannot have, and why.
type RefusedGuest struct{ Name, Error string }

// PlanRecord is a step in machine formats. A guest that is refused has one
// without a step, and so has a host with neither.
type PlanRecord struct {
	Host string       `json:"host"`
	Step api.StepKind `json:"step"`
	Name string       `json:"name"` // of the guest or the image
	Why  string       `json:"why"`
	Diff string       `json:"diff,omitempty"` // of the files that it writes
	report.Result
}

// Plan prints what would change and why. Hosts that need the same are printed
// once; those that need nothing are only counted.
//
//	web[01-02]
//	  + build image bookworm: no host has it
//	  ~ restart guest www: its image changed
//	2 to add, 2 to change, 0 to remove on 2 hosts; 5 hosts are as they should be
//
// notes are of what differs between hosts and no step makes equal.
func Plan(o Output, f Format, plans []HostPlan, notes []string) error {
	records := planRecords(plans)
	for _, note := range notes {
		records = append(records, PlanRecord{Why: note, Result: report.Result{Status: report.Differs}})
	}
	return Write(o, f, records, func(w io.Writer) error { return o.writePlan(w, plans, notes) })
}

func planRecords(plans []HostPlan) []PlanRecord {
	var records []PlanRecord
	for _, p := range plans {
		for i, s := range p.Steps {
			r := PlanRecord{Host: p.Host, Step: s.Kind, Name: subject(s), Why: s.Why, Result: report.Result{Status: report.Planned}}
			if p.Diffs != nil {
				r.Diff = p.Diffs[i]
			}
			records = append(records, r)
		}
		for _, r := range p.Refused {
			records = append(records, PlanRecord{Host: p.Host, Name: r.Name, Result: report.Result{Status: outcome.Failed, Class: outcome.KindRefused, Error: r.Error}})
		}
		if len(p.Steps)+len(p.Refused) == 0 {
			records = append(records, PlanRecord{Host: p.Host, Result: p.Result})
		}
	}
	return records
}

func (o Output) writePlan(w io.Writer, plans []HostPlan, notes []string) error {
	out := bufio.NewWriter(w)
	var order []string // of different plans
	hosts := map[string][]string{}
	marks := map[string]int{}
	changing, same, unknown := 0, 0, 0
	for _, p := range plans {
		switch {
		case p.Err != nil:
			unknown++
			continue
		case len(p.Steps) == 0:
			same++
			continue
		}
		changing++
		var b strings.Builder
		for i, s := range p.Steps {
			mark, text := StepText(s)
			marks[mark]++
			line := mark + " " + text
			if s.Why != "" {
				line += ": " + Clean(s.Why)
			}
			fmt.Fprintf(&b, "  %s\n", o.paint(markInk(mark), line))
			if p.Diffs != nil {
				o.writeDiff(&b, p.Diffs[i])
			}
		}
		if hosts[b.String()] == nil {
			order = append(order, b.String())
		}
		hosts[b.String()] = append(hosts[b.String()], p.Host)
	}
	for _, steps := range order {
		fmt.Fprintf(out, "%s\n%s", o.paint(bold, Clean(nodeset.Fold(hosts[steps]))), steps)
	}
	for _, note := range notes {
		fmt.Fprintln(out, o.paint(yellow, Clean(note)))
	}
	var parts []string
	if changing > 0 {
		parts = append(parts, fmt.Sprintf("%d to add, %d to change, %d to remove on %s",
			marks["+"], marks["~"], marks["-"], count(changing, "host")))
	}
	switch {
	case same > 0 && len(notes) > 0:
		parts = append(parts, "no steps for "+count(same, "host"))
	case same == 1:
		parts = append(parts, "1 host is as it should be")
	case same > 1:
		parts = append(parts, fmt.Sprintf("%d hosts are as they should be", same))
	}
	if unknown > 0 {
		parts = append(parts, fmt.Sprintf("no plan for %s", count(unknown, "host")))
	}
	if parts == nil {
		parts = []string{"no hosts"}
	}
	fmt.Fprintln(out, strings.Join(parts, "; "))
	return out.Flush()
}

// StepText says in words what a step does, and marks whether it adds ("+"),
// changes ("~") or removes ("-") something.
func StepText(s api.Step) (mark, text string) {
	name := Clean(subject(s))
	switch s.Kind {
	case api.StepBuildImage:
		return "+", "build image " + name
	case api.StepImport:
		return "+", "copy image " + name
	case api.StepCreate:
		text = "create guest " + name
		if s.Guest != nil && s.Guest.Context != 0 {
			text += fmt.Sprintf(" (context %d)", s.Guest.Context)
		}
		return "+", text
	case api.StepConfigure:
		return "~", "configure guest " + name
	case api.StepFiles:
		return "~", "write files of guest " + name
	case api.StepStart:
		return "~", "start guest " + name
	case api.StepRepair:
		return "~", "repair guest " + name
	case api.StepStop:
		return "~", "stop guest " + name
	case api.StepRestart:
		return "~", "restart guest " + name
	case api.StepDelete:
		return "-", "delete guest " + name
	}
	return "~", Clean(string(s.Kind)) + " " + name
}

// subject is the guest or the image that a step is about.
func subject(s api.Step) string {
	switch {
	case s.Name != "":
		return s.Name
	case s.Guest != nil:
		return s.Guest.Name
	case s.Image != nil:
		return s.Image.Name
	}
	return ""
}

func markInk(mark string) ink {
	switch mark {
	case "+":
		return green
	case "-":
		return red
	}
	return yellow
}
