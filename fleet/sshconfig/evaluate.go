package sshconfig

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// evaluation is one reading of the files for one host, without OpenSSH.
type evaluation struct {
	query  Query
	values map[string][]string
	active bool
	second bool // the pass in which "Match final" matches
	final  bool // there is such a line
	skips  []string
}

// evaluate returns the settings of a host from the lines of its files: the first value
// counts.
func evaluate(q Query, lines []line) Options {
	e := &evaluation{query: q, values: map[string][]string{}}
	if q.User != "" {
		e.values["user"] = []string{q.User}
	}
	if q.Port != 0 {
		e.values["port"] = []string{fmt.Sprint(q.Port)}
	}
	e.active = true
	e.walk(lines)
	if e.final {
		e.second, e.active = true, true
		e.walk(lines)
	}
	if name := e.values["hostname"]; name != nil {
		e.values["hostname"] = []string{strings.NewReplacer("%%", "%", "%h", q.Host).Replace(name[0])}
	}
	if q.User != "" {
		delete(e.values, "user")
	} else if e.values["user"] == nil && q.DefaultUser != "" {
		e.values["user"] = []string{q.DefaultUser}
	}
	if q.Port != 0 {
		delete(e.values, "port")
	}
	slices.Sort(e.skips)
	return Options{values: e.values, Skipped: slices.Compact(e.skips)}
}

func (e *evaluation) walk(lines []line) {
	for _, l := range lines {
		switch l.keyword {
		case "include":
			if e.active {
				e.walk(l.included)
				e.active = true // a Host line ends with its file
			}
		case "host":
			e.active = matchList(e.query.Host, l.args)
		case "match":
			e.active = e.match(l)
		default:
			if e.active && len(l.args) > 0 {
				e.set(l)
			}
		}
	}
}

func (e *evaluation) set(l line) {
	keyword := l.keyword
	if name := aliases[keyword]; name != "" {
		keyword = name
	}
	v := values(keyword, l.args)
	switch have := e.values[keyword]; {
	case have == nil:
		e.values[keyword] = v
	case slices.Contains(repeated, keyword):
		for _, one := range v {
			if !slices.Contains(e.values[keyword], one) {
				e.values[keyword] = append(e.values[keyword], one)
			}
		}
	}
}

// match reports whether all criteria of a Match line hold.
func (e *evaluation) match(l line) bool {
	matched := true
	for _, c := range criteria(l.args) {
		var holds bool
		switch c.name {
		case "all":
			holds = true
		case "final":
			e.final = true
			holds = e.second
		case "canonical":
			holds = e.second && e.final
		case "host":
			host := e.query.Host
			if name := e.values["hostname"]; name != nil {
				host = strings.NewReplacer("%%", "%", "%h", host).Replace(name[0])
			}
			holds = matchCommas(host, c.value)
		case "originalhost":
			holds = matchCommas(e.query.Host, c.value)
		case "user":
			name := cmp.Or(currentUser(), "root")
			if set := e.values["user"]; set != nil {
				name = set[0]
			}
			holds = matchList(name, strings.Split(c.value, ","))
		case "localuser":
			holds = matchList(currentUser(), strings.Split(c.value, ","))
		default:
			e.skips = append(e.skips, fmt.Sprintf("%s: Match %s: only OpenSSH's client can tell, and there is none here", l.place, c.name))
			return false
		}
		matched = matched && holds != c.negated
	}
	return matched
}

// plain reports whether a configuration is no more than what distributions ship, which
// needs no ssh to be understood: one value for all hosts each.
func plain(lines []line) bool {
	for _, l := range lines {
		switch l.keyword {
		case "include":
			if !plain(l.included) {
				return false
			}
		case "host":
			if len(l.args) != 1 || l.args[0] != "*" {
				return false
			}
		case "hashknownhosts", "gssapiauthentication":
			if len(l.args) != 1 || l.args[0] != "yes" && l.args[0] != "no" {
				return false
			}
		case "sendenv":
		default:
			return false
		}
	}
	return true
}
