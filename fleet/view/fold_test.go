package view

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	for _, c := range []struct{ name, hosts, want string }{
		{"nothing", "", ""},
		{"one host", "db1", "db1"},
		{"a range", "web01 web02 web03", "web[01-03]"},
		{"single numbers", "web07 web09 web33", "web[07,09,33]"},
		{"ranges and numbers, out of order", "web3 web9 web1 web2 web7", "web[1-3,7,9]"},
		{"as people count", "web10 web9 web2", "web[2,9-10]"},
		{"leading zeros run out", "n08 n09 n10 n11", "n[08-11]"},
		{"with and without leading zeros", "n1 n01 n2", "n[01,1-2]"},
		{"duplicates", "a1 a1 a2", "a[1-2]"},
		{"names of domains", "web01.example.net web02.example.net web01.example.org", "web[01-02].example.net,web01.example.org"},
		{"addresses", "203.0.113.11 203.0.113.12 203.0.113.13", "203.0.113.[11-13]"},
		{"two numbers, one differs", "r1n1 r1n2 r1n3", "r1n[1-3]"},
		{"two numbers, both differ", "r1n1 r1n2 r2n1 r2n2", "r[1-2]n[1-2]"},
		{"no numbers", "mail db", "db,mail"},
		{"a name and its numbered sisters", "web web1 web2", "web,web[1-2]"},
		{"digits that fit no number", "h99999999999999999999 h99999999999999999998", "h99999999999999999998,h99999999999999999999"},
	} {
		if got := Fold(strings.Fields(c.hosts)); got != c.want {
			t.Errorf("%s: Fold(%s) = %q, want %q", c.name, c.hosts, got, c.want)
		}
	}
}

// What was folded unfolds to the same names.
func FuzzFold(f *testing.F) {
	f.Add("web01 web02 web10 db1")
	f.Add("r1n1 r1n2 r2n1 r2n2 r3n1")
	f.Add("1 01 001 2 02")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "[],-\x00") {
			return // no host's name, or one that a node set cannot hold
		}
		names := strings.Fields(text)
		folded := Fold(names)
		got := unfold(folded)
		slices.Sort(names)
		names = slices.Compact(names)
		slices.Sort(got)
		if !slices.Equal(got, names) {
			t.Errorf("Fold(%q) = %q, which is %q", names, folded, got)
		}
	})
}

// unfold is the plain reading of a node set.
func unfold(s string) (names []string) {
	for s != "" {
		depth := 0
		end := strings.IndexFunc(s, func(r rune) bool {
			switch r {
			case '[':
				depth++
			case ']':
				depth--
			}
			return r == ',' && depth == 0
		})
		item := s
		if end >= 0 {
			item, s = s[:end], s[end+1:]
		} else {
			s = ""
		}
		names = append(names, unfoldItem(item)...)
	}
	return names
}

func unfoldItem(item string) (names []string) {
	before, rest, found := strings.Cut(item, "[")
	if !found {
		return []string{item}
	}
	set, after, _ := strings.Cut(rest, "]")
	tails := unfoldItem(after)
	for part := range strings.SplitSeq(set, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		var from, to uint64
		if _, err := fmt.Sscanf(first, "%d", &from); err != nil {
			return nil
		}
		if _, err := fmt.Sscanf(last, "%d", &to); err != nil {
			return nil
		}
		for n := from; n <= to; n++ {
			for _, tail := range tails {
				names = append(names, before+fmt.Sprintf("%0*d", len(first), n)+tail)
			}
		}
	}
	return names
}
