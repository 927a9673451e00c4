package inventory

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Instance is one guest on one host.
type Instance struct {
	Host  *Host
	Guest *Guest
}

// Select returns the hosts that a pattern names, in the order of Hosts. Patterns are
//
//	all, *             every host
//	web                a host or the hosts of a group
//	web*, db?, db[!a]  those whose name, or whose group's name, matches
//	~web\d+\.eu        the same by a regular expression, from the start of the name
//	web[01-03,07]      web01, web02, web03 and web07, all of which must exist
//	web[0-20/5]        a set with a step; see package nodeset for all forms
//	web[0], web[-1], web[2:], all[1:3]
//	                   hosts of a group by their places, as Ansible counts them, where
//	                   that is no set: see parseSlice
//	ungrouped          every host in no group
//	@file              what the lines of a file name
//	site=fra,role!=db,rack in (a,b),rack notin (c)
//	                   hosts whose labels meet all of these conditions
//	a:b  a,b           both          (as Ansible: all of these first,
//	a:&b               what is in both  then the intersections,
//	a:!b               a without b      then the exclusions)
//
// A pattern, or a part of one, that matches nothing is an error, an [*Error].
func (inv *Inventory) Select(pattern string) ([]*Host, error) {
	u := inv.hosts
	u.readFiles = true
	set, err := u.match(pattern)
	if err != nil {
		return nil, err
	}
	return u.pick(set), nil
}

// SelectGuests returns the guests that "HOSTS/GUESTS" names, by host and name.
// HOSTS is a pattern as for Select, GUESTS a name, a set or a glob. "GUESTS" alone
// means those on all hosts. Several patterns are separated by commas.
func (inv *Inventory) SelectGuests(pattern string) ([]Instance, error) {
	u := inv.hosts
	u.readFiles = true
	chosen := map[*Guest]bool{}
	held := "" // "site=fra" of "site=fra,role=db/www": its host pattern goes on
	for _, item := range splitOutside(pattern, ',') {
		item = held + strings.TrimSpace(item)
		cut := strings.LastIndexByte(item, '/')
		if held = ""; cut < 0 && isRequirement(item) {
			held = item + ","
			continue
		}
		hosts, name := "all", item
		if cut >= 0 {
			hosts, name = item[:cut], item[cut+1:]
		}
		set, err := u.match(hosts)
		if err != nil {
			return nil, err
		}
		if err := chooseGuests(u.pick(set), name, item, chosen, &u); err != nil {
			return nil, err
		}
	}
	if held != "" {
		return nil, &Error{
			Msg:  fmt.Sprintf("pattern %q selects hosts, not guests", pattern),
			Hint: fmt.Sprintf("for all guests there: %s/*", strings.TrimSuffix(held, ",")),
		}
	}
	var list []Instance
	for _, h := range inv.Hosts {
		for _, g := range h.Guests {
			if chosen[g] {
				list = append(list, Instance{h, g})
			}
		}
	}
	return list, nil
}

// chooseGuests adds those that a name, a set or a glob names.
func chooseGuests(hosts []*Host, name, item string, chosen map[*Guest]bool, u *universe) error {
	if name == "" {
		return &Error{Msg: fmt.Sprintf("pattern %q names no guest", item)}
	}
	names, err := nodeset.ExpandGlob(name)
	if err != nil {
		return &Error{Msg: fmt.Sprintf("pattern %q: %v", item, err)}
	}
	for _, one := range names {
		what := fmt.Sprintf("%q", item)
		if one != name {
			what = fmt.Sprintf("%s of %q", one, item)
		}
		if err := chooseGuest(hosts, one, what, chosen, u); err != nil {
			return err
		}
	}
	return nil
}

// chooseGuest adds those that a name or a glob without sets names.
func chooseGuest(hosts []*Host, name, what string, chosen map[*Guest]bool, u *universe) error {
	matches, err := glob(name)
	if err != nil {
		return err
	}
	known, found := map[string]bool{}, false
	for _, h := range hosts {
		for _, g := range h.Guests {
			known[g.Name] = true
			if matches(g.Name) {
				chosen[g], found = true, true
			}
		}
	}
	if found {
		return nil
	}
	hint := yamlpos.DidYouMean(name, sortedKeys(known))
	for _, h := range u.hosts {
		if slices.ContainsFunc(h.Guests, func(g *Guest) bool { return g.Name == name }) {
			hint = "it is on " + h.Name
			break
		}
	}
	if u.host(name) != nil || u.groups[name] != nil {
		hint = fmt.Sprintf("for all guests there: %s/*", name)
	}
	return &Error{Msg: "no guest matches " + what, Hint: hint}
}

// universe is the hosts and groups that patterns are matched against. A set of
// hosts is a list of booleans by their indices.
type universe struct {
	hosts      []*Host
	names      []string // of the hosts
	index      map[string]int
	groups     map[string][]bool // nil until all are known
	groupNames []string
	readFiles  bool // "@file" may be read
	guess      func(word string, known []string) string
}

func (u *universe) add(h *Host) {
	u.index[h.Name] = len(u.hosts)
	u.hosts, u.names = append(u.hosts, h), append(u.names, h.Name)
}

func (u *universe) host(name string) *Host {
	if i, ok := u.index[name]; ok {
		return u.hosts[i]
	}
	return nil
}

func (u *universe) pick(set []bool) []*Host {
	var list []*Host
	for _, i := range indices(set) {
		list = append(list, u.hosts[i])
	}
	return list
}

func indices(set []bool) []int {
	var list []int
	for i, in := range set {
		if in {
			list = append(list, i)
		}
	}
	return list
}

func union(to, from []bool) {
	for i, in := range from {
		to[i] = to[i] || in
	}
}

// match returns the set that a pattern names, which is never empty.
func (u *universe) match(pattern string) ([]bool, *Error) {
	if len(u.hosts) == 0 {
		return nil, &Error{Msg: fmt.Sprintf("pattern %q: the inventory has no hosts", pattern)}
	}
	terms, err := parsePattern(pattern)
	if err != nil {
		return nil, err
	}
	set := make([]bool, len(u.hosts))
	onlyNarrows := !slices.ContainsFunc(terms, func(t term) bool { return t.op == 0 })
	for i := range set {
		set[i] = onlyNarrows // "!web02" is all but web02
	}
	sets := make([][]bool, len(terms))
	for i, t := range terms {
		if sets[i], err = u.matchTerm(t); err != nil {
			return nil, err
		}
		if t.op == 0 {
			union(set, sets[i])
		}
	}
	for i, t := range terms {
		for j := range set {
			switch t.op {
			case '&':
				set[j] = set[j] && sets[i][j]
			case '!':
				set[j] = set[j] && !sets[i][j]
			}
		}
	}
	if !slices.Contains(set, true) {
		return nil, &Error{Msg: fmt.Sprintf("pattern %q leaves no host", pattern)}
	}
	return set, nil
}

// term is one part of a pattern: a name, or the requirements of a selector.
type term struct {
	op           byte // 0, '&' or '!'
	name         string
	requirements []string
}

func parsePattern(pattern string) ([]term, *Error) {
	var terms []term
	for _, part := range splitOutside(pattern, ':') {
		items := splitOutside(part, ',')
		selectors := 0
		for i, item := range items {
			items[i] = strings.TrimSpace(item)
			if isRequirement(items[i]) {
				selectors++
			}
		}
		switch selectors {
		case 0:
			for _, item := range items {
				op, name := splitOp(item)
				if name == "" {
					return nil, &Error{Msg: fmt.Sprintf("pattern %q has an empty part", pattern)}
				}
				terms = append(terms, term{op: op, name: name})
			}
		case len(items):
			t := term{requirements: items}
			t.op, t.requirements[0] = splitOp(items[0])
			terms = append(terms, t)
		default:
			return nil, &Error{
				Msg:  fmt.Sprintf("pattern %q mixes names and labels with a comma, which could mean either or both", pattern),
				Hint: `write "web:site=fra" for either, "web:&site=fra" for both`,
			}
		}
	}
	return terms, nil
}

func splitOp(s string) (byte, string) {
	if s != "" && (s[0] == '&' || s[0] == '!') {
		return s[0], strings.TrimSpace(s[1:])
	}
	return 0, s
}

// splitOutside splits s at sep, except inside brackets: ranges, lists of values
// and regular expressions have separators of their own.
func splitOutside(s string, sep byte) []string {
	var list []string
	depth, from := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth = max(depth-1, 0)
		case sep:
			if depth == 0 {
				list, from = append(list, s[from:i]), i+1
			}
		}
	}
	return append(list, s[from:])
}

// matchTerm returns the set that one part of a pattern names, which is never empty.
func (u *universe) matchTerm(t term) ([]bool, *Error) {
	switch {
	case t.requirements != nil:
		return u.matchSelector(t.requirements)
	case t.name[0] == '@':
		return u.matchFile(t.name[1:])
	case t.name[0] == '~':
		re, err := regexp.Compile("^(?:" + t.name[1:] + ")")
		if err != nil {
			return nil, &Error{Msg: fmt.Sprintf("pattern %q: %v", t.name, err)}
		}
		return u.matchNames(t.name, re.MatchString)
	}
	if s, ok := u.parseSlice(t.name); ok {
		set, err := u.matchSlice(s)
		if err != nil {
			err.Msg = fmt.Sprintf("pattern %q: %s", t.name, err.Msg)
		}
		return set, err
	}
	names, err := nodeset.ExpandGlob(t.name)
	if err != nil {
		return nil, &Error{Msg: fmt.Sprintf("pattern %q: %v", t.name, err)}
	}
	set := make([]bool, len(u.hosts))
	for _, name := range names {
		one, err := u.matchName(name)
		if err != nil {
			if name != t.name {
				err.Msg += " of " + t.name
			}
			return nil, err
		}
		union(set, one)
	}
	return set, nil
}

// matchName returns the set that the name of a host or a group, or a glob, stands
// for.
func (u *universe) matchName(name string) ([]bool, *Error) {
	if name == "all" {
		return slices.Repeat([]bool{true}, len(u.hosts)), nil
	}
	if members, ok := u.groups[name]; ok {
		if !slices.Contains(members, true) { // for a reason that is reported
			return nil, &Error{Msg: fmt.Sprintf("group %q has no hosts", name)}
		}
		return members, nil
	}
	if i, ok := u.index[name]; ok {
		set := make([]bool, len(u.hosts))
		set[i] = true
		return set, nil
	}
	if name == "ungrouped" && u.groups != nil {
		set, found := make([]bool, len(u.hosts)), false
		for i, h := range u.hosts {
			set[i] = len(h.Groups) == 0
			found = found || set[i]
		}
		if !found {
			return nil, &Error{Msg: "every host is in a group, none is ungrouped"}
		}
		return set, nil
	}
	matches, err := glob(name)
	if err != nil {
		return nil, err
	}
	return u.matchNames(name, matches)
}

// matchNames returns the set of the hosts whose name, or whose group's name,
// matches.
func (u *universe) matchNames(name string, matches func(string) bool) ([]bool, *Error) {
	set := make([]bool, len(u.hosts))
	for i, h := range u.hosts {
		set[i] = matches(h.Name)
	}
	for group, members := range u.groups {
		if matches(group) {
			union(set, members)
		}
	}
	if slices.Contains(set, true) {
		return set, nil
	}
	if u.groups == nil && slices.Contains(u.groupNames, name) {
		return nil, &Error{Msg: fmt.Sprintf("%q is a group, not a host", name), Hint: "groups in a group are its children: [" + name + "]"}
	}
	known := u.names
	if u.groups != nil {
		known = slices.Concat(u.names, u.groupNames)
	}
	return nil, &Error{Msg: fmt.Sprintf("no host or group matches %q", name), Hint: u.guess(name, known)}
}

// glob returns a function that matches names as a shell does: *, ?, [a-c], [!a-c].
func glob(pattern string) (func(string) bool, *Error) {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return func(name string) bool { return name == pattern }, nil
	}
	pattern = strings.ReplaceAll(pattern, "[!", "[^")
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, &Error{Msg: fmt.Sprintf("pattern %q: a [ without a ], or a \\ at the end", pattern)}
	}
	return func(name string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	}, nil
}

// matchFile returns the set that the lines of a file name. Empty lines and those
// that begin with # are ignored.
func (u *universe) matchFile(name string) ([]bool, *Error) {
	if !u.readFiles {
		return nil, &Error{Msg: fmt.Sprintf("pattern %q: a file of hosts is read from the command line only", "@"+name)}
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, &Error{Msg: fmt.Sprintf("pattern %q: %v", "@"+name, err)}
	}
	inner := *u
	inner.readFiles = false
	set := make([]bool, len(u.hosts))
	line := 0
	for text := range strings.Lines(string(data)) {
		line++
		if text = strings.TrimSpace(text); text == "" || text[0] == '#' {
			continue
		}
		one, err := inner.match(text)
		if err != nil {
			err.Pos = Position{File: name, Line: line, Column: 1}
			return nil, err
		}
		union(set, one)
	}
	if !slices.Contains(set, true) {
		return nil, &Error{Pos: Position{File: name}, Msg: "the file names no host"}
	}
	return set, nil
}
