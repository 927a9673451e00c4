package inventory

import (
	"fmt"
	"slices"
	"strings"
)

// requirement is one condition of a label selector: "site=fra", "site!=fra",
// "role in (a,b)" or "role notin (a)". A host without the label has none of the
// values, as in Kubernetes.
type requirement struct {
	label  string
	values []string
	not    bool
}

// isRequirement reports whether s is a condition on labels and not a name, which
// has neither "=" nor spaces.
func isRequirement(s string) bool {
	_, s = splitOp(s)
	if s == "" || s[0] == '~' || s[0] == '@' {
		return false
	}
	return strings.ContainsAny(s, "= (")
}

func parseRequirement(s string) (requirement, *Error) {
	var r requirement
	if label, value, ok := strings.Cut(s, "="); ok {
		r.label, r.not = strings.CutSuffix(label, "!")
		if !r.not {
			value = strings.TrimPrefix(value, "=") // Kubernetes takes "==" as well
		}
		r.values = []string{value}
	} else {
		open := strings.IndexByte(s, '(')
		label, operator, _ := strings.Cut(strings.TrimSpace(s[:max(open, 0)]), " ")
		operator = strings.TrimSpace(operator)
		if operator != "in" && operator != "notin" || s[len(s)-1] != ')' {
			return r, &Error{Msg: fmt.Sprintf("selector %q: want NAME=VALUE, NAME!=VALUE, NAME in (A,B) or NAME notin (A,B)", s)}
		}
		r.label, r.not = label, operator == "notin"
		r.values = strings.Split(s[open+1:len(s)-1], ",")
	}
	r.label = strings.TrimSpace(r.label)
	if err := checkName(r.label, maxName); err != nil {
		return r, &Error{Msg: fmt.Sprintf("selector %q: %v", s, err)}
	}
	for i, value := range r.values {
		r.values[i] = strings.TrimSpace(value)
		if err := checkLabel(r.label, r.values[i]); err != nil {
			return r, &Error{Msg: fmt.Sprintf("selector %q: %v", s, err)}
		}
	}
	return r, nil
}

// matchSelector returns the set of the hosts that meet all requirements. Labels and
// required values that no host has are errors: with a typing mistake in it,
// "site!=fra" would be true everywhere.
func (u *universe) matchSelector(texts []string) ([]bool, *Error) {
	set := slices.Repeat([]bool{true}, len(u.hosts))
	for _, s := range texts {
		r, err := parseRequirement(s)
		if err != nil {
			return nil, err
		}
		there := make([]bool, len(r.values))
		for i, h := range u.hosts {
			value, has := h.Labels[r.label]
			at := slices.Index(r.values, value)
			if has = has && at >= 0; has {
				there[at] = true
			}
			if has == r.not {
				set[i] = false
			}
		}
		if i := slices.Index(there, false); i >= 0 {
			return nil, u.noLabel(s, r.label, r.values[i])
		}
	}
	if !slices.Contains(set, true) {
		return nil, &Error{Msg: fmt.Sprintf("no host matches %q", strings.Join(texts, ","))}
	}
	return set, nil
}

// noLabel returns the error for a label, or a value of it, that no host has.
func (u *universe) noLabel(selector, label, value string) *Error {
	labels, values := map[string]bool{}, map[string]bool{}
	for _, h := range u.hosts {
		for l, v := range h.Labels {
			labels[l] = true
			if l == label {
				values[v] = true
			}
		}
	}
	if len(values) == 0 {
		return &Error{Msg: fmt.Sprintf("selector %q: no host has a label %q", selector, label), Hint: u.guess(label, sortedKeys(labels))}
	}
	return &Error{Msg: fmt.Sprintf("selector %q: no host has %s=%s", selector, label, value), Hint: u.guess(value, sortedKeys(values))}
}
