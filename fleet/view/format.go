package view

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/printable"
)

// Format is how data is written to standard output.
type Format string

// Formats of standard output.
const (
	AsTable  Format = "table"  // for people; may change
	AsJSON   Format = "json"   // one array
	AsYAML   Format = "yaml"   // one list
	AsNDJSON Format = "ndjson" // one object per line
	AsCSV    Format = "csv"    // RFC 4180, with a line of names
)

// Formats returns all formats, for help and completion.
func Formats() []string {
	return []string{string(AsTable), string(AsJSON), string(AsYAML), string(AsNDJSON), string(AsCSV)}
}

// ParseFormat reads the flag -o.
func ParseFormat(s string) (Format, error) {
	if !slices.Contains(Formats(), s) {
		return "", fmt.Errorf("unknown output format %q: want %s", s, strings.Join(Formats(), ", "))
	}
	return Format(s), nil
}

// Write prints records, a slice of structs. In every machine format the fields have
// the names of their json tags and the order of the struct; table prints the rest.
func Write[T any](w io.Writer, f Format, records []T, table func(io.Writer) error) error {
	if records == nil {
		records = []T{} // an empty list is [] and not null
	}
	out := bufio.NewWriterSize(w, 64<<10)
	var err error
	switch f {
	case AsTable:
		if o, ok := w.(Output); ok && o.Terminal {
			err = table(sized{out, o.Width()})
		} else {
			err = table(out)
		}
	case AsJSON:
		enc := encoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(records)
	case AsNDJSON:
		enc := encoder(out)
		for i := 0; i < len(records) && err == nil; i++ {
			err = enc.Encode(records[i])
		}
	case AsYAML:
		err = writeYAML(out, records)
	case AsCSV:
		o, is := w.(Output)
		err = writeCSV(out, records, is && o.Terminal)
	default:
		err = fmt.Errorf("unknown output format %q", f)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

func encoder(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(escaping{w})
	enc.SetEscapeHTML(false) // it is no HTML
	return enc
}

// escaping writes JSON without anything that a terminal takes for a command. It escapes
// what encoding/json leaves and YAML forbids (DEL, the C1 controls, two
// noncharacters), and what changes the direction of text; all of these occur inside
// strings only. Each Write is one whole value.
type escaping struct{ w io.Writer }

func (e escaping) Write(b []byte) (int, error) {
	if _, err := e.w.Write(escape(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

func escape(b []byte) []byte {
	if !bytes.ContainsFunc(b, hidden) {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		if hidden(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

func hidden(r rune) bool {
	return r >= 0x7f && r < 0xa0 || r == 0xfffe || r == 0xffff ||
		r == 0x61c || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// writeYAML converts from JSON, of which YAML is a superset, so that both have the same
// names, order and values. It writes the list in pieces: a tree of nodes for all
// records would take a hundred times their size.
func writeYAML[T any](w io.Writer, records []T) error {
	if len(records) == 0 {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	for piece := range slices.Chunk(records, 200) {
		var text bytes.Buffer
		if err := encoder(&text).Encode(piece); err != nil {
			return err
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(text.Bytes(), &doc); err != nil {
			return err
		}
		unquote(&doc)
		var out bytes.Buffer
		enc := yaml.NewEncoder(&out)
		enc.SetIndent(2)
		if err := enc.Encode(&doc); err != nil {
			return err
		}
		if err := enc.Close(); err != nil {
			return err
		}
		if _, err := w.Write(escape(out.Bytes())); err != nil {
			return err
		}
	}
	return nil
}

// unquote removes JSON's brackets and quotes; the encoder adds quotes to texts that
// would be read as something else.
func unquote(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0 // but an empty list stays []
	}
	if n.Kind == yaml.ScalarNode && strings.ContainsFunc(n.Value, hidden) {
		n.Style = yaml.DoubleQuotedStyle // in which they can be escaped
	}
	for _, c := range n.Content {
		unquote(c)
	}
}

// writeCSV writes plain fields as text and anything deeper as JSON. A text of several
// lines is a quoted field of several lines. CSV cannot escape control characters: on a
// terminal, those other than newlines and tabs are made visible.
func writeCSV[T any](w io.Writer, records []T, terminal bool) error {
	out := csv.NewWriter(w)
	var fields []reflect.StructField
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields, names = append(fields, f), append(names, name)
	}
	if err := out.Write(names); err != nil {
		return err
	}
	row := make([]string, len(fields))
	for _, record := range records {
		v := reflect.ValueOf(record)
		for i, f := range fields {
			cell, err := csvCell(v.FieldByIndex(f.Index), terminal)
			if err != nil {
				return fmt.Errorf("csv column %s: %w", names[i], err)
			}
			row[i] = cell
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func csvCell(v reflect.Value, terminal bool) (string, error) {
	switch v.Kind() {
	case reflect.String:
		return csvText(v.String(), terminal), nil
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if v.IsNil() {
			return "", nil
		}
	}
	b, err := json.Marshal(v.Interface())
	if err != nil {
		return "", err
	}
	var text string
	if json.Unmarshal(b, &text) == nil { // a type that writes itself as text: a time, an address
		return csvText(text, terminal), nil
	}
	return string(escape(b)), nil
}

func csvText(text string, terminal bool) string {
	if !terminal {
		return strings.ToValidUTF8(text, "\ufffd") // as encoding/json does
	}
	parts := strings.Split(text, "\t")
	for i := range parts {
		parts[i] = printable.Lines(parts[i])
	}
	return strings.Join(parts, "\t")
}
