package playbooks

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/expr-lang/expr/types"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// section reads the steps of a play.
type section struct {
	*loader
	d          *yamlpos.Decoder
	play       *Play
	registered map[string]registered // so far
	handlers   bool
	steps      int
}

// maxSteps bounds a play.
const maxSteps = 2000

// list reads a list of steps.
func (s *section) list(n *yaml.Node, what string) (list []*Step) {
	if yamlpos.IsNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode || yamlpos.HasForeignTag(n) {
		s.d.Wrong(what, n, "a list of steps, each with a dash before it")
		return nil
	}
	return s.nodes(n.Content)
}

func (s *section) nodes(nodes []*yaml.Node) (list []*Step) {
	for _, n := range nodes {
		if s.steps++; s.steps > maxSteps {
			s.d.Add(s.d.At(n), "", "a play of more than %d steps", maxSteps)
			return list
		}
		st := s.step(yamlpos.Target(n))
		switch {
		case st == nil:
		case st.Kind.Name == Include:
			list = append(list, s.include(st)...)
		default:
			if st.Register != "" {
				s.registered[st.Register] = registered{st.Kind, st.Loop != nil}
			}
			list = append(list, st)
		}
	}
	return list
}

// include reads the steps of another file, which get the conditions and tags of the
// step that names it.
func (s *section) include(from *Step) []*Step {
	file := from.args["file"].text
	if file == nil {
		return nil
	}
	if !file.constant() {
		s.Add(file.pos, "", "play: the name of a file cannot hold variables")
		return nil
	}
	path := beside(s.d.File, file.raw)
	d, nodes := s.file(path, file.pos, "a list of steps", "- exec: [true]")
	if d == nil {
		return nil
	}
	s.open = append(s.open, path)
	was := s.d
	s.d = d
	list := s.nodes(nodes)
	s.d, s.open = was, s.open[:len(s.open)-1]
	for _, st := range list {
		st.When = append(slices.Clone(from.When), st.When...)
		st.Tags = append(slices.Clone(from.Tags), st.Tags...)
	}
	return list
}

// common are the keys that every step may have.
var common = []struct{ Name, Doc, schema string }{
	{"name", "what people read", `"type": "string"`},
	{"in", "the guest in which it is done, for `exec`, `copy`, `template`, `wait` and `stat`; else on the host", `"type": "string"`},
	{"when", "condition, or a list of them that must all be true; else the step is skipped", `"$ref": "#/definitions/conditions"`},
	{"register", "name for the result, for later steps of the play on the same host", `"type": "string"`},
	{"loop", "repeat the step: a list, `{guests: PATTERN}`, `{labels: PATTERN}` or `{list: EXPRESSION}`; `${item}` is the one at hand, and `${value}` the value of a label", `"anyOf": [{ "$ref": "#/definitions/texts" }, { "type": "object" }]`},
	{"until", "condition that must be true after the step; it is repeated until then", `"$ref": "#/definitions/conditions"`},
	{"retries", "how often `until` repeats it; default 3", `"type": "integer"`},
	{"delay", "time between two of these; default `5s`", `"$ref": "#/definitions/scalar"`},
	{"changed_when", "condition by which the step has changed something, instead of its own", `"$ref": "#/definitions/conditions"`},
	{"failed_when", "condition by which the step has failed, instead of its own", `"$ref": "#/definitions/conditions"`},
	{"ignore_errors", "`true`: go on if it fails", `"type": "boolean"`},
	{"tags", "words for `--tags` and `--skip-tags`; `always` and `never` as in Ansible", `"$ref": "#/definitions/texts"`},
	{"notify", "handlers to run at the end of the play if it changed something", `"$ref": "#/definitions/texts"`},
}

// raw is a step before its expressions are compiled.
type raw struct {
	name, in, register, delay            Given
	when, until, changedWhen, failedWhen []Given
	tags, notify                         []Given
	retries                              yamlpos.Given[int]
	ignore                               yamlpos.Given[bool]
	loop                                 *yaml.Node
	kinds                                []Given
	value                                *yaml.Node
}

// step reads one step.
func (s *section) step(n *yaml.Node) *Step {
	d := s.d
	var r raw
	keys := []yamlpos.Key{
		{Name: "name", Read: d.Text(&r.name, "a name")},
		{Name: "in", Read: d.Text(&r.in, "the name of a guest")},
		{Name: "when", Read: s.conditions(&r.when)},
		{Name: "register", Read: d.Text(&r.register, "a name")},
		{Name: "loop", Read: func(_ string, v *yaml.Node) { r.loop = yamlpos.Target(v) }},
		{Name: "until", Read: s.conditions(&r.until)},
		{Name: "retries", Read: d.Number(&r.retries, 1, 10000)},
		{Name: "delay", Read: d.Text(&r.delay, "a time, as 5s")},
		{Name: "changed_when", Read: s.conditions(&r.changedWhen)},
		{Name: "failed_when", Read: s.conditions(&r.failedWhen)},
		{Name: "ignore_errors", Read: d.Flag(&r.ignore)},
		{Name: "tags", Read: s.oneOrMore(&r.tags, "a word or a list of them, as [update]")},
		{Name: "notify", Read: s.oneOrMore(&r.notify, "a handler or a list of them")},
	}
	for _, k := range Kinds {
		keys = append(keys, yamlpos.Key{Name: k.Name, Read: func(name string, v *yaml.Node) {
			r.kinds = append(r.kinds, Given{Value: name, Pos: d.At(v)})
			r.value = yamlpos.Target(v)
		}})
	}
	given := d.Fields("a step", n, "a mapping, as {exec: [nginx, -t]}", keys)
	if given == nil {
		return nil
	}
	pos := d.At(n)
	switch len(r.kinds) {
	case 1:
	case 0:
		for name := range given {
			if !slices.ContainsFunc(keys, func(k yamlpos.Key) bool { return k.Name == name }) {
				return nil // an unknown key, which is reported
			}
		}
		s.Add(pos, "one of "+strings.Join(kindNames(), ", "), "a step does not say what to do")
		return nil
	default:
		s.Add(r.kinds[1].Pos, "make it two steps", "a step has both %s and %s", r.kinds[0].Value, r.kinds[1].Value)
		return nil
	}
	st := &Step{Kind: KindOf(r.kinds[0].Value), Pos: pos, Register: r.register.Value, Tags: words(r.tags), Notify: r.notify, IgnoreErrors: r.ignore.Value, args: map[string]arg{}}
	s.fill(st, &r)
	return st
}

func kindNames() []string {
	var names []string
	for _, k := range Kinds {
		names = append(names, k.Name)
	}
	return names
}

// fill compiles what a step holds.
func (s *section) fill(st *Step, r *raw) {
	outer := environment(s.Fleet, s.play.Vars, s.registered, false)
	if r.loop != nil {
		st.Loop = s.loop(r.loop, outer)
	}
	env := environment(s.Fleet, s.play.Vars, s.registered, st.Loop != nil)
	st.Name = s.text(r.name, env)
	st.In = s.text(r.in, env)
	st.When = s.exprs(r.when, "when", env)
	if st.Kind != nil {
		s.args(st, r.value, env)
	}
	after := maps.Clone(env)
	own := registered{kind: st.Kind}
	after["result"] = own.types()
	if r.register.OK() {
		s.register(st, r.register, after)
		after[st.Register] = own.types()
	}
	st.ChangedWhen = s.exprs(r.changedWhen, "changed_when", after)
	st.FailedWhen = s.exprs(r.failedWhen, "failed_when", after)
	if r.until != nil {
		st.Until = &Until{That: s.exprs(r.until, "until", after), Retries: 3, Delay: 5e9}
		if r.retries.OK() {
			st.Until.Retries = r.retries.Value
		}
		if r.delay.OK() {
			delay, err := ParseDuration(r.delay.Value)
			if err != nil {
				s.Add(r.delay.Pos, "", "delay: %v", err)
			}
			st.Until.Delay = delay
		}
	} else if r.retries.OK() || r.delay.OK() {
		s.Add(st.Pos, "add until: CONDITION", "retries and delay are for a step with until")
	}
	s.fits(st, r)
}

// fits reports keys that a step of its kind cannot have.
func (s *section) fits(st *Step, r *raw) {
	if r.in.OK() && !st.Kind.In {
		s.Add(r.in.Pos, "", "in: %s is not done in a guest", st.Kind.Name)
	}
	if s.Fleet != nil && s.Fleet.Guests != nil && r.in.OK() && st.In.constant() {
		if err := s.Fleet.Guests(st.In.raw); err != nil {
			s.Add(r.in.Pos, "", "in: %v", err)
		}
	}
	if s.handlers && st.Name.raw == "" {
		s.Add(st.Pos, "give it a name, by which steps notify it", "a handler has no name")
	}
	if s.handlers && st.Together() {
		s.Add(st.Pos, "", "%s cannot be a handler: hosts do not wait for each other there", st.Kind.Name)
	}
	if !st.Together() && !st.Kind.controls() {
		return
	}
	for what, given := range map[string]bool{
		"loop": r.loop != nil && st.Kind.controls(), "register": r.register.OK() && st.Kind.controls(), "until": r.until != nil, "notify": r.notify != nil && st.Kind.controls(),
		"changed_when": r.changedWhen != nil, "failed_when": r.failedWhen != nil, "ignore_errors": r.ignore.OK(),
	} {
		if given {
			s.Add(st.Pos, "", "%s: a step %s cannot have it", what, st.Kind.Name)
		}
	}
}

// reserved are names that results cannot have.
var reserved = []string{"host", "vars", "facts", "check", "item", "value", "result"}

func (s *section) register(st *Step, name Given, env types.Map) {
	switch {
	case !isName(name.Value):
		s.Add(name.Pos, "", "register: %q is no name: want letters, digits and _, a letter first", yamlpos.Short(name.Value))
		st.Register = ""
	case slices.Contains(reserved, name.Value):
		s.Add(name.Pos, "", "register: %s is taken: choose another name", name.Value)
		st.Register = ""
	}
}

// notifications reports handlers that are not there, or that nobody notifies.
func (s *section) notifications() {
	names := map[string]Position{}
	for _, h := range s.play.Handlers {
		if first, twice := names[h.Name.raw]; twice {
			s.Add(h.Pos, "", "two handlers are called %q, the first at %s", h.Name.raw, first)
		}
		names[h.Name.raw] = h.Pos
	}
	notified := map[string]bool{}
	for _, st := range slices.Concat(s.play.Steps, s.play.Handlers) {
		for _, t := range st.Notify {
			if notified[t.Value] = true; names[t.Value] == (Position{}) {
				s.Add(t.Pos, yamlpos.DidYouMean(t.Value, slices.Sorted(maps.Keys(names))), "notify: the play has no handler %q", yamlpos.Short(t.Value))
			}
		}
	}
	for _, h := range s.play.Handlers {
		if h.Name.raw != "" && !notified[h.Name.raw] {
			s.Add(h.Pos, "", "%s", fmt.Sprintf("no step notifies the handler %q", h.Name.raw))
		}
	}
}
