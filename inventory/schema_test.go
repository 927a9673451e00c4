package inventory

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// schemaNode is as much of a JSON Schema as schema.json uses.
type schemaNode struct {
	Ref                  string                 `json:"$ref"`
	Types                any                    `json:"type"`
	Properties           map[string]*schemaNode `json:"properties"`
	AdditionalProperties json.RawMessage        `json:"additionalProperties"`
	PatternProperties    map[string]*schemaNode `json:"patternProperties"`
	PropertyNames        *schemaNode            `json:"propertyNames"`
	Required             []string               `json:"required"`
	Items                *schemaNode            `json:"items"`
	MinItems             int                    `json:"minItems"`
	MinLength            int                    `json:"minLength"`
	Pattern              string                 `json:"pattern"`
	Enum                 []any                  `json:"enum"`
	AnyOf                []*schemaNode          `json:"anyOf"`
	Minimum, Maximum     *float64
	Not                  *schemaNode            `json:"not"`
	Definitions          map[string]*schemaNode `json:"definitions"`
	Title, Description   string
	Schema               string `json:"$schema"`
}

func readSchema(t *testing.T) *schemaNode {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(Schema())))
	dec.DisallowUnknownFields() // a word that this test does not know is not tested
	root := &schemaNode{}
	if err := dec.Decode(root); err != nil {
		t.Fatal(err)
	}
	return root
}

// follow replaces a $ref by what it names.
func (root *schemaNode) follow(n *schemaNode) *schemaNode {
	for n.Ref != "" {
		n = root.Definitions[strings.TrimPrefix(n.Ref, "#/definitions/")]
	}
	return n
}

// TestSchemaAndLoaderKnowTheSameKeys puts a key that nobody knows into every
// mapping of the schema and reads from the loader's hint which it does know.
func TestSchemaAndLoaderKnowTheSameKeys(t *testing.T) {
	root := readSchema(t)
	var walk func(path []string, n *schemaNode)
	tested := 0
	walk = func(path []string, n *schemaNode) {
		n = root.follow(n)
		if n.Properties != nil {
			tested++
			want := sortedKeys(n.Properties)
			text := ""
			for _, key := range path {
				text += "{" + key + ": "
			}
			text += "{qqqqqqqqqqqqqqqq: 1}" + strings.Repeat("}", len(path))
			_, err := load(t, text)
			if err == nil {
				t.Fatalf("%s was read", text)
			}
			_, known, ok := strings.Cut(err.Error(), `unknown key "qqqqqqqqqqqqqqqq" (known here: `)
			known, _, _ = strings.Cut(known, ")")
			if got := strings.Split(known, ", "); !ok || !slices.Equal(got, want) {
				t.Errorf("in %s the loader knows %s\nand the schema %s", text, got, want)
			}
			for _, key := range want {
				walk(append(slices.Clone(path), key), n.Properties[key])
			}
		}
		var rest schemaNode
		if err := json.Unmarshal(n.AdditionalProperties, &rest); err == nil && rest.Ref != "" {
			walk(append(slices.Clone(path), "name"), &rest)
		}
		for _, branch := range n.AnyOf {
			walk(path, branch)
		}
	}
	walk(nil, root)
	if tested != 15 {
		t.Errorf("%d mappings were compared, want 15", tested)
	}
}

func TestSchemaAllowsWhatTheLoaderReads(t *testing.T) {
	root := readSchema(t)
	files, err := filepath.Glob("testdata/*.yml")
	if err != nil || files == nil {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := root.check(t, string(data)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := root.check(t, "x-a: [1]\nhosts: {a: {x-b: c}}\nimages: {i: {method: template, files: {/etc/a: {content: 1, mode: 0600, owner: www-data, secret: true}}}}"); err != nil {
		t.Errorf("keys for anchors, and files: %v", err)
	}
}

func TestSchemaAndLoaderRefuseTheSame(t *testing.T) {
	root := readSchema(t)
	for _, text := range []string{
		"hosts: [a]", "host: {}", "hosts: {a: {port: 0}}", "hosts: {a: {port: x}}", "hosts: {a: {become: 1}}", "hosts: {a: {adress: b}}",
		"hosts: {_a: {}}", "hosts: {a: {user: -x}}", "hosts: {a: {labels: {b: [c]}}}", "hosts: {a: {labels: {b: 'c,d'}}}", "hosts: {a: {netdev: a/b}}",
		"groups: {g: {}}", "groups: {g: {hosts: []}}", "images: {i: {}}", "images: {i: {method: magic}}", "images: {i: {method: template, args: a}}",
		"guests: {g: {on: a}}", "guests: {g: {image: a}}", base + "  g: {on: h1, image: deb, context: 1}", base + "  g: {on: h1, image: deb, state: up}",
		base + "  g: {on: h1, image: deb, init: sysv}", base + "  g: {on: h1, image: deb, init: {command: []}}", base + "  g: {on: h1, image: deb, init: {command: a}}",
		base + "  g: {on: h1, image: deb, limits: {disk: 1G}}", base + "  g: {on: h1, image: deb, network: {mode: x}}", base + "  g: {on: h1, image: deb, network: {ports: 80}}",
		base + "  g: {on: h1, image: deb, files: {etc/x: {content: a}}}", base + "  g: {on: h1, image: deb, files: {/etc/x: {mode: 0644}}}",
		base + "  g: {on: h1, image: deb, health: []}", base + "  g: {on: h1, image: deb, health: {deadline: 1m}}", base + "  g: {on: h1, image: deb, health: [{ready: false}]}",
		base + "  g: {on: h1, image: deb, health: [{tpc: 80}]}", "rollout: {serial: []}", "rollout: {max_fail: some}", "rollout: {on_failure: stop}", "rollout: {retries: -1}",
		base + "  g: {on: h1, image: deb, files: {/etc/x: {content: a, on_change: reload}}}", base + "  g: {on: h1, image: deb, files: {/etc/x: {content: a, on_change: []}}}",
	} {
		if _, err := load(t, text); err == nil {
			t.Errorf("the loader reads %s", text)
		}
		if root.check(t, text) == nil {
			t.Errorf("the schema allows %s", text)
		}
	}
}

// check validates a YAML text.
func (root *schemaNode) check(t *testing.T, text string) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return root.valid(root, v, "")
}

func (root *schemaNode) valid(n *schemaNode, v any, at string) error {
	n = root.follow(n)
	if n.Types != nil && !slices.ContainsFunc(typesOf(v), func(have string) bool {
		return strings.Contains(fmt.Sprint(n.Types), have)
	}) {
		return fmt.Errorf("%s: %v is not of type %v", at, v, n.Types)
	}
	if n.Enum != nil && !slices.Contains(n.Enum, v) {
		return fmt.Errorf("%s: %v is not one of %v", at, v, n.Enum)
	}
	if n.Not != nil && root.valid(n.Not, v, at) == nil {
		return fmt.Errorf("%s: not allowed", at)
	}
	if n.AnyOf != nil && !slices.ContainsFunc(n.AnyOf, func(branch *schemaNode) bool { return root.valid(branch, v, at) == nil }) {
		return fmt.Errorf("%s: %v is none of what it may be", at, v)
	}
	switch v := v.(type) {
	case string:
		if len(v) < n.MinLength || !regexp.MustCompile(n.Pattern).MatchString(v) {
			return fmt.Errorf("%s: %q does not match %q", at, v, n.Pattern)
		}
	case int:
		if n.Minimum != nil && float64(v) < *n.Minimum || n.Maximum != nil && float64(v) > *n.Maximum {
			return fmt.Errorf("%s: %d is out of range", at, v)
		}
	case []any:
		if len(v) < n.MinItems {
			return fmt.Errorf("%s: too short", at)
		}
		for i, item := range v {
			if n.Items != nil {
				if err := root.valid(n.Items, item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
					return err
				}
			}
		}
	case map[string]any:
		return root.validObject(n, v, at)
	}
	return nil
}

func (root *schemaNode) validObject(n *schemaNode, v map[string]any, at string) error {
	for _, key := range n.Required {
		if _, ok := v[key]; !ok {
			return fmt.Errorf("%s: %s is missing", at, key)
		}
	}
	for _, key := range sortedKeys(v) {
		if n.PropertyNames != nil {
			if err := root.valid(n.PropertyNames, key, at); err != nil {
				return err
			}
		}
		property := n.Properties[key]
		for pattern, other := range n.PatternProperties {
			if property == nil && regexp.MustCompile(pattern).MatchString(key) {
				property = other
			}
		}
		switch {
		case property != nil:
		case string(n.AdditionalProperties) == "false":
			return fmt.Errorf("%s: unknown key %s", at, key)
		case n.AdditionalProperties != nil:
			property = &schemaNode{}
			if err := json.Unmarshal(n.AdditionalProperties, property); err != nil {
				return err
			}
		default:
			continue
		}
		if err := root.valid(property, v[key], at+"."+key); err != nil {
			return err
		}
	}
	return nil
}

// typesOf are the types of JSON Schema that a value has.
func typesOf(v any) []string {
	switch v.(type) {
	case nil:
		return []string{"null"}
	case bool:
		return []string{"boolean"}
	case int:
		return []string{"integer", "number"}
	case float64:
		return []string{"number"}
	case string:
		return []string{"string"}
	case []any:
		return []string{"array"}
	}
	return []string{"object"}
}
