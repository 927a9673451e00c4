package view

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// outcomes in the order of a recap, and how it shows them.
var outcomes = []struct {
	outcome outcome.Outcome
	ink     ink
	named   bool // with the hosts' names
}{
	{outcome.OK, green, false},
	{outcome.Changed, yellow, false},
	{outcome.Failed, red, true},
	{outcome.Reverted, red, true},
	{outcome.Unreachable, red, true},
	{outcome.Stopped, faint, true},
	{outcome.NotStarted, faint, true},
	{unknown, red, true},
}

// unknown is shown for a host without a result in a recorded run that broke off.
const unknown outcome.Outcome = "unknown"

// Recap is RecapRun for hosts alone.
func Recap(o Output, hosts []report.Host) error { return RecapRun(o, report.Run{Hosts: hosts}) }

// RecapRun prints the end of a run: the errors, hosts with the same one together, and
// one line with the number of hosts per outcome:
//
//	ok 480, changed 12, failed 3 (web[07,09,33]), unreachable 1 (db1)
//
// Before that line, a run that copied images has one with the bytes that they took, and a
// run in batches one with the batches that were begun, and one
// with the reason if it stopped:
//
//	batches: canary web01, web[02-05], web[06-40]; 3 of 5
//	stopped: web[07,09] failed, …
func RecapRun(o Output, run report.Run) error {
	hosts := run.Hosts
	if err := printErrors(o, hosts, run.Stopped); err != nil {
		return err
	}
	if err := recapBatches(o, run); err != nil {
		return err
	}
	if err := recapImages(o, hosts); err != nil {
		return err
	}
	byOutcome := map[outcome.Outcome][]string{}
	for _, h := range hosts {
		byOutcome[h.Status] = append(byOutcome[h.Status], h.Name)
	}
	var parts []string
	for _, c := range outcomes {
		names := byOutcome[c.outcome]
		if len(names) == 0 {
			continue
		}
		part := o.paint(c.ink, fmt.Sprintf("%s %d", c.outcome, len(names)))
		if c.named {
			part += " (" + Clean(nodeset.Fold(names)) + ")"
		}
		parts = append(parts, part)
	}
	if parts == nil {
		parts = []string{"no hosts"}
	}
	_, err := io.WriteString(o, strings.Join(parts, ", ")+"\n")
	return err
}

// recapImages prints what the images took that were copied.
func recapImages(o Output, hosts []report.Host) error {
	var sent int64
	var to []string
	for _, h := range hosts {
		before := sent
		for _, s := range h.Steps {
			sent += s.Sent
		}
		if sent > before {
			to = append(to, h.Name)
		}
	}
	if sent == 0 {
		return nil
	}
	_, err := fmt.Fprintf(o, "images: %s sent to %s\n", Bytes(uint64(sent)), Clean(nodeset.Fold(to)))
	return err
}

// recapBatches prints which batches a run had begun, and why it stopped.
func recapBatches(o Output, run report.Run) error {
	var parts []string
	for _, b := range run.Batches {
		part := nodeset.Fold(b.Hosts)
		switch {
		case b.Canary:
			part = "canary " + part
		case b.Retry > 0:
			part = "again " + part
		}
		parts = append(parts, part)
	}
	if n := len(parts); n > 0 {
		if n > mostErrors {
			parts = append(parts[:mostErrors], fmt.Sprintf("and %d more", n-mostErrors))
		}
		text := "batches: " + Clean(strings.Join(parts, ", "))
		if of := run.Batches[len(run.Batches)-1].Of; of > n {
			text += fmt.Sprintf("; %d of %d", n, of)
		}
		if _, err := fmt.Fprintln(o, text); err != nil {
			return err
		}
	}
	if run.Stopped == "" {
		return nil
	}
	_, err := fmt.Fprintln(o, o.paint(red, "stopped: ")+Clean(run.Stopped))
	return err
}

// Errors prints the errors of hosts, one line per different error:
//
//	web[01-03]: connect: connection refused
//
// Errors that differ only in the name or the address of their host count as one, and the
// first host's is printed:
//
//	web[01-03]: connect to 203.0.113.11:22: connection refused (the others alike)
//
// Of many different ones only the first are printed.
func Errors(o Output, hosts []report.Host) error { return printErrors(o, hosts, "") }

// printErrors is like Errors, but leaves out hosts that were not begun because the run
// had stopped, whose reason is printed separately.
func printErrors(o Output, hosts []report.Host, stopped string) error {
	type group struct {
		text  string // of the first host
		same  bool   // letter for letter, of all
		names []string
	}
	var groups []*group
	byKey := map[string]*group{}
	times := map[string]int{} // each text occurs, letter for letter
	for _, h := range hosts {
		times[h.Error]++
	}
	for _, h := range hosts {
		text := h.Error
		if text == "" || h.Class == outcome.KindStopped && stopped != "" && strings.HasSuffix(text, stopped) {
			continue
		}
		common := text // several have this very text: the name in it is right
		if times[text] == 1 {
			common = withoutName(withoutName(text, h.Name, "HOST"), h.Address, "ADDRESS")
		}
		key := string(h.Status) + "\x00" + common
		g := byKey[key]
		if g == nil {
			g = &group{text: text, same: common == text}
			byKey[key] = g
			groups = append(groups, g)
		}
		g.names = append(g.names, h.Name)
	}
	for i, g := range groups {
		if i == mostErrors && len(groups) > mostErrors+1 {
			var names []string
			for _, rest := range groups[i:] {
				names = append(names, rest.names...)
			}
			_, err := fmt.Fprintf(o, "%s: %d other errors (-o json has them all)\n", o.paint(red, Clean(nodeset.Fold(names))), len(groups)-i)
			return err
		}
		alike := ""
		switch {
		case g.same || len(g.names) == 1:
		case len(g.names) == 2:
			alike = " (the other alike)"
		default:
			alike = " (the others alike)"
		}
		if _, err := fmt.Fprintf(o, "%s: %s%s\n", o.paint(red, Clean(nodeset.Fold(g.names))), indented(g.text), alike); err != nil {
			return err
		}
	}
	return nil
}

// withoutName replaces a name, where it stands as a word, by another word.
func withoutName(text, name, word string) string {
	if name == "" || !strings.Contains(text, name) {
		return text
	}
	whole := regexp.MustCompile(`(^|[^\w.-])` + regexp.QuoteMeta(name) + `($|[^\w.-]|\.(\s|$))`)
	return whole.ReplaceAllString(text, "${1}"+word+"${2}")
}

// mostErrors bounds how many errors of a run are printed, and lines of one error.
const mostErrors = 20

// indented indents all but the first line of a joined error, and makes other control
// characters visible.
func indented(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if more := len(lines) - mostErrors; more > 1 {
		lines = append(lines[:mostErrors], fmt.Sprintf("and %d more", more))
	}
	for i := range lines {
		lines[i] = Clean(lines[i])
	}
	return strings.Join(lines, "\n    ")
}

// Hints prints the commands that help with the errors of hosts, each once.
func Hints(o Output, hosts []report.Host) {
	seen := map[string]bool{"": true}
	for _, h := range hosts {
		if !seen[h.Hint] {
			seen[h.Hint] = true
			fmt.Fprintln(o, "hint:", Clean(h.Hint))
		}
	}
}

// mostNotes bounds how many notes of a run are printed: a host may claim to have tens of
// thousands of guests that the inventory does not know.
const mostNotes = 100

// Notes prints the notes of hosts, hosts with the same note together.
func Notes(o Output, hosts []report.Host) {
	names := map[string][]string{} // by note
	var order []string
	for _, h := range hosts {
		for _, note := range h.Notes {
			if names[note] == nil {
				order = append(order, note)
			}
			names[note] = append(names[note], h.Name)
		}
	}
	for i, note := range order {
		if i == mostNotes {
			fmt.Fprintf(o, "… and %d more of these: vsfleet guest status shows all guests\n", len(order)-i)
			break
		}
		fmt.Fprintf(o, "%s: %s\n", Clean(nodeset.Fold(names[note])), Clean(note))
	}
}
