package inventory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

// scope gives the variables of a text their values. Without a host only those are
// checked that are the same on every host.
type scope struct {
	host  *Host
	guest string // "" outside guests
	bare  bool   // the host's address is being expanded, and cannot be used
}

func hasVariable(s string) bool { return strings.Contains(s, "${") }

// maxDefaults limits the nesting of defaults: "${vars.a:-${vars.b:-c}}" has depth two.
const maxDefaults = 8

// expand replaces the variables of s, none of which may be secret. The offset of its
// errors is the place in s of the variable at fault.
func (sc scope) expand(s string) (string, *Error) {
	if !hasVariable(s) {
		return s, nil
	}
	var e expansion
	if err := sc.expandTo(&e, s, 0, maxDefaults); err != nil {
		return "", err
	}
	return e.text.String(), nil
}

// expandParts is like expand, but variables may be secret.
func (sc scope) expandParts(s string) ([]part, *Error) {
	e := expansion{secrets: true}
	if err := sc.expandTo(&e, s, 0, maxDefaults); err != nil {
		return nil, err
	}
	return append(e.parts, part{text: e.text.String()}), nil
}

// expansion is a text whose variables are being replaced.
type expansion struct {
	secrets bool            // it may hold some
	parts   []part          // up to the last secret
	text    strings.Builder // what came after it
	size    int
}

func (e *expansion) write(s string) {
	e.text.WriteString(s)
	e.size += len(s)
}

// put writes the value of a variable.
func (e *expansion) put(name string, value part) *Error {
	if value.secret == (secret.Value{}) {
		e.write(value.text)
		return nil
	}
	if !e.secrets {
		return &Error{Msg: fmt.Sprintf("${%s} is encrypted, and what stands here could be read by others on the host", yamlpos.Short(name)), Hint: "only the content of a file may hold it: " +
			`files: {/etc/x: {content: "${` + yamlpos.Short(name) + `}"}}`}
	}
	e.parts = append(e.parts, part{text: e.text.String()}, value)
	e.text.Reset()
	e.size += value.secret.Size()
	return nil
}

// expandTo writes s with its variables replaced. s begins at offset in the text that
// it is a part of, and may nest that many defaults.
func (sc scope) expandTo(e *expansion, s string, offset, nest int) *Error {
	for {
		before, after, found := strings.Cut(s, "${")
		e.write(before)
		switch {
		case e.size > MaxFile:
			return &Error{Msg: fmt.Sprintf("with its variables it has more than %d MiB", MaxFile>>20), Offset: offset + 1}
		case !found:
			return nil
		}
		s, offset = after, offset+len(before)+len("${")
		if strings.HasSuffix(before, "$") {
			e.write("{") // "$${": its first $ is written already
			continue
		}
		end := closing(after)
		if end < 0 {
			return &Error{Msg: fmt.Sprintf("${%s has no }", yamlpos.Short(after)), Hint: "write $${ for ${ itself", Offset: offset - len("${") + 1}
		}
		if err := sc.replace(e, after[:end], offset, nest); err != nil {
			return err
		}
		s, offset = after[end+1:], offset+end+1
	}
}

// replace writes the value of a variable or its default. inner is the text between the
// braces: NAME or NAME:-DEFAULT.
func (sc scope) replace(e *expansion, inner string, offset, nest int) *Error {
	name, fallback, optional := strings.Cut(inner, ":-")
	value, err := sc.lookup(name, optional)
	if err == nil && (value != part{} || !optional) {
		err = e.put(name, value)
	} else if err == nil && nest == 0 {
		err = &Error{Msg: fmt.Sprintf("${%s:-…}: more than %d defaults in each other", yamlpos.Short(name), maxDefaults)}
	} else if err == nil {
		return sc.expandTo(e, fallback, offset+len(name)+len(":-"), nest-1)
	}
	if err != nil {
		err.Offset = offset - len("${") + 1
	}
	return err
}

// closing returns the offset of the } that closes a variable, or -1. Defaults may hold
// variables.
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
func (sc scope) lookup(name string, optional bool) (part, *Error) {
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
			return part{text: value}, nil
		}
		return part{}, unknown(host.Labels, sc.host, name, "host.labels.")
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
		return part{}, &Error{Msg: fmt.Sprintf("unknown variable ${%s}", name), Hint: hint}
	case name == "host.name":
		return part{text: host.Name}, nil
	case name == "host.address":
		return part{text: host.Address}, nil
	}
	return part{text: sc.guest}, nil
}

// hostVar returns a variable of the host.
func (sc scope) hostVar(full, name string, optional bool) (part, *Error) {
	if sc.host == nil {
		return part{}, nil
	}
	v, ok := sc.host.Vars[name]
	sealed, isSealed := v.Value.(secret.Value)
	switch {
	case !ok && optional:
		return part{}, nil
	case !ok:
		return part{}, unknown(sc.host.Vars, sc.host, full, "vars.")
	case isSealed:
		return part{secret: sealed}, nil
	case !v.IsScalar():
		return part{}, &Error{Msg: fmt.Sprintf("${%s} of host %s is %s, which no text can hold", full, sc.host.Name, v.kind()), Hint: "it is from " + v.From.String()}
	case v.foreign && !v.Secret && isTemplate(v.Text):
		text, err := sc.template(v.Text)
		return part{text: text}, err
	case v.Secret:
		return part{secret: secret.Opened(v.From, v.Text)}, nil
	}
	return part{text: v.Text}, nil
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
