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
	fallback string // its default
	optional bool
}

// Raw returns the text as it is written.
func (t *Text) Raw() string { return t.raw }

// constant reports whether the text holds no variables.
func (t *Text) constant() bool {
	return !slices.ContainsFunc(t.parts, func(p part) bool { return p.variable != "" })
}

func (t *Text) uses(name string) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return first(p.variable) == name })
}

// first returns the first word of "host.labels.site".
func first(variable string) string {
	word, _, _ := strings.Cut(variable, ".")
	return word
}

// parseText splits a text; an error lacks only its position.
func parseText(raw string, pos Position) (Text, *Error) {
	t := Text{raw: raw, pos: pos}
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
		inner, behind, closed := strings.Cut(after, "}")
		if !closed {
			return t, &Error{Pos: pos, Msg: fmt.Sprintf("${%s has no }", yamlpos.Short(after)), Hint: "write $${ for ${ itself"}
		}
		p := part{}
		p.variable, p.fallback, p.optional = strings.Cut(inner, ":-")
		t.parts = append(t.parts, p)
		rest = behind
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
		case p.optional && (!ok || value == ""):
			value = p.fallback
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
