package setting

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
)

// The JSON Schema types of most settings.
const (
	oneText   = `"$ref": "#/definitions/text"`
	someTexts = `"$ref": "#/definitions/texts"`
)

// Schema returns the properties of a block in the JSON Schema of inventories, one
// per line.
func Schema(block string) []string {
	var lines []string
	for _, r := range In(block) {
		text, _ := json.Marshal(r.description()) // cannot fail for a string
		lines = append(lines, fmt.Sprintf(`"%s": { "description": %s, %s }`, r.Name(), text, r.schemaType()))
	}
	return lines
}

func (r *Row) schemaType() string {
	switch {
	case r.schema != "":
		return r.schema
	case r.Words != nil:
		words, _ := json.Marshal(r.Words)
		return fmt.Sprintf(`"anyOf": [{ "enum": %s }, { "$ref": "#/definitions/variable" }]`, words)
	case r.Form == List:
		return someTexts
	case r.Form == Flag:
		return `"type": "boolean"`
	}
	return oneText
}

// description returns Doc without Markdown, for editors. Links in parentheses are
// omitted.
func (r *Row) description() string {
	s := r.Doc
	if r.Modes != nil {
		s = "mode " + join(r.Modes, " or ") + ": " + s
	}
	if r.Default != "" {
		s += "; default: " + r.Default
	}
	for {
		before, rest, found := strings.Cut(s, "[")
		text, rest, isLink := strings.Cut(rest, "](")
		_, after, closed := strings.Cut(rest, ")")
		if !found || !isLink || !closed {
			break
		}
		if outside, ok := strings.CutSuffix(before, " ("); ok && strings.HasPrefix(after, ")") {
			before, text, after = outside, "", after[1:]
		}
		s = before + text + after
	}
	return strings.ReplaceAll(s, "`", "")
}

// Reference returns the rows of a block in docs/inventory.md.
func Reference(block string) []string {
	var lines []string
	for _, r := range In(block) {
		mode := ""
		if block == "network" {
			mode = join(r.Modes, ", ") + " | "
		}
		lines = append(lines, fmt.Sprintf("| `%s` | %s%s | %s | %s |", r.Name(), mode, r.Doc, r.Default, cmp.Or(r.Live.Doc, "after a restart")))
	}
	return lines
}

// FileReference returns the rows of docs/guests.md: the files of settings.
func FileReference() []string {
	var lines []string
	for _, r := range Table {
		if r.File != "" {
			lines = append(lines, fmt.Sprintf("| `%s` | %s |", r.File, r.FileDoc))
		}
	}
	return lines
}

func join(modes []Mode, between string) string {
	words := make([]string, len(modes))
	for i, m := range modes {
		words[i] = string(m)
	}
	return strings.Join(words, between)
}
