package inventory

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxExpanded bounds the names that one range stands for: a slip in "[1:300]"
// should be an error and not all of the memory.
const maxExpanded = 1 << 16

// expandRanges gives what a text with ranges stands for: "web[08:10]" is web08,
// web09, web10 and "r[1:2][a:b]" is r1a, r1b, r2a, r2b. Both ends belong to a
// range; numbers are as wide as the first one if that begins with a zero.
func expandRanges(s string) ([]string, error) {
	list := []string{""}
	for left := s; ; {
		before, rest, found := strings.Cut(left, "[")
		if strings.Contains(before, "]") {
			return nil, fmt.Errorf("%q: a ] without a [", s)
		}
		for i := range list {
			list[i] += before
		}
		if !found {
			return list, nil
		}
		inner, after, closed := strings.Cut(rest, "]")
		if !closed {
			return nil, fmt.Errorf("%q: a [ without a ]", s)
		}
		steps, err := expandRange(inner)
		if err != nil {
			return nil, err
		}
		if len(list)*len(steps) > maxExpanded {
			return nil, fmt.Errorf("range [%s]: it makes more than %d names", inner, maxExpanded)
		}
		longer := make([]string, 0, len(list)*len(steps))
		for _, head := range list {
			for _, step := range steps {
				longer = append(longer, head+step)
			}
		}
		list, left = longer, after
	}
}

// expandRange counts from "01" to "10" or from "a" to "f".
func expandRange(s string) ([]string, error) {
	first, last, found := strings.Cut(s, ":")
	switch {
	case found && isLetter(first) && isLetter(last) && first <= last:
		var list []string
		for c := first[0]; c <= last[0]; c++ {
			list = append(list, string(rune(c)))
		}
		return list, nil
	case found && isDigits(first) && isDigits(last):
		width := 0
		if len(first) > 1 && first[0] == '0' || len(last) > 1 && last[0] == '0' {
			if width = len(first); width != len(last) {
				return nil, fmt.Errorf("range [%s]: both ends must have as many digits if one is padded with zeros", s)
			}
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		switch {
		case err1 != nil || err2 != nil || to-from >= maxExpanded:
			return nil, fmt.Errorf("range [%s]: it makes more than %d names", s, maxExpanded)
		case to < from:
			return nil, fmt.Errorf("range [%s]: it ends before it begins", s)
		}
		list := make([]string, 0, to-from+1)
		for n := from; n <= to; n++ {
			list = append(list, fmt.Sprintf("%0*d", width, n))
		}
		return list, nil
	}
	return nil, fmt.Errorf("[%s] is no range, as [01:10] or [a:f]", s)
}

func isLetter(s string) bool {
	return len(s) == 1 && ('a' <= s[0] && s[0] <= 'z' || 'A' <= s[0] && s[0] <= 'Z')
}

// scope is what the variables of a text mean. Without a host they are only
// checked as far as they are the same on every host.
type scope struct {
	host  *Host
	guest string // "" outside guests
	bare  bool   // the host has no address yet: it is what is being expanded
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

// lookup is the value of one variable.
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
		hint := didYouMean(name, known)
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
		Hint: didYouMean(full, prefixed(prefix, sortedKeys(values))),
	}
}

func prefixed(prefix string, names []string) []string {
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names
}
