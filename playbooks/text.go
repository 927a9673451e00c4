package playbooks

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Text is a text that may hold variables: ${NAME}, or ${NAME:-DEFAULT} for one that
// may be empty or missing. "$${" stands for "${" itself. The values of variables are
// not expanded again. Names are
//
//	host.name, host.address, host.labels.X    of the host
//	vars.X                                    of the playbook, the inventory and -e
//	facts.hostname, .kernel, .arch, .os       of the machine, and .cpus, .memory, .free
//	item, value                               in a loop
//	NAME.X                                    of a registered result
type Text struct {
	raw   string
	parts []part
	pos   Position
}

// part is a literal text, or a variable.
type part struct {
	text     string
	variable string
	fallback *Text // its default; nil: none
}

// Raw returns the text as it is written.
func (t *Text) Raw() string { return t.raw }

// constant reports whether the text holds no variables.
func (t *Text) constant() bool {
	return !slices.ContainsFunc(t.parts, func(p part) bool { return p.variable != "" })
}

func (t *Text) uses(name string) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool {
		return first(p.variable) == name || p.fallback != nil && p.fallback.uses(name)
	})
}

// variables returns the names of all variables, those of defaults among them.
func (t *Text) variables() (list []string) {
	for _, p := range t.parts {
		if p.variable != "" {
			list = append(list, p.variable)
		}
		if p.fallback != nil {
			list = append(list, p.fallback.variables()...)
		}
	}
	return list
}

// first returns the first word of "host.labels.site".
func first(variable string) string {
	word, _, _ := strings.Cut(variable, ".")
	return word
}

// maxDefaults is how deep defaults may be nested: "${vars.a:-${vars.b:-c}}" is two.
const maxDefaults = 8

// parseText splits a text.
func parseText(raw string, pos Position) (Text, *Error) { return parseNested(raw, pos, maxDefaults) }

// closing returns the index of the } that closes a variable, or -1.
func closing(s string) int {
	depth := 0
	for i := range len(s) {
		switch {
		case strings.HasPrefix(s[i:], "${"):
			depth++
		case s[i] == '}' && depth == 0:
			return i
		case s[i] == '}':
			depth--
		}
	}
	return -1
}

func parseNested(raw string, pos Position, nest int) (Text, *Error) {
	t := Text{raw: raw, pos: pos}
	if nest == 0 {
		return t, &Error{Pos: pos, Msg: fmt.Sprintf("more than %d defaults within each other", maxDefaults)}
	}
	for rest := raw; rest != ""; {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			t.parts = append(t.parts, part{text: before})
			break
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			t.parts = append(t.parts, part{text: literal + "${"})
			rest = after
			continue
		}
		if before != "" {
			t.parts = append(t.parts, part{text: before})
		}
		end := closing(after)
		if end < 0 {
			return t, &Error{Pos: pos, Msg: fmt.Sprintf("${%s has no }", yamlpos.Short(after)), Hint: "write $${ for ${ itself"}
		}
		p := part{}
		variable, text, optional := strings.Cut(after[:end], ":-")
		if p.variable = variable; optional {
			fallback, err := parseNested(text, pos, nest-1)
			if err != nil {
				return t, err
			}
			p.fallback = &fallback
		}
		t.parts = append(t.parts, p)
		rest = after[end+1:]
	}
	return t, nil
}

// In returns the text with its variables replaced.
func (t *Text) In(sc *Scope) (string, error) {
	if t == nil {
		return "", nil
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.variable == "" {
			b.WriteString(p.text)
			continue
		}
		value, ok := sc.lookup(p.variable)
		switch {
		case p.fallback != nil && (!ok || value == ""):
			text, err := p.fallback.In(sc)
			if err != nil {
				return "", err
			}
			value = text
		case !ok:
			return "", &Error{Pos: t.pos, Msg: fmt.Sprintf("host %s has no variable ${%s}", sc.Host.Name, p.variable), Hint: "give a default: ${" + p.variable + ":-…}"}
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// lookup returns the value of a variable as a text.
func (sc *Scope) lookup(variable string) (string, bool) {
	var at any = sc.env()
	for at != nil {
		m, isMap := at.(map[string]any)
		if !isMap {
			break
		}
		// A name may have dots itself: the longest word first.
		if v, ok := m[variable]; ok {
			return printed(v)
		}
		word, rest, more := strings.Cut(variable, ".")
		if !more {
			return "", false
		}
		at, variable = m[word], rest
	}
	return "", false
}

func printed(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int:
		return strconv.Itoa(v), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	case bool:
		return strconv.FormatBool(v), true
	case []string:
		return strings.Join(v, " "), true
	}
	return "", false
}

// Expand returns the text of a file with its variables replaced.
func Expand(text, name string, sc *Scope) (string, error) {
	t, err := parseText(text, Position{File: name})
	if err != nil {
		return "", err
	}
	return t.In(sc)
}
