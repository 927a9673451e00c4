package yamlpos

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

// Decoder walks the nodes of one file and reports mistakes. It descends only as far as
// its caller asks, however deeply the file nests.
type Decoder struct {
	File string
	Doc  Doc
	*Report
}

// Doc describes the kind of file that a Decoder reads, for its errors.
type Doc struct {
	Noun    string                       // "an inventory"
	Page    string                       // the page that describes it: "docs/inventory.md"
	Least   string                       // what it must have: "hosts: {NAME: {address: …}}"
	Top     string                       // what is at its top: "hosts, groups, images and guests"
	Foreign func(root *yaml.Node) string // what a file of another kind is, or ""; may be nil
}

// Given is a value with its position in a file. The zero value means that none was
// given.
type Given[T any] struct {
	Value T
	Pos   Position
}

// OK reports whether the value was given.
func (g Given[T]) OK() bool { return g.Pos.Line > 0 }

// Text is a value as it is written.
type Text = Given[string]

// Key is a key that a mapping may have, with the function that reads its value.
type Key struct {
	Name string
	Read func(name string, v *yaml.Node)
}

// Parse returns the only document of a file, or reports why there is none.
func (d *Decoder) Parse(data []byte) *yaml.Node {
	doc, err := Document(data)
	return d.Root(data, doc, err)
}

// Root returns the root node of what Document returned for a file, or reports why there
// is none.
func (d *Decoder) Root(data []byte, doc *yaml.Node, err error) *yaml.Node {
	d.Keep(d.File, data)
	switch {
	case errors.Is(err, io.EOF):
		d.Empty(Position{File: d.File, Line: 1, Column: 1})
		return nil
	case errors.Is(err, errSecondDocument):
		d.Add(d.At(doc), "give each document a file of its own", "a second document begins here; %s is one document", d.Doc.Noun)
		return nil
	case err != nil:
		d.syntax(data, err)
		return nil
	}
	root := doc.Content[0]
	if d.Doc.Foreign != nil {
		if what := d.Doc.Foreign(root); what != "" {
			d.Add(d.At(root), fmt.Sprintf("%s of vsfleet has %s at its top, as in %s", d.Doc.Noun, d.Doc.Top, d.Doc.Page), "this looks like %s", what)
			return nil
		}
	}
	if IsNull(root) {
		d.Empty(d.At(root))
		return nil
	}
	return root
}

// Empty reports a file without content.
func (d *Decoder) Empty(pos Position) {
	d.Add(pos, "it wants at least "+d.Doc.Least, "the file is empty")
}

// At returns the position of a node.
func (d *Decoder) At(n *yaml.Node) Position {
	return Position{File: d.File, Line: n.Line, Column: n.Column}
}

// Target returns the node that an alias refers to, or else the node itself.
func Target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// Wrong reports a value of the wrong kind.
func (d *Decoder) Wrong(name string, n *yaml.Node, want string) {
	have := ""
	switch {
	case HasForeignTag(n):
		have = "the tag " + n.Tag
		d.Hide(d.At(n)) // its value was meant to be encrypted
	case n.Kind == yaml.MappingNode:
		have = "a mapping"
	case n.Kind == yaml.SequenceNode:
		have = "a list"
	case IsNull(n):
		have = "nothing"
	default:
		have = strconv.Quote(Short(n.Value))
	}
	hint := ""
	if m := NoSpaceValue.FindStringSubmatch(n.Value); m != nil && n.Style == 0 && strings.HasPrefix(want, "a mapping") {
		hint = fmt.Sprintf("a space is missing behind the colon: %s: %s", m[1], Short(m[2]))
	}
	d.Add(d.At(n), hint, "%s: want %s, have %s", name, want, have)
}

// IsNull reports whether a node is empty.
func IsNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// HasForeignTag reports whether a node has a tag such as "!vault": without it, a
// secret's ciphertext would be used as its value.
func HasForeignTag(n *yaml.Node) bool {
	return n.Style&yaml.TaggedStyle != 0 &&
		!slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}, n.Tag)
}

// Entries reads a mapping with any keys and returns their positions, or nil if n
// is not a mapping. An empty node is an empty mapping, as in Ansible's
// "hosts: {db1: }".
func (d *Decoder) Entries(name string, n *yaml.Node, want string, each func(k Text, v *yaml.Node)) map[string]Position {
	n = Target(n)
	first := make(map[string]Position, len(n.Content)/2)
	switch {
	case IsNull(n):
	case n.Kind != yaml.MappingNode || HasForeignTag(n):
		d.Wrong(name, n, want)
		return nil
	default:
		d.pairs(n, first, nil, each)
	}
	return first
}

// pairs calls each for the pairs of n, then for those of the mappings that "<<" merges
// into it, except for keys that n has. Each mapping is merged once (see merged), so
// loops and towers of merges take no longer than their text.
func (d *Decoder) pairs(n *yaml.Node, first map[string]Position, merged map[*yaml.Node]bool, each func(k Text, v *yaml.Node)) {
	var merge []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := Target(n.Content[i]), n.Content[i+1]
		pos := d.At(n.Content[i])
		switch {
		case k.Kind != yaml.ScalarNode || IsNull(k) || HasForeignTag(k):
			d.Add(pos, "", "a key must be text")
		case k.Tag == "!!merge":
			if v = Target(v); v.Kind == yaml.SequenceNode {
				merge = append(merge, v.Content...)
			} else {
				merge = append(merge, v)
			}
		case first[k.Value].Line == 0:
			first[k.Value] = pos
			each(Text{k.Value, pos}, v)
		case merged == nil:
			d.Add(pos, "", "duplicate key %q, first at %s", k.Value, first[k.Value])
		}
	}
	for _, m := range merge {
		if m = Target(m); m.Kind != yaml.MappingNode {
			d.Wrong("<<", m, "a mapping or a list of mappings to merge")
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

// Fields reads a mapping with known keys, as Entries does.
func (d *Decoder) Fields(name string, n *yaml.Node, want string, keys []Key) map[string]Position {
	return d.Entries(name, n, want, func(k Text, v *yaml.Node) {
		i := slices.IndexFunc(keys, func(known Key) bool { return known.Name == k.Value })
		if i >= 0 {
			keys[i].Read(k.Value, v)
			return
		}
		// Kept for the anchors that others refer to, as in Compose files.
		if strings.HasPrefix(k.Value, "x-") {
			return
		}
		names := make([]string, len(keys))
		for i, known := range keys {
			names[i] = known.Name
		}
		hint := d.DidYouMean(k.Value, names)
		if m := NoSpaceValue.FindStringSubmatch(k.Value); m != nil && slices.Contains(names, m[1]) {
			hint = fmt.Sprintf("a space is missing behind the colon: %s: %s", m[1], Short(m[2]))
		}
		if hint == "" {
			slices.Sort(names)
			hint = "known here: " + strings.Join(names, ", ")
		}
		d.Add(k.Pos, hint, "unknown key %q", Short(k.Value))
	})
}

// Scalar reads a text, a number or a boolean as it is written: the label 1.10 is
// "1.10".
func (d *Decoder) Scalar(name string, n *yaml.Node, want string) (Text, bool) {
	n = Target(n)
	if n.Kind != yaml.ScalarNode || IsNull(n) || HasForeignTag(n) {
		d.Wrong(name, n, want)
		return Text{}, false
	}
	return Text{n.Value, d.At(n)}, true
}

// Text reads a value that is not empty into to.
func (d *Decoder) Text(to *Text, want string) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		t, ok := d.Scalar(name, n, want)
		switch {
		case ok && t.Value == "":
			d.Add(t.Pos, "", "%s: want %s, have an empty text", name, want)
		case ok:
			*to = t
		}
	}
}

// Texts reads a list of non-empty values into to.
func (d *Decoder) Texts(to *[]Text, want string) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		if n = Target(n); n.Kind != yaml.SequenceNode || HasForeignTag(n) {
			d.Wrong(name, n, want)
			return
		}
		*to = make([]Text, 0, len(n.Content))
		for _, item := range n.Content {
			if t, ok := d.Scalar(name, item, want); ok {
				*to = append(*to, t)
			}
		}
	}
}

// Flag reads true or false into to.
func (d *Decoder) Flag(to *Given[bool]) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		n = Target(n)
		is := n.Kind == yaml.ScalarNode && n.Value == "true"
		if !is && (n.Kind != yaml.ScalarNode || n.Value != "false") {
			d.Wrong(name, n, "true or false")
			return
		}
		*to = Given[bool]{is, d.At(n)}
	}
}

// Number reads an integer from first to last into to.
func (d *Decoder) Number(to *Given[int], first, last int) func(string, *yaml.Node) {
	want := fmt.Sprintf("a number from %d to %d", first, last)
	return func(name string, n *yaml.Node) {
		t, ok := d.Scalar(name, n, want)
		if !ok {
			return
		}
		i, err := setting.WholeNumber(t.Value, int64(first), int64(last))
		if err != nil {
			d.Add(t.Pos, "", "%s: %v", name, err)
			return
		}
		*to = Given[int]{int(i), t.Pos}
	}
}
