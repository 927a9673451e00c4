package inventory

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/setting"
)

// decoder walks the nodes of one file and reports mistakes. It goes only as deep
// as an inventory does, however deep the file nests.
type decoder struct {
	file string
	*report
}

// given is a value with its position in a file. The zero value was not given.
type given[T any] struct {
	value T
	pos   Position
}

func (g given[T]) ok() bool { return g.pos.Line > 0 }

// text is a value that has not been resolved for a host yet.
type text = given[string]

// key is a key that a mapping may have, with the function that reads its value.
type key struct {
	name string
	read func(name string, v *yaml.Node)
}

// parse returns the one document of a file; if there is none, it reports why.
func (d *decoder) parse(data []byte) *yaml.Node {
	doc, err := parseYAML(data)
	switch {
	case errors.Is(err, io.EOF):
		d.add(Position{File: d.file, Line: 1, Column: 1}, "it wants at least hosts: {NAME: {address: …}}", "the file is empty")
		return nil
	case errors.Is(err, errSecondDocument):
		d.add(d.at(doc), "give each document a file of its own and name each with -i", "%v", err)
		return nil
	case err != nil:
		d.syntax(data, err)
		return nil
	}
	root := doc.Content[0]
	if what := foreign(root); what != "" {
		d.add(d.at(root), "an inventory of vsfleet has hosts, groups, images and guests at its top, as in docs/inventory.md", "this looks like %s", what)
		return nil
	}
	return root
}

func (d *decoder) at(n *yaml.Node) Position {
	return Position{File: d.file, Line: n.Line, Column: n.Column}
}

// target returns the node that an alias refers to, or else the node itself.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// wrong reports a value of the wrong kind.
func (d *decoder) wrong(name string, n *yaml.Node, want string) {
	have := ""
	switch {
	case hasForeignTag(n):
		have = "the tag " + n.Tag
	case n.Kind == yaml.MappingNode:
		have = "a mapping"
	case n.Kind == yaml.SequenceNode:
		have = "a list"
	case isNull(n):
		have = "nothing"
	default:
		have = strconv.Quote(short(n.Value))
	}
	hint := ""
	if m := noSpaceValue.FindStringSubmatch(n.Value); m != nil && n.Style == 0 && strings.HasPrefix(want, "a mapping") {
		hint = fmt.Sprintf("a space is missing behind the colon: %s: %s", m[1], short(m[2]))
	}
	d.add(d.at(n), hint, "%s: want %s, have %s", name, want, have)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// hasForeignTag reports whether a node has a tag such as "!vault": without it, a
// secret's ciphertext would be used as its value.
func hasForeignTag(n *yaml.Node) bool {
	return n.Style&yaml.TaggedStyle != 0 &&
		!slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}, n.Tag)
}

// entries reads a mapping with any keys and returns their positions, or nil if n
// is not a mapping. An empty node is an empty mapping, as in Ansible's
// "hosts: {db1: }".
func (d *decoder) entries(name string, n *yaml.Node, want string, each func(k text, v *yaml.Node)) map[string]Position {
	n = target(n)
	first := make(map[string]Position, len(n.Content)/2)
	switch {
	case isNull(n):
	case n.Kind != yaml.MappingNode || hasForeignTag(n):
		d.wrong(name, n, want)
		return nil
	default:
		d.pairs(n, first, nil, each)
	}
	return first
}

// pairs calls each for the pairs of n, then for those of the mappings that "<<"
// merges into it, unless their keys were there already. Each mapping is merged once (merged holds
// them), so neither a loop nor a tower of merges takes longer than its text.
func (d *decoder) pairs(n *yaml.Node, first map[string]Position, merged map[*yaml.Node]bool, each func(k text, v *yaml.Node)) {
	var merge []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := target(n.Content[i]), n.Content[i+1]
		pos := d.at(n.Content[i])
		switch {
		case k.Kind != yaml.ScalarNode || isNull(k) || hasForeignTag(k):
			d.add(pos, "", "a key must be text")
		case k.Tag == "!!merge":
			if v = target(v); v.Kind == yaml.SequenceNode {
				merge = append(merge, v.Content...)
			} else {
				merge = append(merge, v)
			}
		case first[k.Value].Line == 0:
			first[k.Value] = pos
			each(text{k.Value, pos}, v)
		case merged == nil:
			d.add(pos, "", "duplicate key %q, first at %s", k.Value, first[k.Value])
		}
	}
	for _, m := range merge {
		if m = target(m); m.Kind != yaml.MappingNode {
			d.wrong("<<", m, "a mapping or a list of mappings to merge")
			continue
		}
		if merged == nil {
			merged = map[*yaml.Node]bool{}
		}
		if !merged[m] {
			merged[m] = true
			d.pairs(m, first, merged, each)
		}
	}
}

// fields reads a mapping with known keys, as entries does.
func (d *decoder) fields(name string, n *yaml.Node, want string, keys []key) map[string]Position {
	return d.entries(name, n, want, func(k text, v *yaml.Node) {
		i := slices.IndexFunc(keys, func(known key) bool { return known.name == k.value })
		if i >= 0 {
			keys[i].read(k.value, v)
			return
		}
		// Kept for the anchors that others refer to, as in Compose files.
		if strings.HasPrefix(k.value, "x-") {
			return
		}
		names := make([]string, len(keys))
		for i, known := range keys {
			names[i] = known.name
		}
		hint := d.didYouMean(k.value, names)
		if m := noSpaceValue.FindStringSubmatch(k.value); m != nil && slices.Contains(names, m[1]) {
			hint = fmt.Sprintf("a space is missing behind the colon: %s: %s", m[1], short(m[2]))
		}
		if hint == "" {
			slices.Sort(names)
			hint = "known here: " + strings.Join(names, ", ")
		}
		d.add(k.pos, hint, "unknown key %q", short(k.value))
	})
}

// scalar reads a text, a number or a boolean as it is written: the label 1.10 is
// "1.10".
func (d *decoder) scalar(name string, n *yaml.Node, want string) (text, bool) {
	n = target(n)
	if n.Kind != yaml.ScalarNode || isNull(n) || hasForeignTag(n) {
		d.wrong(name, n, want)
		return text{}, false
	}
	return text{n.Value, d.at(n)}, true
}

// text reads a value that is not empty into to.
func (d *decoder) text(to *text, want string) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		t, ok := d.scalar(name, n, want)
		switch {
		case ok && t.value == "":
			d.add(t.pos, "", "%s: want %s, have an empty text", name, want)
		case ok:
			*to = t
		}
	}
}

// texts reads a list of non-empty values into to.
func (d *decoder) texts(to *[]text, want string) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		if n = target(n); n.Kind != yaml.SequenceNode || hasForeignTag(n) {
			d.wrong(name, n, want)
			return
		}
		*to = make([]text, 0, len(n.Content))
		for _, item := range n.Content {
			if t, ok := d.scalar(name, item, want); ok {
				*to = append(*to, t)
			}
		}
	}
}

// patterns reads a pattern or a list of them into to.
func (d *decoder) patterns(to *[]text) func(string, *yaml.Node) {
	const want = `a pattern or a list of them, as "web*" or [web01, "db[1:3]"]`
	return func(name string, n *yaml.Node) {
		if n = target(n); n.Kind == yaml.SequenceNode {
			d.texts(to, want)(name, n)
			if len(n.Content) == 0 {
				d.add(d.at(n), "", "%s: want %s, have an empty list", name, want)
			}
			return
		}
		var one text
		if d.text(&one, want)(name, n); one.ok() {
			*to = []text{one}
		}
	}
}

// labels reads a mapping of names to texts into to; check refuses some of them.
func (d *decoder) labels(to *map[string]string, want string, check func(name, value string) error) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		*to = map[string]string{}
		d.entries(name, n, want, func(k text, v *yaml.Node) {
			t, ok := d.scalar(k.value, v, "a text or a number")
			if !ok {
				return
			}
			if err := checkName(k.value, maxName); err != nil {
				d.add(k.pos, "", "%s: %v", name, err)
			} else if err := check(k.value, t.value); err != nil {
				d.add(t.pos, "", "%s: %v", name, err)
			} else {
				(*to)[k.value] = t.value
			}
		})
	}
}

// flag reads true or false into to.
func (d *decoder) flag(to *given[bool]) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		n = target(n)
		is := n.Kind == yaml.ScalarNode && n.Value == "true"
		if !is && (n.Kind != yaml.ScalarNode || n.Value != "false") {
			d.wrong(name, n, "true or false")
			return
		}
		*to = given[bool]{is, d.at(n)}
	}
}

// number reads an integer from first to last into to.
func (d *decoder) number(to *given[int], first, last int) func(string, *yaml.Node) {
	want := fmt.Sprintf("a number from %d to %d", first, last)
	return func(name string, n *yaml.Node) {
		t, ok := d.scalar(name, n, want)
		if !ok {
			return
		}
		i, err := setting.WholeNumber(t.value, int64(first), int64(last))
		if err != nil {
			d.add(t.pos, "", "%s: %v", name, err)
			return
		}
		*to = given[int]{int(i), t.pos}
	}
}
