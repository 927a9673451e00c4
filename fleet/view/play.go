package view

import (
	"io"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// PlaybookTable prints playbooks that come with vsfleet.
func PlaybookTable(w io.Writer, records []report.PlaybookRecord) error {
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{r.Name, r.About})
	}
	return Table(w, []string{"PLAYBOOK", "WHAT IT DOES"}, rows)
}

// Played prints the result of a playbook, or with --check the expected one, in the form
// of [Plan].
func Played(o Output, f Format, run report.Run) error {
	return Write(o, f, report.PlayRecords(run), func(w io.Writer) error { return o.writePlan(w, run.Hosts, run.Notes) })
}

// PlayStepTable prints the steps of a playbook.
func PlayStepTable(w io.Writer, records []report.PlayStepRecord) error {
	var rows [][]string
	for i, r := range records {
		rows = append(rows, []string{strconv.Itoa(i + 1), r.Play, r.Step, r.Kind, strings.Join(r.Tags, ","), nodeset.Fold(r.Hosts)})
	}
	return Table(w, []string{">STEP", "PLAY", "NAME", "KIND", "TAGS", "HOSTS"}, rows)
}

// PlayHostTable prints the hosts of a playbook.
func PlayHostTable(w io.Writer, records []report.PlayHostRecord) error {
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{r.Host, r.Plays})
	}
	return Table(w, []string{"HOST", "PLAYS"}, rows)
}
