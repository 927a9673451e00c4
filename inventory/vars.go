package inventory

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/ansible"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

// Var is the value of a variable of a host.
type Var struct {
	// Value is nil, bool, int64, float64, string, ansible.Vault, secret.Value, []any
	// or map[string]any. It is not to be changed: many hosts share it.
	Value any
	Text  string   // a scalar as it was written, as ${vars.NAME} gives it: 1.10 stays 1.10
	From  Position // where it was given, in the last place that gives it
	// Secret values are never shown.
	Secret bool

	foreign bool // given by a source of Ansible, so it may hold {{ … }}
}

// Text returns a variable that holds a text.
func Text(s string) Var { return Var{Value: s, Text: s} }

// IsScalar reports whether the value is one text, number or boolean, or nothing.
func (v Var) IsScalar() bool {
	switch v.Value.(type) {
	case []any, map[string]any, ansible.Vault, ansible.Sealed, secret.Value:
		return false
	}
	return true
}

// String returns the value for a person: a scalar as it was written, else JSON.
func (v Var) String() string {
	if v.IsScalar() && !v.Secret {
		return v.Text
	}
	data, err := v.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return strings.Trim(string(data), `"`)
}

// kind describes the type of a value that is not a scalar.
func (v Var) kind() string {
	switch v.Value.(type) {
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	case secret.Value, ansible.Sealed:
		return "encrypted"
	}
	return "encrypted by ansible-vault"
}

// MarshalJSON returns the value. A number is as it was written if JSON can represent
// it.
func (v Var) MarshalJSON() ([]byte, error) {
	if v.Secret {
		return json.Marshal(secret.Redacted)
	}
	switch value := v.Value.(type) {
	case int64, float64:
		if number := json.Number(v.Text); json.Valid([]byte(v.Text)) {
			return json.Marshal(number)
		}
		if f, ok := value.(float64); ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
			return json.Marshal(v.Text)
		}
	}
	return json.Marshal(finite(v.Value))
}

// finite returns a value in which numbers that JSON cannot represent are texts.
func finite(value any) any {
	switch v := value.(type) {
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return fmt.Sprint(v)
		}
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = finite(item)
		}
		return list
	case map[string]any:
		m := maps.Clone(v)
		for k, item := range m {
			m[k] = finite(item)
		}
		return m
	}
	return value
}

// hostVars reads variables. Their values cannot hold variables, whose order of
// expansion would be hidden.
func (d *decoder) hostVars(to *map[string]Var) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		*to = map[string]Var{}
		values := d.values().Expect(n)
		d.Entries(name, n, "a mapping of names to values, as {domain: example.net}", func(k text, v *yaml.Node) {
			v = yamlpos.Target(v)
			if isSecret(v) {
				if sealed, ok := d.secret(k.Value, v); ok && d.goodName(name, k) {
					(*to)[k.Value] = Var{Value: sealed, From: k.Pos, Secret: true}
				}
				return
			}
			if v.Kind == yaml.ScalarNode && (yamlpos.IsNull(v) || yamlpos.HasForeignTag(v)) {
				d.Wrong(k.Value, v, "a text, a number, a list or a mapping")
				return
			}
			if !d.goodName(name, k) {
				return
			}
			read := values.Var(&yaml.Node{Line: k.Pos.Line, Column: k.Pos.Column}, v)
			if anyText(read.Value, hasVariable) {
				d.Add(d.At(v), "", "%s: %s holds ${, but a variable's value is not expanded", name, k.Value)
				return
			}
			(*to)[k.Value] = Var{Value: read.Value, Text: read.Text, From: k.Pos}
		})
		d.problems()
	}
}

// goodName reports whether a name is valid for a variable.
func (d *decoder) goodName(what string, k text) bool {
	err := checkName(k.Value, maxName)
	if err != nil {
		d.Add(k.Pos, "", "%s: %v", what, err)
	}
	return err == nil
}

// values returns a reader of this file's values. problems reports the mistakes that it
// finds.
func (d *decoder) values() *ansible.Values {
	if d.reader == nil {
		d.reader = ansible.NewValues(&d.found)
	}
	return d.reader
}

func (d *decoder) problems() {
	for _, p := range d.found {
		d.Add(Position{File: d.File, Line: p.Line, Column: p.Column}, p.Hint, "%s", p.Msg)
	}
	d.found = d.found[:0]
}

// anyText reports whether is returns true for any text in a value.
func anyText(value any, is func(string) bool) bool {
	switch v := value.(type) {
	case string:
		return is(v)
	case []any:
		for _, item := range v {
			if anyText(item, is) {
				return true
			}
		}
	case map[string]any:
		for k, item := range v {
			if is(k) || anyText(item, is) {
				return true
			}
		}
	}
	return false
}

// isPassword reports whether a variable of Ansible holds a password by its name.
func isPassword(name string) bool {
	return strings.HasPrefix(name, "ansible_") && (strings.HasSuffix(name, "_pass") || strings.HasSuffix(name, "_password") || name == "ansible_password")
}
