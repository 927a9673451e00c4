package playbooks

import (
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/batch"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

type (
	// Position is a place in a playbook.
	Position = yamlpos.Position
	// Error is one mistake in a playbook.
	Error = yamlpos.Error
	// Errors are all mistakes in a playbook and the files that it includes.
	Errors = yamlpos.Errors
)

// Book is a playbook.
type Book struct {
	Name  string // the file, or the name of one that ships with vsfleet
	Plays []*Play
}

// Play is what is done on some hosts.
type Play struct {
	Name     string
	Hosts    string // a pattern of the inventory
	Tags     []string
	Strategy Strategy
	Vars     map[string]any // string, int, float64, bool or []string
	Steps    []*Step
	Handlers []*Step // by name; each is run once per host, after the steps, if a step that changed something notifies it
	Pos      Position
}

// Strategy is how a play goes through its hosts: rollout.Strategy has the meaning of
// each field.
type Strategy struct {
	Serial    []batch.Size
	Canary    string // a pattern
	Pause     time.Duration
	Confirm   bool // before each batch but the first
	MaxFail   batch.Size
	OnFailure string // "revert" or "keep"
	Retries   int
	Timeout   time.Duration // per host
}

// Step is one step of a play.
type Step struct {
	Kind     *Kind
	Name     Text // for people; empty: see Title
	In       Text // the guest that it is about; empty: the host
	When     []*Expr
	Loop     *Loop
	Register string
	Until    *Until
	Tags     []string
	Notify   []Given

	ChangedWhen, FailedWhen []*Expr
	IgnoreErrors            bool

	args map[string]arg
	Pos  Position
}

// Given is a text with its place in a file.
type Given = yamlpos.Text

// Until repeats a step until its conditions hold.
type Until struct {
	That    []*Expr
	Retries int
	Delay   time.Duration
}

// Loop is what a step is repeated for. One of the fields is set.
type Loop struct {
	Items  []Text
	List   *Expr // of texts
	Guests *Text // those of the host whose names match this pattern
	Labels *Text // those of the host whose names match
}

// arg is what a step is given for one of its parameters.
type arg struct {
	text  *Text
	list  []Text
	pairs []pair // of a mapping
	flag  bool
	exprs []*Expr
	pos   Position
}

type pair struct {
	key  Given
	text Text
}

// Has reports whether a step is given a parameter.
func (s *Step) Has(param string) bool { _, ok := s.args[param]; return ok }

// Raw returns a parameter as it is written.
func (s *Step) Raw(param string) string {
	if t := s.args[param].text; t != nil {
		return t.raw
	}
	return ""
}

// Together reports whether the hosts of a batch wait for each other at the step.
func (s *Step) Together() bool {
	if s.Kind.Name == Guest {
		do := s.Raw("do")
		return do == "" || do == "build"
	}
	return s.Kind.Together
}

// Flag returns a parameter that is true or false.
func (s *Step) Flag(param string) bool { return s.args[param].flag }

// Exprs returns the conditions of a parameter.
func (s *Step) Exprs(param string) []*Expr { return s.args[param].exprs }

// At returns the place of a parameter.
func (s *Step) At(param string) Position { return s.args[param].pos }

// Text returns a parameter with its variables replaced; "" if it is not given.
func (s *Step) Text(param string, sc *Scope) (string, error) {
	t := s.args[param].text
	if t == nil {
		return "", nil
	}
	value, err := t.In(sc)
	if err == nil {
		err = s.check(param, value)
	}
	return value, err
}

// Texts returns a parameter that is a list.
func (s *Step) Texts(param string, sc *Scope) ([]string, error) {
	var list []string
	for i := range s.args[param].list {
		value, err := s.args[param].list[i].In(sc)
		if err == nil {
			err = s.check(param, value)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, nil
}

// Pairs returns a parameter that is a mapping, as KEY=VALUE in the order of the file.
func (s *Step) Pairs(param string, sc *Scope) ([][2]string, error) {
	var list [][2]string
	for _, p := range s.args[param].pairs {
		value, err := p.text.In(sc)
		if err != nil {
			return nil, err
		}
		list = append(list, [2]string{p.key.Value, value})
	}
	return list, nil
}

// Duration returns a parameter that is a time; 0 if it is not given.
func (s *Step) Duration(param string, sc *Scope) (time.Duration, error) {
	text, err := s.Text(param, sc)
	if err != nil || text == "" {
		return 0, err
	}
	return ParseDuration(text)
}

// check checks a value after its variables were replaced.
func (s *Step) check(param, value string) error {
	p := s.Kind.param(param)
	if p == nil || p.check == nil {
		return nil
	}
	if err := p.check(value); err != nil {
		return &Error{Pos: s.args[param].pos, Msg: param + ": " + err.Error()}
	}
	return nil
}

// Conditions returns those conditions of the step that are the same for all items of its
// loop, and those that use the item at hand.
func (s *Step) Conditions() (once, each []*Expr) {
	for _, e := range s.When {
		if s.Loop != nil && (e.uses["item"] || e.uses["value"]) {
			each = append(each, e)
		} else {
			once = append(once, e)
		}
	}
	return once, each
}

// Uses reports whether the step needs the result that an earlier one registers under
// a name.
func (s *Step) Uses(register string) bool {
	for _, e := range s.exprs() {
		if e.uses[register] {
			return true
		}
	}
	for _, t := range s.texts() {
		if t.uses(register) {
			return true
		}
	}
	return false
}

// exprs returns all expressions that are needed before the step, or after it.
func (s *Step) exprs() []*Expr {
	list := append([]*Expr{}, s.When...)
	list = append(append(list, s.ChangedWhen...), s.FailedWhen...)
	if s.Until != nil {
		list = append(list, s.Until.That...)
	}
	if s.Loop != nil && s.Loop.List != nil {
		list = append(list, s.Loop.List)
	}
	for _, a := range s.args {
		list = append(list, a.exprs...)
	}
	return list
}

func (s *Step) texts() []*Text {
	list := []*Text{&s.Name, &s.In}
	if s.Loop != nil {
		for i := range s.Loop.Items {
			list = append(list, &s.Loop.Items[i])
		}
		if s.Loop.Guests != nil {
			list = append(list, s.Loop.Guests)
		}
		if s.Loop.Labels != nil {
			list = append(list, s.Loop.Labels)
		}
	}
	for _, a := range s.args {
		if a.text != nil {
			list = append(list, a.text)
		}
		for i := range a.list {
			list = append(list, &a.list[i])
		}
		for i := range a.pairs {
			list = append(list, &a.pairs[i].text)
		}
	}
	return list
}

// Title names the step for people: its name, or else what it does.
func (s *Step) Title(sc *Scope) string {
	if s.Name.raw != "" {
		if name, err := s.Name.In(sc); err == nil {
			return name
		}
		return s.Name.raw
	}
	main := s.args[s.Kind.Main]
	switch {
	case main.text != nil:
		return s.Kind.Name + " " + yamlpos.Short(main.text.raw)
	case s.Kind.Words != "" && s.Has(s.Kind.Words):
		var words []string
		for _, t := range s.args[s.Kind.Words].list {
			words = append(words, t.raw)
		}
		return s.Kind.Name + " " + yamlpos.Short(strings.Join(words, " "))
	}
	return s.Kind.Name
}
