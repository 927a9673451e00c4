package inventory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// scope gives the variables of a text their values. Without a host only those are
// checked that are the same on every host.
type scope struct {
	host  *Host
	guest string // "" outside guests
	bare  bool   // the host's address is being expanded, and cannot be used
}

func hasVariable(s string) bool { return strings.Contains(s, "${") }

// maxDefaults is how deep defaults may be nested: "${vars.a:-${vars.b:-c}}" is two.
const maxDefaults = 8

// expand replaces the variables of s. The offset of its errors is the place in s of
// the variable at fault.
func (sc scope) expand(s string) (string, *Error) {
	if !hasVariable(s) {
		return s, nil
	}
	var b strings.Builder
	if err := sc.expandTo(&b, s, 0, maxDefaults); err != nil {
		return "", err
	}
	return b.String(), nil
}

// expandTo writes s with its variables replaced. s begins at offset in the text that
// it is a part of, and may nest that many defaults.
func (sc scope) expandTo(b *strings.Builder, s string, offset, nest int) *Error {
	for {
		before, after, found := strings.Cut(s, "${")
		b.WriteString(before)
		switch {
		case b.Len() > MaxFile:
			return &Error{Msg: fmt.Sprintf("with its variables it has more than %d MiB", MaxFile>>20), Offset: offset + 1}
		case !found:
			return nil
		}
		s, offset = after, offset+len(before)+len("${")
		if strings.HasSuffix(before, "$") {
			b.WriteString("{") // "$${": its first $ is written already
			continue
		}
		end := closing(after)
		if end < 0 {
			return &Error{Msg: fmt.Sprintf("${%s has no }", yamlpos.Short(after)), Hint: "write $${ for ${ itself", Offset: offset - len("${") + 1}
		}
		if err := sc.variable(b, after[:end], offset, nest); err != nil {
			return err
		}
		s, offset = after[end+1:], offset+end+1
	}
}

// variable writes the value of a variable, or else its default: what is between the
// braces is NAME or NAME:-DEFAULT.
func (sc scope) variable(b *strings.Builder, inner string, offset, nest int) *Error {
	name, fallback, optional := strings.Cut(inner, ":-")
	value, err := sc.lookup(name, optional)
	switch {
	case err != nil:
		err.Offset = offset - len("${") + 1
		return err
	case value != "" || !optional:
		b.WriteString(value)
		return nil
	case nest == 0:
		return &Error{Msg: fmt.Sprintf("${%s:-…}: more than %d defaults in each other", yamlpos.Short(name), maxDefaults), Offset: offset - len("${") + 1}
	}
	return sc.expandTo(b, fallback, offset+len(name)+len(":-"), nest-1)
}

// closing returns the place of the } that closes a variable, or -1. Defaults may hold
// variables themselves.
func closing(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '}' && depth == 0:
			return i
		case s[i] == '}':
			depth--
		case strings.HasPrefix(s[i:], "${"):
			depth++
			i++
		}
	}
	return -1
}

// lookup returns the value of one variable. Labels and variables that are optional
// are "" on hosts without them.
func (sc scope) lookup(name string, optional bool) (string, *Error) {
	known := []string{"host.name"}
	if !sc.bare {
		known = append(known, "host.address")
	}
	if sc.guest != "" {
		known = append(known, "guest.name")
	}
	host := sc.host
	if host == nil {
		host = &Host{}
	}
	label, isLabel := strings.CutPrefix(name, "host.labels.")
	variable, isVar := strings.CutPrefix(name, "vars.")
	switch {
	case isLabel:
		value, ok := host.Labels[label]
		if ok || sc.host == nil || optional {
			return value, nil
		}
		return "", unknown(host.Labels, sc.host, name, "host.labels.")
	case isVar:
		return sc.hostVar(name, variable, optional)
	case !slices.Contains(known, name):
		if i := strings.LastIndexByte(name, '.'); i >= 0 && !slices.Contains(known, "host"+name[i:]) && name != "host.address" {
			known = append(known, "vars"+name[i:], "host.labels"+name[i:])
		}
		for variable := range host.Vars {
			known = append(known, "vars."+variable)
		}
		slices.Sort(known)
		hint := yamlpos.DidYouMean(name, known)
		if hint == "" {
			hint = "known are host.name, host.address, host.labels.X, vars.X and in guests guest.name; write $${ for ${ itself"
		}
		return "", &Error{Msg: fmt.Sprintf("unknown variable ${%s}", name), Hint: hint}
	case name == "host.name":
		return host.Name, nil
	case name == "host.address":
		return host.Address, nil
	}
	return sc.guest, nil
}

// hostVar returns the text of a variable of the host.
func (sc scope) hostVar(full, name string, optional bool) (string, *Error) {
	if sc.host == nil {
		return "", nil
	}
	v, ok := sc.host.Vars[name]
	switch {
	case !ok && optional:
		return "", nil
	case !ok:
		return "", unknown(sc.host.Vars, sc.host, full, "vars.")
	case !v.IsScalar():
		return "", &Error{Msg: fmt.Sprintf("${%s} of host %s is %s, which no text can hold", full, sc.host.Name, v.kind()), Hint: "it is from " + v.From.String()}
	case v.foreign && isTemplate(v.Text):
		return sc.template(v.Text)
	}
	return v.Text, nil
}

func unknown[V any](values map[string]V, host *Host, full, prefix string) *Error {
	hint := yamlpos.DidYouMean(full, prefixed(prefix, sortedKeys(values)))
	if hint == "" {
		hint = fmt.Sprintf("a default would be ${%s:-…}", full)
	}
	return &Error{Msg: fmt.Sprintf("unknown variable ${%s} on host %s", full, host.Name), Hint: hint}
}

func prefixed(prefix string, names []string) []string {
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names
}
