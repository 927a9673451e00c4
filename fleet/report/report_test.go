package report

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/node/api"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// again returns v after JSON and back.
func again[T any](t *testing.T, v T) T {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back T
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

func TestEventsSurviveJSON(t *testing.T) {
	step := StepOf(api.Step{Kind: api.StepStart, Name: "www", Why: "the inventory says running"})
	done := step.Ended(api.StepResult{Outcome: api.Failed, Error: "no space left on device", Took: time.Second}, "")
	failed := ResultOf(outcome.Failed, errors.New("host web01: no space left on device"))
	for name, e := range map[string]Event{
		"a host is begun":         {Run: "1", Time: noon, Kind: Started, Host: "web01", State: "connect"},
		"a step is begun":         {Run: "1", Time: noon, Kind: Started, Host: "web01", Step: &step},
		"a step goes on":          {Run: "1", Time: noon, Kind: Progress, Host: "web01", Step: &step, Message: "unpacking", Done: 3, Total: 7},
		"a step warns":            {Run: "1", Time: noon, Kind: Warning, Host: "web01", Step: &step, Message: "sshd listens on it"},
		"a step has ended":        {Run: "1", Time: noon, Kind: Done, Host: "web01", Step: &done},
		"a host has ended":        {Run: "1", Time: noon, Kind: Done, Host: "web01", Result: &failed},
		"the run waits for hosts": {Run: "1", Time: noon, Kind: Progress, Message: "waiting for web02"},
	} {
		t.Run(name, func(t *testing.T) {
			if back := again(t, e); !reflect.DeepEqual(back, e) {
				t.Errorf("%+v\nbecame %+v", e, back)
			}
		})
	}
}

func TestRunSurvivesJSON(t *testing.T) {
	create := StepOf(api.Step{Kind: api.StepCreate, Guest: &api.Guest{Name: "www", Context: 120}, Why: "it is not on the host"})
	r := Run{
		ID: "20261128T120000Z-00000000", Who: "root@ctl", Verb: "apply", When: noon, Took: time.Minute, Notes: []string{"image bookworm differs"},
		Hosts: []Host{
			{
				Name: "web01", Address: "192.0.2.1", Result: Result{Status: outcome.Changed}, Took: time.Second,
				Steps: []Step{create.Ended(api.StepResult{Outcome: api.Changed, Took: time.Second}, "")},
				Notes: []string{"guest old is not in the inventory: left alone"},
			},
			{Name: "web02", Result: Result{Status: outcome.Failed, Error: "guest www: no"}, Refused: []Refusal{{"www", "no"}}, Text: "removed"},
			HostOf("web03", "192.0.2.3", outcome.Unreachable, errors.New("no route to host")),
		},
	}
	if back := again(t, r); !reflect.DeepEqual(back, r) {
		t.Errorf("%+v\nbecame %+v", r, back)
	}
	if got, want := r.Outcomes(), []outcome.Outcome{outcome.Changed, outcome.Failed, outcome.Unreachable}; !reflect.DeepEqual(got, want) {
		t.Errorf("outcomes are %q, want %q", got, want)
	}
}

type hinting struct{}

func (hinting) Error() string { return "the key is not known" }
func (hinting) Hint() string  { return "vsfleet trust" }

func TestHostOfKeepsTheHint(t *testing.T) {
	if h := HostOf("web01", "", outcome.Unreachable, errors.Join(errors.New("connect"), hinting{})); h.Hint != "vsfleet trust" {
		t.Errorf("the hint is %q", h.Hint)
	}
}

func TestStepsEnd(t *testing.T) {
	for _, row := range []struct {
		name   string
		result api.StepResult
		host   outcome.Kind
		want   Result
	}{
		{"what was changed", api.StepResult{Outcome: api.Changed}, "", Result{Status: outcome.Changed}},
		{"what was changed before the host was lost", api.StepResult{Outcome: api.Changed}, outcome.KindUnreachable, Result{Status: outcome.Changed}},
		{"what was as wanted", api.StepResult{Outcome: api.Unchanged}, "", Result{Status: outcome.OK}},
		{"what failed", api.StepResult{Outcome: api.Failed, Error: "no"}, "", Result{outcome.Failed, outcome.KindStep, "no"}},
		{"what failed with the host", api.StepResult{Outcome: api.Failed, Error: "no"}, outcome.KindTimeout, Result{outcome.Failed, outcome.KindTimeout, "no"}},
		{"what was skipped", api.StepResult{Outcome: api.Skipped, Error: "interrupted"}, outcome.KindInterrupted, Result{outcome.NotStarted, outcome.KindInterrupted, "interrupted"}},
		{"what was not even sent", api.StepResult{}, "", Result{Status: outcome.NotStarted}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := (Step{}).Ended(row.result, row.host).Result; got != row.want {
				t.Errorf("%+v, want %+v", got, row.want)
			}
		})
	}
}

func TestAnErrorDoesNotRepeatItsHost(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"alpha", "start vsnode: alpha: the user there is not root", "start vsnode: the user there is not root"},
		{"alpha", "alpha (10.253.1.2:22): become root: no", "10.253.1.2:22: become root: no"},
		{"alpha", "alpha: one\nalpha: two", "one\ntwo"},
		{"alpha/www", "alpha: it is not there", "it is not there"},
		{"alpha", "guest alpha: alphabet: alpha is locked", "guest alpha: alphabet: alpha is locked"},
		{"", "alpha: one", "alpha: one"},
	} {
		if got := HostOf(row.name, "", outcome.Failed, errors.New(row.text)).Error; got != row.want {
			t.Errorf("%s: %q became %q, want %q", row.name, row.text, got, row.want)
		}
	}
}
