package secret

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"filippo.io/age"
	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Document is a YAML file with encrypted values, or a file that is encrypted as a
// whole.
type Document struct {
	file   string
	text   string
	whole  bool
	fields []field // of a YAML file
	plain  string  // the whole file's
}

// field is a value with Tag in a YAML text.
type field struct {
	path       string // the keys that lead to it
	from, to   int    // what of the text writes it, from its tag on
	indent     int    // of its lines, if it is a block
	flow       bool   // it cannot be a block: it is within { } or [ ], or before a comment
	text       string // as YAML reads it
	value      Value
	plain      string
	unreadable bool // for an editor: it is no text
}

// Open reads a file and decrypts the values in it.
func Open(ctx context.Context, file string, data []byte, keys *Keys) (*Document, error) {
	d := &Document{file: file, text: string(data)}
	if IsSealed(data) {
		v, err := New(yamlpos.Position{File: file}, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := keys.Open(ctx, []Value{v}); err != nil {
			return nil, err
		}
		d.whole, d.plain = true, string(v.plain())
		return d, nil
	}
	fields, err := find(file, d.text)
	if err != nil {
		return nil, err
	}
	var values []Value
	for i := range fields {
		f := &fields[i]
		if !IsSealed([]byte(f.text)) {
			continue
		}
		if f.value, err = New(d.at(f.from), []byte(f.text)); err != nil {
			return nil, fmt.Errorf("%s: %w", d.at(f.from), err)
		}
		values = append(values, f.value)
	}
	if err := keys.Open(ctx, values); err != nil {
		return nil, err
	}
	for i := range fields {
		if f := &fields[i]; f.value.sealed != nil {
			f.plain = string(f.value.plain())
			f.unreadable = !isText(f.plain)
		}
	}
	d.fields = fields
	return d, nil
}

// Text returns the text of the file.
func (d *Document) Text() string { return d.text }

// HasPlain reports whether a value with Tag is not encrypted yet.
func (d *Document) HasPlain() bool {
	return slices.ContainsFunc(d.fields, func(f field) bool { return f.value.sealed == nil })
}

// at returns the position of an offset in the text.
func (d *Document) at(offset int) yamlpos.Position {
	before := d.text[:offset]
	return yamlpos.Position{
		File: d.file, Line: 1 + strings.Count(before, "\n"),
		Column: 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]),
	}
}

// Plain returns the text with its values decrypted, for an editor.
func (d *Document) Plain() string {
	if d.whole {
		return d.plain
	}
	return replace(d.text, d.fields, func(f field) string {
		if f.value.sealed == nil || f.unreadable {
			return d.text[f.from:f.to]
		}
		return f.write(f.plain)
	})
}

// Seal returns an edited form of Plain with its values encrypted. Values that were not
// changed keep their encrypted form, unless again is true.
func (d *Document) Seal(edited string, to []age.Recipient, again bool) ([]byte, error) {
	if d.whole {
		if edited == d.plain && !again {
			return []byte(d.text), nil
		}
		return sealFor(edited, to)
	}
	fields, err := find(d.file, edited)
	if err != nil {
		return nil, err
	}
	sealed := make([]replacement, len(fields))
	for i, f := range fields {
		if sealed[i], err = d.replacement(f, edited, to, again); err != nil {
			return nil, err
		}
	}
	// As it was written before, if it fits in there: a file in which nothing is changed
	// stays the same.
	for _, asBefore := range []bool{true, false} {
		n := 0
		text := replace(edited, fields, func(f field) string {
			r := sealed[n]
			if n++; r.before != "" && asBefore {
				return r.before
			}
			return f.write(r.text)
		})
		if err = verify(d.file, text, fields, sealed); err == nil {
			return []byte(text), nil
		}
	}
	return nil, err
}

// replacement is what comes in place of a value in the clear: a text that age made, and
// how it was written before, if it was.
type replacement struct{ text, before string }

// replacement returns what comes in place of a field of the edited text.
func (d *Document) replacement(f field, edited string, to []age.Recipient, again bool) (replacement, error) {
	plain := f.text
	if IsSealed([]byte(f.text)) {
		i := d.index(f, func(o field) string { return o.text })
		if i < 0 || !again {
			return replacement{f.text, edited[f.from:f.to]}, nil
		}
		plain = d.fields[i].plain
	} else if i := d.index(f, func(o field) string { return o.plain }); i >= 0 && !again {
		old := d.fields[i]
		return replacement{old.text, d.text[old.from:old.to]}, nil
	}
	text, err := sealFor(plain, to)
	return replacement{text: string(text)}, err
}

// index returns the index of the value that was encrypted before and is the same as f:
// that of the same keys if there is one.
func (d *Document) index(f field, of func(field) string) int {
	found := -1
	for i, old := range d.fields {
		if old.value.sealed == nil || of(old) != f.text {
			continue
		}
		if found = i; old.path == f.path {
			break
		}
	}
	return found
}

// ErrNobody means that a value has to be encrypted and no recipient is known.
var ErrNobody = errors.New("there is no recipient to encrypt for")

func sealFor(plain string, to []age.Recipient) ([]byte, error) {
	if len(to) == 0 {
		return nil, ErrNobody
	}
	return Seal([]byte(plain), to)
}

// verify reads a text again: what is in place of the values must be what was put
// there, and none of them in the clear.
func verify(file, text string, fields []field, sealed []replacement) error {
	now, err := find(file, text)
	same := err == nil && len(now) == len(fields)
	for i := 0; same && i < len(now); i++ {
		same = now[i].path == fields[i].path && strings.TrimRight(now[i].text, "\n") == strings.TrimRight(sealed[i].text, "\n")
	}
	if !same {
		return fmt.Errorf("%s: the way in which it writes its values is not understood: write them as NAME: %s | with the text indented below", file, Tag)
	}
	return nil
}

// replace replaces the parts of a text that fields write.
func replace(text string, fields []field, with func(field) string) string {
	var b strings.Builder
	at := 0
	for _, f := range fields {
		b.WriteString(text[at:f.from])
		b.WriteString(with(f))
		at = f.to
	}
	b.WriteString(text[at:])
	return b.String()
}

// write returns how the field is written with another text.
func (f field) write(text string) string {
	if f.flow {
		return Tag + " " + quoted(text)
	}
	return Block(text, f.indent)
}

// Block returns a text as a YAML value with Tag, its lines indented.
func Block(text string, indent int) string {
	body := strings.TrimRight(text, "\n")
	head := "|-"
	switch strings.Count(text[len(body):], "\n") {
	case 0:
	case 1:
		head = "|"
	default:
		head = "|+"
	}
	// YAML cannot see the indentation of such a text.
	if body == "" || strings.ContainsRune(" \n\t", rune(body[0])) || head == "|+" {
		return Tag + " " + quoted(text)
	}
	pad := "\n" + strings.Repeat(" ", indent)
	var b strings.Builder
	b.WriteString(Tag + " " + head)
	for line := range strings.SplitSeq(body, "\n") {
		if line == "" {
			b.WriteString("\n")
			continue
		}
		b.WriteString(pad + line)
	}
	return b.String()
}

// quoted returns a text in YAML's double quotes, on one line.
func quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteRune('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// isText reports whether a text can be in a YAML file, and in an editor.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool {
		return c != '\n' && c != '\t' && !unicode.IsPrint(c) || c == utf8.RuneError
	})
}

// find returns the values with Tag in a YAML text, in their order there.
func find(file, text string) ([]field, error) {
	report := &yamlpos.Report{}
	d := &yamlpos.Decoder{File: file, Report: report, Doc: yamlpos.Doc{Noun: "the file", Least: "a value"}}
	root := d.Parse([]byte(text))
	if root == nil {
		return nil, report.Err()
	}
	f := finder{file: file, text: text, lines: strings.SplitAfter(text, "\n")}
	if err := f.walk(root, field{}); err != nil {
		return nil, err
	}
	return f.fields, nil
}

type finder struct {
	file, text string
	lines      []string
	fields     []field
}

// walk goes through a node and what is in it. Aliases lead to what was found already.
func (f *finder) walk(n *yaml.Node, in field) error {
	in.flow = in.flow || n.Style&yaml.FlowStyle != 0
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == Tag {
			return f.add(n, in)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if err := f.walk(n.Content[i+1], field{path: in.path + "\x00" + k.Value, indent: k.Column + 1, flow: in.flow}); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if err := f.walk(item, field{path: fmt.Sprintf("%s\x00%d", in.path, i), indent: item.Column + 1, flow: in.flow}); err != nil {
				return err
			}
		}
	}
	return nil
}

// add notes a value and what of the text writes it.
func (f *finder) add(n *yaml.Node, in field) error {
	pos := yamlpos.Position{File: f.file, Line: n.Line, Column: n.Column}
	line := f.lines[n.Line-1]
	from := 0
	for _, l := range f.lines[:n.Line-1] {
		from += len(l)
	}
	at := strings.Index(line[min(len(line), byteOffset(line, n.Column)):], Tag)
	if at < 0 {
		return fmt.Errorf("%s: the tag %s must stand in the line of its key", pos, Tag)
	}
	from += byteOffset(line, n.Column) + at
	rest := f.text[from+len(Tag):]
	length, own := scalarLength(rest, f.lines[n.Line:], n)
	if length < 0 {
		return fmt.Errorf("%s: write the value as %s | with the text indented below, or in one line", pos, Tag)
	}
	if own > 0 {
		in.indent = own
	}
	after, _, _ := strings.Cut(f.text[from+len(Tag)+length:], "\n")
	in.flow = in.flow || strings.TrimSpace(after) != "" // a comment would become a part of a block
	in.from, in.to, in.text = from, from+len(Tag)+length, n.Value
	f.fields = append(f.fields, in)
	return nil
}

// blockHead is the line of a literal or folded text, behind its tag.
var blockHead = regexp.MustCompile(`^ *[|>][-+0-9]* *(?:#.*)?\r?\n`)

// scalarLength returns the length of the text behind a tag that writes a scalar, and the
// indentation of its lines if it is a block; -1 if it is written in another way.
func scalarLength(rest string, below []string, n *yaml.Node) (length, indent int) {
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		head := blockHead.FindString(rest)
		if head == "" {
			return -1, 0
		}
		length = len(head)
		end := length - len("\n") // the last newline stays
		for _, line := range below {
			body := strings.TrimLeft(line, " ")
			blank := strings.TrimSpace(body) == ""
			switch lead := len(line) - len(body); {
			case !blank && indent == 0 && lead > 0:
				indent = lead
			case !blank && lead < max(indent, 1):
				return end, indent
			}
			length += len(line)
			if !blank {
				end = length - (len(line) - len(strings.TrimRight(line, "\r\n")))
			}
		}
		return end, indent
	}
	rest, _, _ = strings.Cut(rest, "\n")
	lead := len(rest) - len(strings.TrimLeft(rest, " "))
	value := rest[lead:]
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		for i := 1; i < len(value); i++ {
			switch value[i] {
			case '\\':
				i++
			case '"':
				return lead + i + 1, 0
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0:
		for i := 1; i < len(value); i++ {
			if value[i] == '\'' && strings.HasPrefix(value[i:], "''") {
				i++
			} else if value[i] == '\'' {
				return lead + i + 1, 0
			}
		}
	case strings.HasPrefix(value, n.Value):
		return lead + len(n.Value), 0
	}
	return -1, 0
}

// byteOffset returns the offset of a column, which counts characters from 1.
func byteOffset(line string, column int) int {
	for at := range line {
		if column--; column == 0 {
			return at
		}
	}
	return len(line)
}
