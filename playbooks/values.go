package playbooks

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/expr-lang/expr/types"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// text reads a text and checks its variables.
func (s *section) text(t Given, env types.Map) Text {
	if !t.OK() {
		return Text{}
	}
	text, err := parseText(t.Value, t.Pos)
	if err != nil {
		s.Add(t.Pos, err.Hint, "%s", err.Msg)
		return Text{raw: t.Value, pos: t.Pos}
	}
	for _, variable := range text.variables() {
		if !hasVariable(env, variable) {
			hint := yamlpos.DidYouMean(variable, paths(env, ""))
			if name, ok := strings.CutPrefix(variable, "vars."); ok && s.Fleet != nil && slices.Contains(s.Fleet.Sealed, name) {
				hint = "it is encrypted or a mapping in the inventory, which playbooks cannot use"
			}
			if hint == "" {
				hint = "known are " + strings.Join(slices.Sorted(maps.Keys(env)), ", ") + "; write $${ for ${ itself"
			}
			s.Add(t.Pos, hint, "unknown variable ${%s}", yamlpos.Short(variable))
		}
	}
	return text
}

// hasVariable reports whether an environment has a variable.
func hasVariable(env types.Map, variable string) bool {
	if t, ok := env[variable]; ok {
		_, isMap := t.(types.Map)
		return !isMap
	}
	if _, open := env[types.Extra]; open {
		return true
	}
	word, rest, more := strings.Cut(variable, ".")
	inner, isMap := env[word].(types.Map)
	return more && isMap && hasVariable(inner, rest)
}

func paths(env types.Map, prefix string) (list []string) {
	for name, t := range env {
		if inner, ok := t.(types.Map); ok {
			list = append(list, paths(inner, prefix+name+".")...)
			continue
		}
		list = append(list, prefix+name)
	}
	slices.Sort(list)
	return list
}

// conditions reads a condition or a list of them.
func (s *section) conditions(to *[]Given) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		const want = `a condition or a list of them, as "facts.cpus > 2"`
		if yamlpos.Target(v).Kind == yaml.SequenceNode {
			s.d.Texts(to, want)(name, v)
			return
		}
		var one Given
		if s.d.Text(&one, want)(name, v); one.OK() {
			// The text of an expression begins behind its quote.
			if n := yamlpos.Target(v); n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
				one.Pos.Column++
			}
			*to = []Given{one}
		}
	}
}

func (s *section) oneOrMore(to *[]Given, want string) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		if yamlpos.Target(v).Kind == yaml.SequenceNode {
			s.d.Texts(to, want)(name, v)
			return
		}
		var one Given
		if s.d.Text(&one, want)(name, v); one.OK() {
			*to = []Given{one}
		}
	}
}

func (s *section) exprs(list []Given, what string, env types.Map) (out []*Expr) {
	for _, t := range list {
		if e := s.expr(t, what, env, false); e != nil {
			out = append(out, e)
		}
	}
	return out
}

func (s *section) expr(t Given, what string, env types.Map, list bool) *Expr {
	e, err := compile(t.Value, env, list)
	if err != nil {
		pos := t.Pos
		if err.Pos.Line == 1 {
			pos.Column += err.Pos.Column
		}
		s.Add(pos, err.Hint, "%s: %s", what, err.Msg)
		return nil
	}
	e.Pos = t.Pos
	return e
}

// loop reads what a step is repeated for.
func (s *section) loop(n *yaml.Node, env types.Map) *Loop {
	d, loop := s.d, &Loop{}
	if n.Kind == yaml.SequenceNode {
		var items []Given
		d.Texts(&items, "a list of texts")("loop", n)
		for _, t := range items {
			loop.Items = append(loop.Items, s.text(t, env))
		}
		return loop
	}
	var list, guests, labels Given
	d.Fields("loop", n, `a list, {guests: "*"}, {labels: "*"} or {list: EXPRESSION}`, []yamlpos.Key{
		{Name: "list", Read: d.Text(&list, "an expression that gives a list of texts")},
		{Name: "guests", Read: d.Text(&guests, "a pattern of guests")},
		{Name: "labels", Read: d.Text(&labels, "a pattern of labels")},
	})
	given := 0
	if list.OK() {
		given++
		loop.List = s.expr(list, "loop", env, true)
	}
	if guests.OK() {
		given++
		text := s.text(guests, env)
		loop.Guests = &text
	}
	if labels.OK() {
		given++
		text := s.text(labels, env)
		loop.Labels = &text
	}
	if given != 1 && n.Kind == yaml.MappingNode {
		s.Add(d.At(n), "", "loop: want one of guests, labels and list, have %d of them", given)
	}
	return loop
}
