package inventory

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// isTemplate reports whether a text has something for Jinja to evaluate.
func isTemplate(s string) bool { return strings.Contains(s, "{{") || strings.Contains(s, "{%") }

// simpleTemplate is {{ NAME }} and {{ NAME | default('TEXT') }}.
var simpleTemplate = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:\|\s*(?:default|d)\(\s*(?:'([^'{}]*)'|"([^"{}]*)"|([0-9]+))\s*\))?\s*$`)

// maxTemplates limits how many templates one text may need: variables may hold
// templates themselves, which may be in a circle.
const maxTemplates = 100

// template evaluates as much of Jinja as inventories commonly need: the name of a
// variable, or of the host, with a default. All else is an error, not a guess.
func (sc scope) template(s string) (string, *Error) {
	left := maxTemplates
	return sc.evaluate(s, &left)
}

func (sc scope) evaluate(s string, budget *int) (string, *Error) {
	const hint = "vsfleet evaluates {{ NAME }} and {{ NAME | default('TEXT') }}; give the value itself"
	var b strings.Builder
	for left := s; ; {
		before, after, found := strings.Cut(left, "{{")
		if strings.Contains(before, "{%") || strings.Contains(before, "{#") {
			return "", &Error{Msg: fmt.Sprintf("%q is a template of Jinja", yamlpos.Short(s)), Hint: hint}
		}
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		inner, rest, closed := strings.Cut(after, "}}")
		m := simpleTemplate.FindStringSubmatch(inner)
		if *budget--; *budget < 0 {
			return "", &Error{Msg: fmt.Sprintf("%q needs more than %d templates, or itself", yamlpos.Short(s), maxTemplates)}
		}
		if !closed || m == nil {
			return "", &Error{Msg: fmt.Sprintf("%q is a template of Jinja", yamlpos.Short(s)), Hint: hint}
		}
		value, err := sc.templateVar(m[1], budget)
		if err != nil {
			if !strings.Contains(inner, "|") {
				return "", err
			}
			value = m[2] + m[3] + m[4]
		}
		b.WriteString(value)
		left = rest
	}
}

func (sc scope) templateVar(name string, budget *int) (string, *Error) {
	switch name {
	case "inventory_hostname":
		return sc.host.Name, nil
	case "inventory_hostname_short":
		short, _, _ := strings.Cut(sc.host.Name, ".")
		return short, nil
	case "inventory_dir":
		dir, err := filepath.Abs(filepath.Dir(sc.host.Pos.File))
		if err != nil {
			return "", &Error{Msg: err.Error()}
		}
		return dir, nil
	}
	v, ok := sc.host.Vars[name]
	switch {
	case !ok:
		hint := yamlpos.DidYouMean(name, sortedKeys(sc.host.Vars))
		if hint == "" {
			hint = fmt.Sprintf("a default would be {{ %s | default('…') }}", name)
		}
		return "", &Error{Msg: fmt.Sprintf("unknown variable %s in {{ }}", name), Hint: hint}
	case v.Secret:
		return "", &Error{Msg: fmt.Sprintf("variable %s is secret, and a template cannot hold it", name), Hint: "use ${vars." + name + "} in the content of a file"}
	case !v.IsScalar():
		return "", &Error{Msg: fmt.Sprintf("variable %s is %s", name, v.kind()), Hint: "it is from " + v.From.String()}
	case v.Secret:
		return "", &Error{Msg: fmt.Sprintf("variable %s is secret, and what it is put into would be shown", name)}
	case isTemplate(v.Text):
		return sc.evaluate(v.Text, budget)
	}
	return v.Text, nil
}
