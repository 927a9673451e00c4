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

// expand replaces the variables of s.
func (sc scope) expand(s string) (string, *Error) {
	if !hasVariable(s) {
		return s, nil
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "${")
		if !found {
			b.WriteString(before)
			return b.String(), nil
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			b.WriteString(literal + "${")
			s = after
			continue
		}
		b.WriteString(before)
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			return "", &Error{Msg: fmt.Sprintf("${%s has no }", after), Hint: "write $${ for ${ itself"}
		}
		value, err := sc.lookup(name)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		s = rest
	}
}

// lookup returns the value of one variable.
func (sc scope) lookup(name string) (string, *Error) {
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
		return lookupIn(host.Labels, sc.host, name, label, "host.labels.")
	case isVar:
		return lookupIn(host.Vars, sc.host, name, variable, "vars.")
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

func lookupIn(values map[string]string, host *Host, full, name, prefix string) (string, *Error) {
	value, ok := values[name]
	if ok || host == nil {
		return value, nil
	}
	return "", &Error{
		Msg:  fmt.Sprintf("unknown variable ${%s} on host %s", full, host.Name),
		Hint: yamlpos.DidYouMean(full, prefixed(prefix, sortedKeys(values))),
	}
}

func prefixed(prefix string, names []string) []string {
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names
}
