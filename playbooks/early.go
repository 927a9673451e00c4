package playbooks

import (
	"fmt"
	"iter"
	"strings"
)

// early reports whether a name at the top of a variable is known before a run; that of
// an item is if its loop is a list of texts.
func early(name string, looping bool) bool {
	return name == "host" || name == "vars" || looping && name == "item"
}

func (e *Expr) early(looping bool) bool {
	for name := range e.uses {
		if !early(name, looping) && name != "check" {
			return false
		}
	}
	return true
}

func (t *Text) early(looping bool) bool {
	for _, v := range t.variables() {
		if !early(first(v), looping) {
			return false
		}
	}
	return true
}

// Certain reports whether it is known before a run that the step is taken.
func (s *Step) Certain(sc *Scope) bool {
	for _, e := range s.When {
		if ok, err := e.isEarly(sc); !ok || err != nil {
			return false
		}
	}
	return true
}

// may reports whether it is not known before a run that the step is skipped.
func (s *Step) may(sc *Scope) bool {
	for _, e := range s.When {
		if ok, err := e.isEarly(sc); !ok && err == nil {
			return false
		}
	}
	return true
}

// isEarly reports whether an expression is true; the error means that this is not known
// before a run.
func (e *Expr) isEarly(sc *Scope) (bool, error) {
	if !e.early(sc.Looping) {
		return false, e.fail("it is known in a run only")
	}
	return e.True(sc)
}

// Early yields once for each item of the step for which its source is known before a
// run, with the item in the scope, unless it is known that the step is skipped.
func (s *Step) Early(sc *Scope) iter.Seq[int] {
	return func(yield func(int) bool) {
		source := s.args["source"].text
		switch {
		case source == nil:
		case s.Loop == nil || s.Loop.Items == nil:
			if source.early(false) && s.may(sc) {
				yield(0)
			}
		case source.early(true):
			for i := range s.Loop.Items {
				item := &s.Loop.Items[i]
				text, err := item.In(sc)
				if err != nil || !item.early(false) {
					return // the run reports it
				}
				at := *sc
				sc.Looping, sc.Item = true, text
				goOn := !s.may(sc) || yield(i)
				if *sc = at; !goOn {
					return
				}
			}
		}
	}
}

// Missing returns an error for each variable of a template that a host does not have, as
// far as that is known before a run. Msg lacks the host: "no variable ${vars.x}".
func Missing(text, name string, sc *Scope) ([]*Error, error) {
	t, err := parseText(text, Position{File: name})
	if err != nil {
		return nil, err
	}
	return t.missing(text, sc), nil
}

func (t *Text) missing(whole string, sc *Scope) (list []*Error) {
	for _, p := range t.parts {
		if !early(first(p.variable), false) {
			continue
		}
		value, ok := sc.lookup(p.variable)
		switch {
		case p.fallback != nil && (!ok || value == ""):
			list = append(list, p.fallback.missing(whole, sc)...)
		case !ok:
			pos := t.pos
			if before, _, found := strings.Cut(whole, "${"+p.variable); found {
				pos.Line, pos.Column = 1+strings.Count(before, "\n"), len(before)-strings.LastIndexByte(before, '\n')
			}
			list = append(list, &Error{Pos: pos, Msg: fmt.Sprintf("no variable ${%s}", p.variable), Hint: "give a default: ${" + p.variable + ":-…}"})
		}
	}
	return list
}
