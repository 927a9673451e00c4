package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// decoder walks the nodes of one file and reports what is not as it should be.
// It goes only as deep as an inventory does, whatever the file nests.
type decoder struct {
	file string
	*report
}

// given is a value and where it was given; the zero value was not.
type given[T any] struct {
	value T
	pos   Position
}

func (g given[T]) ok() bool { return g.pos.Line > 0 }

// text is what most values are until they are resolved for a host.
type text = given[string]

// key is a key that a mapping may have, and what reads its value.
type key struct {
	name string
	read func(name string, v *yaml.Node)
}

// parse reads the one document of a file, or reports why it cannot.
func (d *decoder) parse(data []byte) (root *yaml.Node) {
	top := Position{File: d.file, Line: 1, Column: 1}
	// yaml.v3 panics with "internal error" on some malformed comments instead
	// of returning an error; to whoever wrote the file it is the same thing.
	defer func() {
		if p := recover(); p != nil {
			d.add(top, "", "not readable as YAML: %v", p)
			root = nil
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.add(top, "it wants at least hosts: {NAME: {address: …}}", "the file is empty")
		return nil
	case err != nil:
		d.syntax(data, err)
		return nil
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		d.add(d.at(&next), "give each document a file of its own and name each with -i", "a second document begins here; an inventory file is one document")
		return nil
	case !errors.Is(err, io.EOF):
		d.syntax(data, err)
		return nil
	}
	return doc.Content[0]
}

// syntax reports an error of the YAML parser, which gives its place as text,
// and not always.
func (d *decoder) syntax(data []byte, err error) {
	pos := Position{File: d.file, Line: 1, Column: 1}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if num, what, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(num); err == nil {
				pos.Line, msg = line, what
			}
			// What its parser says counts lines from 0, what its scanner says from 1.
			if strings.HasPrefix(msg, "did not find expected ") || msg == "found undefined tag handle" {
				pos.Line++
			}
		}
	}
	at := -1
	if name, ok := strings.CutPrefix(msg, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		at = bytes.Index(data, []byte("*"+name))
	} else if strings.Contains(msg, "UTF-8") || msg == "control characters are not allowed" {
		at = bytes.IndexFunc(data, func(c rune) bool {
			return c == utf8.RuneError || unicode.IsControl(c) && c != '\n' && c != '\r' && c != '\t'
		})
	}
	if at >= 0 {
		pos.Line = 1 + bytes.Count(data[:at], []byte("\n"))
		pos.Column = at - bytes.LastIndexByte(data[:at], '\n')
	}
	d.add(pos, "", "not readable as YAML: %s", msg)
}

func (d *decoder) at(n *yaml.Node) Position {
	return Position{File: d.file, Line: n.Line, Column: n.Column}
}

// target is what an alias stands for, or the node itself.
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
		have = strconv.Quote(n.Value)
	}
	d.add(d.at(n), "", "%s: want %s, have %s", name, want, have)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// hasForeignTag finds "!vault …" and the like: to take the text as if the tag
// were not there would be to use a secret's ciphertext as its value.
func hasForeignTag(n *yaml.Node) bool {
	return n.Style&yaml.TaggedStyle != 0 &&
		!slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}, n.Tag)
}

// entries reads a mapping of any keys and says where each is; nil if it is no
// mapping. Nothing at all is an empty mapping, as in Ansible's "hosts: {db1: }".
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

// pairs gives the pairs of n, then those of the mappings that "<<" merges into
// it and that are not there yet. Each mapping is merged once (merged holds
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

// fields is entries for a mapping of known keys.
func (d *decoder) fields(name string, n *yaml.Node, want string, keys []key) map[string]Position {
	return d.entries(name, n, want, func(k text, v *yaml.Node) {
		i := slices.IndexFunc(keys, func(known key) bool { return known.name == k.value })
		if i >= 0 {
			keys[i].read(k.value, v)
			return
		}
		names := make([]string, len(keys))
		for i, known := range keys {
			names[i] = known.name
		}
		hint := d.didYouMean(k.value, names)
		if hint == "" {
			slices.Sort(names)
			hint = "known here: " + strings.Join(names, ", ")
		}
		d.add(k.pos, hint, "unknown key %q", k.value)
	})
}

// scalar reads a text, number or truth value as it is written: a label 1.10 is
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

// texts reads a list of values into to.
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

// labels reads a mapping of names to texts that check allows.
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

// number reads a whole number of first to last into to.
func (d *decoder) number(to *given[int], first, last int) func(string, *yaml.Node) {
	want := fmt.Sprintf("a number from %d to %d", first, last)
	return func(name string, n *yaml.Node) {
		t, ok := d.scalar(name, n, want)
		if !ok {
			return
		}
		i, err := wholeNumber(t.value, int64(first), int64(last))
		if err != nil {
			d.add(t.pos, "", "%s: %v", name, err)
			return
		}
		*to = given[int]{int(i), t.pos}
	}
}

// wholeNumber reads decimal digits. A leading zero is refused: YAML 1.1 means
// eight by "010", YAML 1.2 ten.
func wholeNumber(s string, first, last int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !isDigits(s) || s[0] == '0' && s != "0" || n < first || n > last {
		return 0, fmt.Errorf("want a number from %d to %d, have %q", first, last, s)
	}
	return n, nil
}
