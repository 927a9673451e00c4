package view

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/outcome"
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
}

// Result is what came of one host.
type Result struct {
	Host    string
	Address string // where errors may name it by that; else ""
	Outcome outcome.Outcome
	Err     error // why, where there is a reason
}

// Recap ends a run: first the errors, hosts with the same one together, then
// one line of how many hosts came to what:
//
//	ok 480, changed 12, failed 3 (web[07,09,33]), unreachable 1 (db1)
func Recap(o Output, results []Result) error {
	if err := Errors(o, results); err != nil {
		return err
	}
	byOutcome := map[outcome.Outcome][]string{}
	for _, r := range results {
		byOutcome[r.Outcome] = append(byOutcome[r.Outcome], r.Host)
	}
	var parts []string
	for _, c := range outcomes {
		hosts := byOutcome[c.outcome]
		if len(hosts) == 0 {
			continue
		}
		part := o.paint(c.ink, fmt.Sprintf("%s %d", c.outcome, len(hosts)))
		if c.named {
			part += " (" + Clean(nodeset.Fold(hosts)) + ")"
		}
		parts = append(parts, part)
	}
	if parts == nil {
		parts = []string{"no hosts"}
	}
	_, err := io.WriteString(o, strings.Join(parts, ", ")+"\n")
	return err
}

// Errors prints the errors among results, one line a different one:
//
//	web[01-03]: connect: connection refused
//
// Many different ones are cut short. An error in which a host is named, or its address, is the same as that of its
// neighbour.
func Errors(o Output, results []Result) error {
	type group struct {
		text   string // of the first host
		common string // of all
		hosts  []string
	}
	var groups []*group
	byKey := map[string]*group{}
	times := map[string]int{} // that each text is there, to the letter
	for _, r := range results {
		if r.Err != nil {
			times[r.Err.Error()]++
		}
	}
	for _, r := range results {
		if r.Err == nil {
			continue
		}
		text := r.Err.Error()
		common := text // what all say names somebody else, or one of them rightly
		if times[text] == 1 {
			common = withoutName(withoutName(text, r.Host, "HOST"), r.Address, "ADDRESS")
		}
		key := string(r.Outcome) + "\x00" + common
		g := byKey[key]
		if g == nil {
			g = &group{text: text, common: common}
			byKey[key] = g
			groups = append(groups, g)
		}
		g.hosts = append(g.hosts, r.Host)
	}
	for i, g := range groups {
		if i == mostErrors && len(groups) > mostErrors+1 {
			var hosts []string
			for _, rest := range groups[i:] {
				hosts = append(hosts, rest.hosts...)
			}
			_, err := fmt.Fprintf(o, "%s: %d other errors (-o json has them all)\n", o.paint(red, Clean(nodeset.Fold(hosts))), len(groups)-i)
			return err
		}
		text := g.text
		if len(g.hosts) > 1 {
			text = g.common
		}
		if _, err := fmt.Fprintf(o, "%s: %s\n", o.paint(red, Clean(nodeset.Fold(g.hosts))), indented(text)); err != nil {
			return err
		}
	}
	return nil
}

// withoutName puts another word for a name where that stands as a word.
func withoutName(text, name, word string) string {
	if name == "" || !strings.Contains(text, name) {
		return text
	}
	whole := regexp.MustCompile(`(^|[^\w.-])` + regexp.QuoteMeta(name) + `($|[^\w.-]|\.(\s|$))`)
	return whole.ReplaceAllString(text, "${1}"+word+"${2}")
}

// mostErrors are printed of a run, and lines of one host's errors.
const mostErrors = 20

// indented keeps the lines of a joined error together, and nothing else that
// could move the cursor.
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
