package playbooks

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/expr-lang/expr/types"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// args reads the parameters of a step.
func (s *section) args(st *Step, v *yaml.Node, env types.Map) {
	k, d := st.Kind, s.d
	switch {
	case yamlpos.IsNull(v) && k.Bare:
	case v.Kind == yaml.MappingNode:
		var keys []yamlpos.Key
		for i := range k.Params {
			keys = append(keys, yamlpos.Key{Name: k.Params[i].Name, Read: func(_ string, v *yaml.Node) { s.arg(st, &k.Params[i], v, env) }})
		}
		d.Fields(k.Name, v, "a mapping", keys)
	case v.Kind == yaml.SequenceNode && k.Words != "":
		s.arg(st, k.param(k.Words), v, env)
	case v.Kind == yaml.ScalarNode && !yamlpos.IsNull(v) || v.Kind == yaml.SequenceNode && k.param(k.Main).Form == Condition:
		s.arg(st, k.param(k.Main), v, env)
	default:
		d.Wrong(k.Name, v, "a mapping with "+paramNames(k))
		return
	}
	for _, p := range k.Params {
		if p.Required && !st.Has(p.Name) {
			s.Add(d.At(v), p.Name+" is "+p.Doc, "%s: %s is missing", k.Name, p.Name)
		}
	}
	s.rules(st, d.At(v))
}

func paramNames(k *Kind) string {
	var names []string
	for _, p := range k.Params {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// arg reads one parameter.
func (s *section) arg(st *Step, p *Param, v *yaml.Node, env types.Map) {
	d := s.d
	v = yamlpos.Target(v)
	a := arg{pos: d.At(v)}
	switch p.Form {
	case OneText:
		t, ok := d.Scalar(p.Name, v, "a text")
		if !ok {
			return
		}
		text := s.text(t, env)
		a.text = &text
		s.known(p, text)
	case TextList:
		var list []Given
		d.Texts(&list, "a list of texts")(p.Name, v)
		for _, t := range list {
			a.list = append(a.list, s.text(t, env))
			s.known(p, a.list[len(a.list)-1])
		}
		if len(a.list) == 0 {
			s.Add(a.pos, "", "%s: the list is empty", p.Name)
		}
	case TextMap:
		d.Entries(p.Name, v, "a mapping of texts", func(key Given, v *yaml.Node) {
			if t, ok := d.Scalar(key.Value, v, "a text"); ok {
				a.pairs = append(a.pairs, pair{key, s.text(t, env)})
			}
		})
	case Flag:
		var is yamlpos.Given[bool]
		d.Flag(&is)(p.Name, v)
		a.flag = is.Value
	case Condition:
		var list []Given
		s.conditions(&list)(p.Name, v)
		a.exprs = s.exprs(list, p.Name, env)
	}
	st.args[p.Name] = a
}

// known checks a value that holds no variables.
func (s *section) known(p *Param, t Text) {
	if !t.constant() {
		if p.Words != nil {
			s.Add(t.pos, "", "%s: it cannot hold variables, want one of %s", p.Name, strings.Join(p.Words, ", "))
		}
		return
	}
	value := strings.ReplaceAll(t.raw, "$${", "${")
	switch {
	case p.Words != nil && !slices.Contains(p.Words, value):
		s.Add(t.pos, yamlpos.DidYouMean(value, p.Words), "%s: there is no %q, want one of %s", p.Name, yamlpos.Short(value), strings.Join(p.Words, ", "))
	case p.check != nil:
		if err := p.check(value); err != nil {
			s.Add(t.pos, "", "%s: %v", p.Name, err)
		}
	}
}

// rules are those that concern several parameters of a step.
func (s *section) rules(st *Step, pos Position) {
	one := func(names ...string) {
		var have []string
		for _, name := range names {
			if st.Has(name) {
				have = append(have, name)
			}
		}
		if len(have) != 1 {
			s.Add(pos, "", "%s: want one of %s, have %d of them", st.Kind.Name, strings.Join(names, ", "), len(have))
		}
	}
	switch st.Kind.Name {
	case Exec:
		one("command", "shell")
	case Copy:
		one("content", "source")
	case Wait:
		one("tcp", "port", "file", "command", "seconds")
	case Stat:
		one("path", "guest")
	case Guest:
		if st.Has("do") && st.Has("state") {
			one("do", "state")
		}
		s.guest(st.args["name"].text)
	case Image:
		if t := st.args["name"].text; t != nil && t.constant() && s.Fleet != nil && !slices.Contains(s.Fleet.Images, t.raw) {
			s.Add(t.pos, yamlpos.DidYouMean(t.raw, s.Fleet.Images), "image: the inventory has no image %q", yamlpos.Short(t.raw))
		}
	case Network:
		if !st.Has("ports") && !st.Has("forward") {
			s.Add(pos, "", "network: want ports or forward")
		}
	case Limits:
		if !slices.ContainsFunc(limits(), func(p Param) bool { return st.Has(p.Name) }) {
			s.Add(pos, "", "limits: want a limit, as memory, cpu or processes")
		}
	}
}

func (s *section) guest(t *Text) {
	if t == nil || !t.constant() || s.Fleet == nil || s.Fleet.Guests == nil || t.raw == "*" {
		return
	}
	if err := s.Fleet.Guests(t.raw); err != nil {
		s.Add(t.pos, "", "guest: %v", err)
	}
}
