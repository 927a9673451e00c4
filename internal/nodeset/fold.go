package nodeset

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fold returns the names of hosts as a node set, "db1,web[01-03,07].example.net".
// Names that differ in one number share a bracket, which keeps leading zeros. The
// names are sorted by their numbers: web2 before web10.
func Fold(names []string) string {
	items := make([][]token, 0, len(names))
	longest := 0
	for _, name := range names {
		t := tokens(name)
		items = append(items, t)
		longest = max(longest, len(t))
	}
	slices.SortFunc(items, compareTokens)
	items = slices.CompactFunc(items, func(a, b []token) bool { return compareTokens(a, b) == 0 })
	for at := 1; at < longest; at += 2 { // numbers stand between texts
		items = foldAt(items, at)
	}
	texts := make([]string, len(items))
	for i, item := range items {
		var b strings.Builder
		for _, t := range item {
			b.WriteString(t.text)
		}
		texts[i] = b.String()
	}
	return strings.Join(texts, ",")
}

// token is a part of a name: a text at even places, a number at odd ones.
type token struct {
	text string
	n    uint64
}

// tokens splits a name. A number of more digits than Expand reads is text.
func tokens(name string) []token {
	var out []token
	start := 0 // of the text that is not yet in out
	for i := 0; i < len(name); {
		end := i
		for end < len(name) && name[end] >= '0' && name[end] <= '9' {
			end++
		}
		if end == i {
			i++
			continue
		}
		if n, err := strconv.ParseUint(name[i:end], 10, 63); err == nil && end-i <= 18 {
			out = append(out, token{text: name[start:i]}, token{text: name[i:end], n: n})
			start = end
		}
		i = end
	}
	return append(out, token{text: name[start:]})
}

func compareTokens(a, b []token) int {
	for i := range min(len(a), len(b)) {
		byNumber := 0
		if i%2 == 1 {
			byNumber = cmp.Compare(a[i].n, b[i].n)
		}
		if c := cmp.Or(byNumber, strings.Compare(a[i].text, b[i].text)); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// foldAt joins the items that differ only in the number at a place. An item takes
// the place of the first that it stands for.
func foldAt(items [][]token, at int) [][]token {
	type group struct {
		item    []token
		numbers []token
	}
	var groups []*group
	byRest := map[string]*group{}
	for _, item := range items {
		if at >= len(item) {
			groups = append(groups, &group{item: item})
			continue
		}
		var rest strings.Builder
		for i, t := range item {
			if i != at {
				rest.WriteString(t.text)
			}
			rest.WriteByte(0) // is in no host's name
		}
		g := byRest[rest.String()]
		if g == nil {
			g = &group{item: item}
			byRest[rest.String()] = g
			groups = append(groups, g)
		}
		g.numbers = append(g.numbers, item[at])
	}
	out := make([][]token, len(groups))
	for i, g := range groups {
		out[i] = g.item
		if len(g.numbers) > 1 {
			out[i] = slices.Clone(g.item)
			out[i][at] = token{text: "[" + ranges(g.numbers) + "]", n: g.numbers[0].n}
		}
	}
	return out
}

// ranges writes sorted numbers as "1-3,7". A range ends where counting up from its
// first number, with its leading zeros, does not give the next text. It also ends
// where the width changes, as from 99 to 100, since both ends of a padded range have
// the same width.
func ranges(numbers []token) string {
	slices.SortFunc(numbers, func(a, b token) int {
		return cmp.Or(cmp.Compare(a.n, b.n), strings.Compare(a.text, b.text))
	})
	var parts []string
	for i := 0; i < len(numbers); {
		first, last := numbers[i], numbers[i]
		for i++; i < len(numbers); i++ {
			next := numbers[i]
			if next.n != last.n+1 || next.text != fmt.Sprintf("%0*d", len(first.text), next.n) ||
				isPadded(first.text) && len(next.text) > len(first.text) {
				break
			}
			last = next
		}
		part := first.text
		if last != first {
			part += "-" + last.text
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}

// Unfold returns the names that a text of Fold stands for.
func Unfold(folded string) (names []string, err error) {
	for _, item := range SplitItems(folded) {
		list, err := Expand(item)
		if err != nil {
			return nil, err
		}
		names = append(names, list...)
	}
	return names, nil
}

// SplitItems splits at commas outside brackets.
func SplitItems(s string) (items []string) {
	depth, from := 0, 0
	for i, c := range s {
		switch c {
		case '[':
			depth++
		case ']':
			depth--
		case ',':
			if depth == 0 {
				items, from = append(items, s[from:i]), i+1
			}
		}
	}
	if s != "" {
		items = append(items, s[from:])
	}
	return items
}
