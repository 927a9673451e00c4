package report

import (
	"cmp"
	"errors"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/node/api"
)

// Run is what came of a run over hosts.
type Run struct {
	ID    string        `json:"id"`   // sorts by time; hosts keep it in their leases
	Who   string        `json:"who"`  // user@machine of the controller
	Verb  string        `json:"verb"` // "apply", "guest stop"; "plan" changes nothing
	When  time.Time     `json:"when"`
	Took  time.Duration `json:"took"`
	Hosts []Host        `json:"hosts"`
	Notes []string      `json:"notes,omitempty"` // of what differs between hosts and no step makes equal

	Batches []Batch `json:"batches,omitempty"` // that were begun, if there were several
	Stopped string  `json:"stopped,omitempty"` // why the rest of the hosts was not begun
}

// Outcomes returns the outcomes of the hosts, in their order.
func (r Run) Outcomes() []outcome.Outcome { return Outcomes(r.Hosts) }

// Outcomes returns the outcomes of hosts, in their order.
func Outcomes(hosts []Host) []outcome.Outcome {
	list := make([]outcome.Outcome, len(hosts))
	for i, h := range hosts {
		list[i] = h.Status
	}
	return list
}

// Host is what came of one host, or of one guest that was asked for by itself
// ("web01/www").
type Host struct {
	Name    string    `json:"name"`
	Address string    `json:"address,omitempty"` // where errors may name the host by it
	Result            // Class is that of the host's own error: a step that failed has none
	State   string    `json:"state,omitempty"` // of its way through the run, as rollout.Fleet names them, in which it ended
	Hint    string    `json:"hint,omitempty"`  // what helps: a command, if there is one
	Steps   []Step    `json:"steps,omitempty"`
	Refused []Refusal `json:"refused,omitempty"`
	Drift   []Drift   `json:"drift,omitempty"`
	Notes   []string  `json:"notes,omitempty"` // of what the host has and no step is about
	Text    string    `json:"text,omitempty"`  // what it answered to a request that has no steps

	Batch int `json:"batch,omitempty"` // the number of its batch, if there were several
	Tries int `json:"tries,omitempty"` // that came before this one

	Took time.Duration `json:"took,omitempty"`
}

// HostOf returns a host with its outcome and the error behind it, if any.
func HostOf(name, address string, o outcome.Outcome, err error) Host {
	h := Host{Name: name, Address: address, Result: ResultOf(o, err).On(name)}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		h.Hint = hint.Hint()
	}
	h.Hint = cmp.Or(h.Hint, h.Class.Hint())
	return h
}

// Planned reports whether the host's steps are known: it was reached, and not
// all of its changes were refused.
func (h Host) Planned() bool {
	return h.Class == "" && h.Status != outcome.NotStarted && (len(h.Steps) > 0 || h.Error == "")
}

// Refusal is a guest that the host cannot have, and why.
type Refusal struct {
	Guest string `json:"guest"`
	Error string `json:"error"`
}

// Step is one step of a host. Kind and Name identify it on the host.
type Step struct {
	Kind    api.StepKind `json:"kind"`
	Name    string       `json:"name"`              // of the guest or the image
	Context int          `json:"context,omitempty"` // of a guest that is created, if it is known
	Title   string       `json:"title,omitempty"`   // its name in a playbook
	Why     string       `json:"why,omitempty"`
	Diff    string       `json:"diff,omitempty"` // of the files or settings that it writes, where asked for
	// Shadows are what a guest that moves to another image hides of it.
	Shadows *Shadows `json:"shadows,omitempty"`
	// Fingerprint identifies what the step does, in the report of a plan.
	Fingerprint string `json:"fingerprint,omitempty"`

	Result                // Status is empty before the host has answered
	Outcome api.Outcome   `json:"outcome,omitempty"` // as the host says it
	Took    time.Duration `json:"took,omitempty"`
	Sent    int64         `json:"sent,omitempty"`   // bytes of an image that was copied
	Output  string        `json:"output,omitempty"` // the beginning of what a command of a playbook wrote
}

// mostStepOutput is the number of bytes of each stream of a command in a report.
const mostStepOutput = 2 << 10

// outputOf returns the beginning of a command's output: standard output, then standard
// error.
func outputOf(r *api.Ran) string {
	if r == nil {
		return ""
	}
	var text string
	for _, stream := range [][]byte{r.Stdout, r.Stderr} {
		part := strings.ToValidUTF8(string(stream[:min(len(stream), mostStepOutput)]), "\uFFFD")
		if text != "" && part != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		text += part
	}
	return text
}

// StepOf returns a step that has not been taken yet.
func StepOf(s api.Step) Step {
	step := Step{Kind: s.Kind, Name: s.Name, Title: s.Title, Why: s.Why}
	switch {
	case s.Guest != nil:
		step.Name = cmp.Or(s.Name, s.Guest.Name)
		if s.Kind == api.StepCreate {
			step.Context = s.Guest.Context
		}
	case s.Image != nil:
		step.Name = cmp.Or(s.Name, s.Image.Name)
	}
	return step
}

// Ended returns the step with what came of it. kind is that of the host's own
// error, if it has one: it is then behind those of its steps.
func (s Step) Ended(r api.StepResult, kind outcome.Kind) Step {
	s.Outcome, s.Took, s.Sent, s.Output = r.Outcome, r.Took, r.Sent, outputOf(r.Ran)
	s.Result = Result{Status: outcome.NotStarted, Class: kind, Error: r.Error}
	switch r.Outcome {
	case api.Changed:
		s.Status, s.Class = outcome.Changed, ""
	case api.Unchanged:
		s.Status, s.Class = outcome.OK, ""
	case api.Failed:
		s.Status, s.Class = outcome.Failed, cmp.Or(kind, outcome.KindOfText(r.Error), outcome.KindStep)
	}
	return s
}
