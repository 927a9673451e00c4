package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// slice selects hosts of a group by position, as in Ansible: web[0], web[-1], web[1:3]
// (both ends included), web[2:].
type slice struct {
	base        string
	first, last int  // counted from 0; from the end if first is negative
	open        bool // to the end
}

var subscript = regexp.MustCompile(`^([^\[\]]+)\[(?:(-?[0-9]{1,9})|([0-9]{1,9}):([0-9]{0,9}))\]$`)

// parseSlice returns the slice that a name stands for. The text is a set instead if a
// host or group of the set exists. Because web[1:3] might mean web01 to web03, it is
// not a slice either if numbered hosts of that name exist.
func (u *universe) parseSlice(name string) (slice, bool) {
	m := subscript.FindStringSubmatch(name)
	if m == nil || m[1] != "all" && u.groups[m[1]] == nil {
		return slice{}, false
	}
	s := slice{base: m[1], open: m[2] == "" && m[4] == ""}
	s.first, _ = strconv.Atoi(m[2] + m[3]) // up to nine digits
	s.last = s.first
	if m[4] != "" {
		s.last, _ = strconv.Atoi(m[4])
	}
	if s.first < 0 || s.open {
		return s, true
	}
	names, err := nodeset.ExpandGlob(name)
	if err != nil || len(m[3]) > 1 && m[3][0] == '0' {
		return slice{}, false
	}
	for _, one := range names {
		if _, host := u.index[one]; host || u.groups[one] != nil {
			return slice{}, false
		}
	}
	numbered := func(host string) bool {
		number, ok := strings.CutPrefix(host, s.base)
		return ok && number != "" && strings.Trim(number, "0123456789") == ""
	}
	return s, m[2] == "0" || !slices.ContainsFunc(u.names, numbered)
}

// matchSlice returns the set of hosts of a slice.
func (u *universe) matchSlice(s slice) ([]bool, *Error) {
	set, err := u.matchName(s.base)
	if err != nil {
		return nil, err
	}
	members := indices(set)
	first, last := s.first, s.last
	if first < 0 {
		first += len(members)
		last = first
	}
	if s.open {
		last = len(members) - 1
	}
	if first < 0 || first >= len(members) || last < first {
		return nil, &Error{Msg: fmt.Sprintf("%s has %d hosts, counted from 0: there is none at these places", s.base, len(members))}
	}
	part := make([]bool, len(set))
	for _, i := range members[first:min(last+1, len(members))] {
		part[i] = true
	}
	return part, nil
}
