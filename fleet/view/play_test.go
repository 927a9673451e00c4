package view

import (
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// Steps of a playbook that were skipped, changed nothing or were never taken are not
// counted as changes.
func TestPlayedCountsWhatWasDone(t *testing.T) {
	exec := func(title, why string, o api.Outcome) report.Step {
		return report.StepOf(api.Step{Kind: api.StepExec, Title: title, Why: why}).Ended(api.StepResult{Outcome: o}, "")
	}
	run := report.Run{Hosts: []report.Host{{Name: "web01", Result: report.Result{Status: outcome.Failed}, Steps: []report.Step{
		exec("exec a", "", api.Changed), exec("exec b", "skipped: not true: check", api.Unchanged),
		exec("exec c", "", api.Unchanged), exec("exec d", "", api.Failed), exec("exec e", "", api.Skipped),
	}}}}
	var b strings.Builder
	if err := Played(Plain(&b), AsTable, run); err != nil {
		t.Fatal(err)
	}
	want := "web01\n  ~ exec a\n    exec b: skipped: not true: check\n    exec c\n  ~ exec d\n    exec e: not taken\n0 to add, 2 to change, 0 to remove on 1 host\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestProgressNamesSkippedSteps(t *testing.T) {
	var b strings.Builder
	p := NewProgress(Plain(&b), 1, 1)
	step := report.StepOf(api.Step{Kind: api.StepExec, Title: "exec b", Why: "skipped: not true: check"}).Ended(api.StepResult{Outcome: api.Unchanged}, "")
	p.Watch(report.Event{Kind: report.Done, Host: "web01", Step: &step})
	p.Close()
	if got, want := b.String(), "web01: exec b: skipped: not true: check\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
