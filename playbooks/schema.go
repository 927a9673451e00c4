package playbooks

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Schema returns the JSON Schema (draft-07) of a playbook, for editors. It is made
// from the table of steps.
func Schema() []byte {
	var b strings.Builder
	b.WriteString(`{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "title": "vsfleet playbook",
  "type": "array",
  "items": { "anyOf": [{ "$ref": "#/definitions/play" }, { "$ref": "#/definitions/include" }] },
  "definitions": {
    "scalar": { "type": ["string", "number", "boolean"] },
    "texts": { "anyOf": [{ "$ref": "#/definitions/scalar" }, { "type": "array", "items": { "$ref": "#/definitions/scalar" } }] },
    "conditions": { "$ref": "#/definitions/texts" },
    "vars": { "type": "object" },
    "include": {
      "type": "object", "additionalProperties": false, "required": ["play"], "patternProperties": { "^x-": {} },
      "properties": { "play": { "type": "string" }, "name": { "type": "string" }, "vars": { "$ref": "#/definitions/vars" } }
    },
    "play": {
      "type": "object", "additionalProperties": false, "required": ["hosts", "steps"], "patternProperties": { "^x-": {} },
      "properties": {
        "name": { "type": "string" },
        "hosts": { "type": "string", "description": "pattern of hosts" },
        "tags": { "type": "array", "items": { "type": "string" } },
        "vars": { "$ref": "#/definitions/vars" },
        "strategy": {
          "type": "object", "additionalProperties": false, "patternProperties": { "^x-": {} },
          "properties": {
            "serial": { "$ref": "#/definitions/texts", "description": "sizes of batches: 5 or [1, 10%, 100%]" },
            "canary": { "type": "string", "description": "hosts that come first" },
            "pause": { "$ref": "#/definitions/scalar", "description": "time between batches" },
            "confirm": { "type": "boolean", "description": "ask before each batch but the first" },
            "max_fail": { "$ref": "#/definitions/scalar", "description": "hosts that may fail: 3 or 10%" },
            "on_failure": { "enum": ["revert", "keep"] },
            "retries": { "type": "integer", "minimum": 0, "maximum": 100 },
            "timeout": { "$ref": "#/definitions/scalar", "description": "of each host" }
          }
        },
        "steps": { "$ref": "#/definitions/steps" },
        "handlers": { "$ref": "#/definitions/steps" }
      }
    },
    "steps": { "type": ["array", "null"], "items": { "$ref": "#/definitions/step" } },
    "step": {
      "type": "object", "additionalProperties": false, "patternProperties": { "^x-": {} },
      "properties": {
`)
	var lines []string
	for _, c := range common {
		lines = append(lines, fmt.Sprintf(`        %q: { %s, "description": %s }`, c.Name, c.schema, quoted(c.Doc)))
	}
	for _, k := range Kinds {
		lines = append(lines, fmt.Sprintf(`        %q: { "description": %s, %s }`, k.Name, quoted(k.Doc), k.schema()))
	}
	b.WriteString(strings.Join(lines, ",\n"))
	b.WriteString("\n      }\n    }\n  }\n}\n")
	return []byte(b.String())
}

// quoted returns a text of the documentation as JSON.
func quoted(text string) string {
	b, err := json.Marshal(strings.ReplaceAll(text, "`", ""))
	if err != nil { // a string: cannot happen
		panic(err)
	}
	return string(b)
}

// schema returns what a step of the kind may be given.
func (k *Kind) schema() string {
	var props, required []string
	for _, p := range k.Params {
		form := `"$ref": "#/definitions/scalar"`
		switch {
		case p.Words != nil:
			form = `"enum": ["` + strings.Join(p.Words, `", "`) + `"]`
		case p.Form == TextList:
			form = `"type": "array", "items": { "$ref": "#/definitions/scalar" }`
		case p.Form == TextMap:
			form = `"type": "object"`
		case p.Form == Flag:
			form = `"type": "boolean"`
		case p.Form == Condition:
			form = `"$ref": "#/definitions/conditions"`
		}
		props = append(props, fmt.Sprintf(`%q: { %s, "description": %s }`, p.Name, form, quoted(p.Doc)))
		if p.Required {
			required = append(required, fmt.Sprintf("%q", p.Name))
		}
	}
	object := `{ "type": "object", "additionalProperties": false, "patternProperties": { "^x-": {} }, `
	if required != nil {
		object += `"required": [` + strings.Join(required, ", ") + `], `
	}
	forms := []string{object + `"properties": { ` + strings.Join(props, ", ") + " } }", `{ "$ref": "#/definitions/scalar" }`}
	if k.Words != "" || k.param(k.Main).Form == Condition {
		forms = append(forms, `{ "type": "array" }`)
	}
	if k.Bare {
		forms = append(forms, `{ "type": "null" }`)
	}
	return `"anyOf": [` + strings.Join(forms, ", ") + "]"
}

// Reference returns the reference of all steps in Markdown.
func Reference() string {
	var b strings.Builder
	b.WriteString("Every step has one key of the table of steps, and may have these:\n\n| key | what |\n|---|---|\n")
	for _, c := range common {
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.Name, c.Doc)
	}
	for _, k := range Kinds {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n```yaml\n- %s\n```\n\n| parameter | form | what |\n|---|---|---|\n", k.Name, k.Doc, strings.ReplaceAll(k.Example, "\n", "\n  "))
		for _, p := range k.Params {
			form := string(p.Form)
			if p.Words != nil {
				form = "`" + strings.Join(p.Words, "`, `") + "`"
			}
			name := "`" + p.Name + "`"
			if p.Required {
				name += " (required)"
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", name, form, p.Doc)
		}
		if k.Results != nil {
			b.WriteString("\nRegisters, besides `changed`, `failed`, `skipped` and `error`:")
			for i, f := range k.Results {
				sep := ";"
				if i == 0 {
					sep = ""
				}
				fmt.Fprintf(&b, "%s `%s` (%s)", sep, f.Name, f.Doc)
			}
			b.WriteString(".\n")
		}
	}
	return b.String()
}
