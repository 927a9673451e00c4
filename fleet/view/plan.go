package view

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// Plan prints what would change and why. Hosts with the same steps are printed
// together; those without steps are only counted.
//
//	web[01-02]
//	  + build image bookworm: no host has it
//	  ~ restart guest www: its image changed
//	2 to add, 2 to change, 0 to remove on 2 hosts; 5 hosts are as they should be
//
// The notes of the run follow the steps.
func Plan(o Output, f Format, run report.Run) error {
	return Write(o, f, report.PlanRecords(run), func(w io.Writer) error { return o.writePlan(w, run.Hosts, run.Notes) })
}

func (o Output) writePlan(w io.Writer, hosts []report.Host, notes []string) error {
	out := bufio.NewWriter(w)
	var order []string             // of different plans
	names := map[string][]string{} // of hosts, by plan
	marks := map[string]int{}
	changing, same, unknown := 0, 0, 0
	for _, h := range hosts {
		switch {
		case !h.Planned():
			unknown++
			continue
		case len(h.Steps) == 0:
			same++
			continue
		}
		changing++
		var b strings.Builder
		for _, s := range h.Steps {
			mark, text := StepText(s)
			if s.Title != "" && (s.Outcome == api.Unchanged || s.Outcome == api.Skipped) {
				mark = " " // a step of a playbook that changed nothing
			}
			marks[mark]++
			line := mark + " " + text
			switch {
			case s.Why != "":
				line += ": " + Clean(s.Why)
			case s.Title != "" && s.Outcome == api.Skipped:
				line += ": not taken"
			}
			fmt.Fprintf(&b, "  %s\n", o.paint(markInk(mark), line))
			if s.Shadows != nil {
				for _, line := range s.Shadows.Lines() {
					fmt.Fprintf(&b, "      %s\n", o.paint(yellow, Clean(line)))
				}
			}
			o.writeDiff(&b, s.Diff)
		}
		if names[b.String()] == nil {
			order = append(order, b.String())
		}
		names[b.String()] = append(names[b.String()], h.Name)
	}
	for _, steps := range order {
		fmt.Fprintf(out, "%s\n%s", o.paint(bold, Clean(nodeset.Fold(names[steps]))), steps)
	}
	for _, note := range notes {
		fmt.Fprintln(out, o.paint(yellow, Clean(note)))
	}
	var parts []string
	if changing > 0 {
		parts = append(parts, fmt.Sprintf("%d to add, %d to change, %d to remove on %s",
			marks["+"], marks["~"], marks["-"], Count(changing, "host")))
	}
	switch {
	case same > 0 && len(notes) > 0:
		parts = append(parts, "no steps for "+Count(same, "host"))
	case same == 1:
		parts = append(parts, "1 host is as it should be")
	case same > 1:
		parts = append(parts, fmt.Sprintf("%d hosts are as they should be", same))
	}
	if unknown > 0 {
		parts = append(parts, fmt.Sprintf("no plan for %s", Count(unknown, "host")))
	}
	if parts == nil {
		parts = []string{"no hosts"}
	}
	fmt.Fprintln(out, strings.Join(parts, "; "))
	return out.Flush()
}

// StepText returns in words what a step does, and a mark for whether it adds ("+"),
// changes ("~") or removes ("-") something, or none of these (" ").
func StepText(s report.Step) (mark, text string) {
	name := Clean(s.Name)
	mark, text = stepText(s, name)
	if s.Title == "" {
		return mark, text
	}
	// Steps of a playbook go by its words; one of them may become several.
	title := Clean(s.Title)
	switch s.Kind {
	case api.StepExec, api.StepWait, api.StepStat, api.StepFiles:
		if name != "" {
			title += " (in guest " + name + ")"
		}
	case api.StepBuildImage, api.StepImport, api.StepCreate, api.StepConfigure, api.StepStart, api.StepRepair, api.StepStop, api.StepRestart, api.StepDelete:
		title += ": " + text
	}
	return mark, title
}

func stepText(s report.Step, name string) (mark, text string) {
	switch s.Kind {
	case api.StepBuildImage:
		return "+", "build image " + name
	case api.StepImport:
		return "+", "copy image " + name
	case api.StepCreate:
		text = "create guest " + name
		if s.Context != 0 {
			text += fmt.Sprintf(" (context %d)", s.Context)
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
	case api.StepHealth:
		return " ", "check health of guest " + name
	case api.StepRevert:
		return "~", "revert guest " + name
	case api.StepUpgrade:
		return "~", "upgrade packages of guest " + name
	case api.StepForget:
		return "-", "forget generations of guest " + name
	}
	return "~", Clean(string(s.Kind)) + " " + name
}

func markInk(mark string) ink {
	switch mark {
	case "+":
		return green
	case "-":
		return red
	case " ":
		return faint
	}
	return yellow
}

// writeDiff prints a diff below its step.
func (o Output) writeDiff(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		line = Clean(strings.TrimSuffix(line, "\n"))
		switch {
		case strings.HasPrefix(line, "diff "):
			continue // the next two lines say the same
		case strings.HasPrefix(line, "+"):
			line = o.paint(green, line)
		case strings.HasPrefix(line, "-"):
			line = o.paint(red, line)
		}
		fmt.Fprintf(w, "      %s\n", line)
	}
}
