package play

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fleet.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const two = `
- hosts: all
  steps:
    - exec: [a]
    - exec: ["fail"]
      when: host.name == "web2"
- hosts: web1:web2
  steps:
    - exec: [b]
`

func TestAHostThatFailsIsLeftOutOfLaterPlays(t *testing.T) {
	p, hosts := stage(t, "web1", "web2", "web3")
	var mu sync.Mutex
	var ended []string
	p.Fleet.Watch = func(e report.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == report.Done && e.Report != nil {
			ended = append(ended, e.Host+" "+string(e.Report.Status))
		}
	}
	run, err := p.Play(within(t), book(t, two))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(run), "web1 changed, web2 failed, web3 changed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := len(hosts["web2"].requests); n != 1 {
		t.Errorf("web2 had %d requests", n)
	}
	if got, want := told(run.Hosts[0]), []string{"exec a changed", "exec fail skipped", "exec b changed"}; !slices.Equal(got, want) {
		t.Errorf("web1: %q", got)
	}
	slices.Sort(ended) // each host ends once
	if want := []string{"web1 changed", "web2 failed", "web3 changed"}; !slices.Equal(ended, want) {
		t.Errorf("events of %q", ended)
	}
}

func TestAFailureStopsARunInBatches(t *testing.T) {
	p, hosts := stage(t, "web1", "web2", "web3")
	run, err := p.Play(within(t), book(t, "- hosts: all\n  strategy: {serial: 1}\n  steps: [{exec: [fail]}]\n- hosts: all\n  steps: [{exec: [b]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(run), "web1 failed, web2 stopped, web3 stopped"; got != want || run.Stopped == "" {
		t.Errorf("got %s, want %s: %q", got, want, run.Stopped)
	}
	if hosts["web2"].sessions != 0 {
		t.Error("web2 was begun")
	}
}

func TestAQuestionIsAskedOncePerBatch(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer error
		want   string
		later  int // requests after the question
	}{
		{"yes", nil, "web1 changed, web2 changed", 1},
		{"no", errors.New("you said no"), "web1 stopped, web2 stopped", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, hosts := stage(t, "web1", "web2")
			var asked []string
			p.Ask = func(_ context.Context, question string) error {
				asked = append(asked, question)
				return row.answer
			}
			run, err := p.Play(within(t), book(t, "- hosts: all\n  steps:\n  - exec: [a]\n  - confirm: Is it well?\n  - exec: [b]\n"))
			if err != nil {
				t.Fatal(err)
			}
			if got := outcomes(run); got != row.want || !slices.Equal(asked, []string{"Is it well?"}) {
				t.Errorf("%s, asked %q", got, asked)
			}
			if n := len(hosts["web2"].requests); n != 1+row.later {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestTemplatesAreCheckedBeforeAnyHostIsAsked(t *testing.T) {
	for _, row := range []struct{ name, steps, want string }{
		{"all is there", "template: {source: good, to: /f}", ""},
		{"a source that is not there", "copy: {source: gone, to: /f}", "p.yml:3:23: source: no gone"},
		{"an item of a loop that is not there", "copy: {source: \"${item}\", to: /f}, loop: [good, gone]", "p.yml:3:23: source: no gone"},
		{"a variable that a host lacks", "template: {source: bad, to: /f}", "bad:2:4: host web1 and 1 more have no variable ${vars.x} (give a default: ${vars.x:-…})"},
		{"that only one host needs", "template: {source: bad, to: /f}, when: host.name == \"web2\"", "bad:2:4: host web2 has no variable ${vars.x} (give a default: ${vars.x:-…})"},
		{"that only a run can tell to be needed", "template: {source: bad, to: /f}, when: facts.cpus == 1", ""},
		{"of a step whose failure is ignored", "template: {source: bad, to: /f}, ignore_errors: true", ""},
		{"a template that cannot be read as one", "template: {source: open, to: /f}", "p.yml:3:27: source: open: ${vars has no } (write $${ for ${ itself)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, hosts := stage(t, "web1", "web2")
			texts := map[string]string{"good": "${host.name} ${facts.cpus} ${vars.n}", "bad": "a\nis ${vars.x} ${vars.y:-z}", "open": "${vars"}
			p.Read = func(name string) ([]byte, error) {
				if text, ok := texts[name]; ok {
					return []byte(text), nil
				}
				return nil, errors.New("no " + name)
			}
			_, err := p.Play(within(t), book(t, "- hosts: all\n  steps:\n    - {"+row.steps+"}\n"))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != row.want || err != nil && hosts["web1"].sessions+hosts["web2"].sessions > 0 {
				t.Errorf("got %q, want %q; %d sessions", got, row.want, hosts["web1"].sessions)
			}
		})
	}
}

func TestAnIgnoredFailureIsNotedAsIgnored(t *testing.T) {
	p, _ := stage(t, "web1")
	run, err := p.Play(within(t), book(t, "- hosts: all\n  steps: [{exec: [fail], ignore_errors: true}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := run.Hosts[0].Notes, []string{"exec fail: ignored: fail: exit status 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStepByStep(t *testing.T) {
	p, hosts := stage(t, "web1")
	p.Step = func(_ context.Context, title string, on []string) (bool, error) {
		return title != "exec b" || len(on) == 0, nil
	}
	if _, err := p.Play(within(t), book(t, "- hosts: all\n  steps: [{exec: [a]}, {exec: [b]}, {exec: [c]}]\n")); err != nil {
		t.Fatal(err)
	}
	if got := hosts["web1"].requests; len(got) != 2 || got[0][0] != "exec  a" || got[1][0] != "exec  c" {
		t.Errorf("%q", got)
	}
}

// What a run would do is shown; what only a run can know is named, and nothing changes.
func TestCheckChangesNothing(t *testing.T) {
	p, hosts := stage(t, "web1")
	p.Check, p.Fleet.Diff = true, true
	hosts["web1"].files["/same"] = api.FileDigest([]byte("x"))
	run, err := p.Play(within(t), book(t, `
- hosts: all
  steps:
    - copy: {to: /same, content: x}
    - copy: {to: /other, content: x}
      notify: h
    - stat: /same
      register: st
    - exec: [a]
      when: st.exists
      register: out
    - exec: [b]
      when: out.rc == 0
    - confirm: Go on?
      when: out.rc == 0
    - check: {identity: new}
    - exec: [c]
      when: not check
    - guest: {name: www, do: start}
  handlers:
    - {name: h, exec: [h]}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range run.Hosts[0].Steps {
		got = append(got, strings.TrimSuffix(s.Title+": "+s.Why, ": "))
	}
	want := []string{"copy /other", "exec a", "exec b: it depends on what only a run gives", "check new: it depends on what only a run gives", "guest www", "h"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := outcomes(run); got != "web1 changed" || run.Verb != "plan" {
		t.Error(got, run.Verb)
	}
	for _, r := range hosts["web1"].requests {
		for _, s := range r {
			if s != "stat" {
				t.Errorf("it did %q", s)
			}
		}
	}
}

func TestAnInterruptedPlaySaysWhatWasDone(t *testing.T) {
	p, hosts := stage(t, "web1", "web2")
	p.Fleet.Forks = 1
	ctx, interrupt := context.WithCancelCause(within(t))
	hosts["web1"].before = func(words string) {
		if words == "b" {
			interrupt(outcome.ErrInterrupted)
		}
	}
	run, err := p.Play(ctx, book(t, "- hosts: all\n  steps: [{exec: [a]}, {exec: [b]}, {exec: [c]}]\n- hosts: all\n  steps: [{exec: [d]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(run), "web1 failed, web2 skipped"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := told(run.Hosts[0]), []string{"exec a changed", "exec b skipped", "exec c skipped"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStepsWithoutAnAnswerAreNotSaidToBeDone(t *testing.T) {
	p, hosts := stage(t, "web1", "web2")
	hosts["web1"].die = "b"
	run, err := p.Play(within(t), book(t, "- hosts: all\n  steps: [{exec: [a]}, {exec: [b]}, {pause: 0.001}, {exec: [c]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(run), "web1 failed, web2 changed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, s := range run.Hosts[0].Steps {
		if s.Outcome != api.Failed || !strings.Contains(s.Error, "the host gave no answer") {
			t.Errorf("%s: %s: %s", s.Title, s.Outcome, s.Error)
		}
	}
}

func TestTemplatesAreFilledIn(t *testing.T) {
	p, hosts := stage(t, "web1")
	if _, err := p.Play(within(t), book(t, "- hosts: all\n  steps: [{template: {source: t, to: /f}}, {copy: {source: t, to: /g}}]\n")); err != nil {
		t.Fatal(err)
	}
	if got := hosts["web1"].files; got["/f"] != api.FileDigest([]byte("of web1\n")) || got["/g"] != api.FileDigest([]byte("of ${host.name}\n")) {
		t.Errorf("%q", got)
	}
}

// A host that is tried again begins the play anew, with nothing remembered.
func TestAHostThatWasLostBeginsAnew(t *testing.T) {
	p, hosts := stage(t, "web1")
	p.Fleet.Strategy.Retries = 1
	hosts["web1"].die = "b"
	hosts["web1"].before = func(words string) {
		if hosts["web1"].sessions == 2 {
			hosts["web1"].die = ""
		}
	}
	run, err := p.Play(within(t), book(t, `
- hosts: all
  steps:
    - exec: [count]
      register: out
      notify: h
    - exec: [b]
      when: out.stdout != ""
    - exec: ["n${out.stdout}"]
  handlers:
    - {name: h, exec: [h]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"exec count changed", "exec b changed", "exec n${out.stdout} changed", "h changed"}
	if got := told(run.Hosts[0]); !slices.Equal(got, want) || outcomes(run) != "web1 changed" {
		t.Errorf("%s: %q", outcomes(run), got)
	}
	if got := hosts["web1"].requests; len(got) != 4 || got[2][1] != "exec  n2" {
		t.Errorf("requests %q", got)
	}
}
