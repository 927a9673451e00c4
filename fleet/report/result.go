package report

import (
	"regexp"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// Statuses of records of a plan that are not outcomes.
const (
	Planned outcome.Outcome = "planned" // a step that would be taken
	Differs outcome.Outcome = "differs" // what hosts have, and no step makes equal
)

// Result says in machine formats what came of a host, or of one thing on it.
// Every record has these three fields, so that a host that gave no answer has a
// record as well.
type Result struct {
	Status outcome.Outcome `json:"status"`
	Class  outcome.Kind    `json:"class"` // of the error; empty without one
	Error  string          `json:"error"`
}

// ResultOf returns the result with an outcome and the error behind it, if any.
func ResultOf(o outcome.Outcome, err error) Result {
	r := Result{Status: o, Class: outcome.KindOf(err)}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// On returns the result without the host's name at the start of its errors and of their
// causes, as a record names its host itself. An endpoint behind the name stays.
func (r Result) On(name string) Result {
	host, _, _ := strings.Cut(name, "/") // or a guest of it
	if host == "" || !strings.Contains(r.Error, host) {
		return r
	}
	host = regexp.QuoteMeta(host)
	r.Error = regexp.MustCompile(`(?m)(^|: )`+host+`: `).ReplaceAllString(r.Error, "$1")
	r.Error = regexp.MustCompile(`(?m)(^|: |^connect to |: connect to )`+host+` \(([^()\s]+)\): `).ReplaceAllString(r.Error, "$1$2: ")
	return r
}
