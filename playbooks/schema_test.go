package playbooks

import (
	"bytes"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// What the loader takes an editor takes as well, and it marks unknown keys.
func TestTheSchemaAgreesWithTheLoader(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("playbook.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema := c.MustCompile("playbook.schema.json")
	valid := func(text string) error {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return schema.Validate(v)
	}
	texts := map[string]string{}
	for _, s := range AllShipped() {
		texts[s.Name] = s.Text
	}
	for _, k := range Kinds {
		texts["example of "+k.Name] = steps("- " + strings.ReplaceAll(k.Example, "\n", "\n  ") + "\n")
	}
	for name, text := range texts {
		if err := valid(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{
		"- host: all\n  steps: []\n", steps("- exek: [a]\n"), steps("- copy: {to: /a, contnet: b}\n"),
		steps("- guest: {name: www, do: strat}\n"), "- hosts: all\n  strategy: {serail: 1}\n  steps: []\n", steps("- template: {source: a}\n"),
	} {
		if _, err := load(text); err == nil {
			t.Errorf("the loader takes\n%s", text)
		}
		if valid(text) == nil {
			t.Errorf("the schema takes\n%s", text)
		}
	}
}
