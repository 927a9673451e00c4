package inventory

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
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
	files, err := filepath.Glob("testdata/*.yml")
	if err != nil || files == nil {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(t, string(data)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := check(t, "x-a: [1]\nhosts: {a: {x-b: c}}\nimages: {i: {method: template, files: {/etc/a: {content: 1, mode: 0600, owner: www-data, secret: true}}}}"); err != nil {
		t.Errorf("keys for anchors, and files: %v", err)
	}
}

func TestSchemaAndLoaderRefuseTheSame(t *testing.T) {
	for _, text := range []string{
		"hosts: [a]", "host: {}", "hosts: {a: {port: 0}}", "hosts: {a: {port: x}}", "hosts: {a: {become: 1}}", "hosts: {a: {adress: b}}",
		"hosts: {_a: {}}", "hosts: {a: {user: -x}}", "hosts: {a: {labels: {b: [c]}}}", "hosts: {a: {labels: {b: 'c,d'}}}", "hosts: {a: {netdev: a/b}}",
		"groups: {g: {}}", "groups: {g: {hosts: []}}", "images: {i: {}}", "images: {i: {method: magic}}", "images: {i: {method: template, args: a}}",
		"guests: {g: {on: a}}", "guests: {g: {image: a}}", base + "  g: {on: h1, image: deb, context: 1}", base + "  g: {on: h1, image: deb, state: up}",
		base + "  g: {on: h1, image: deb, init: upstart}", base + "  g: {on: h1, image: deb, init: {command: []}}", base + "  g: {on: h1, image: deb, init: {command: a}}",
		base + "  g: {on: h1, image: deb, limits: {disk_hard: 1G}}", base + "  g: {on: h1, image: deb, network: {mode: x}}", base + "  g: {on: h1, image: deb, network: {ports: 80}}",
		base + "  g: {on: h1, image: deb, files: {etc/x: {content: a}}}", base + "  g: {on: h1, image: deb, files: {/etc/x: {mode: 0644}}}",
		base + "  g: {on: h1, image: deb, health: []}", base + "  g: {on: h1, image: deb, health: {deadline: 1m}}", base + "  g: {on: h1, image: deb, health: [{ready: false}]}",
		base + "  g: {on: h1, image: deb, health: [{tpc: 80}]}", "rollout: {serial: []}", "rollout: {max_fail: some}", "rollout: {on_failure: stop}", "rollout: {retries: -1}",
		base + "  g: {on: h1, image: deb, files: {/etc/x: {content: a, on_change: reload}}}", base + "  g: {on: h1, image: deb, files: {/etc/x: {content: a, on_change: []}}}",
		base + "  g: {on: h1, image: deb, credentials: {a/b: x}}", base + "  g: {on: h1, image: deb, credentials: {a~: x}}", base + "  g: {on: h1, image: deb, credentials: {a: {}}}",
		base + "  g: {on: h1, image: deb, hooks: {poststart: x}}", base + "  g: {on: h1, image: deb, hooks: {post-start: {}}}", base + "  g: {on: h1, image: deb, hooks: {post-start: [x]}}",
	} {
		if _, err := load(t, text); err == nil {
			t.Errorf("the loader reads %s", text)
		}
		if check(t, text) == nil {
			t.Errorf("the schema allows %s", text)
		}
	}
}

// check validates a YAML text.
func check(t *testing.T, text string) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return compiled().Validate(v)
}

// compiled is the schema as editors use it.
var compiled = sync.OnceValue(func() *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("fleet.schema.json", doc); err != nil {
		panic(err)
	}
	return c.MustCompile("fleet.schema.json")
})
