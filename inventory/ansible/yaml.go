package ansible

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// ReadYAML reads an inventory in Ansible's YAML: groups by name, each with hosts,
// vars and children.
func ReadYAML(root *yaml.Node) *Inventory {
	r := &yamlReader{inv: newInventory()}
	r.values = NewValues(&r.inv.Problems).Expect(root)
	r.values.pairs(root, 0, func(k, v *yaml.Node) { r.group(k, v, 0) })
	return r.inv
}

type yamlReader struct {
	inv    *Inventory
	values *Values
}

// group reads a group and returns it, or nil.
func (r *yamlReader) group(k, v *yaml.Node, depth int) *Group {
	v = target(v)
	if k.Tag == "!!int" || k.Tag == "!!float" || k.Tag == "!!bool" || k.Tag == "!!null" {
		if _, text := scalar(k).(string); !text {
			r.inv.fail(at(k), "put it in quotes", "group %s: a group's name is text", k.Value)
			return nil
		}
	}
	if !isNull(v) && v.Kind != yaml.MappingNode {
		r.inv.warn(at(v), "", "group %s: want a mapping with hosts, vars and children, have %s: it is left out, as in Ansible", k.Value, kind(v))
		return nil
	}
	if r.values.nodes++; r.values.exhausted(k, depth) {
		return nil
	}
	g := r.inv.group(k.Value, at(k))
	g.Declared = true
	if isNull(v) {
		return g
	}
	r.values.pairs(v, depth, func(section, body *yaml.Node) {
		body = target(body)
		known := slices.Contains([]string{"hosts", "vars", "children"}, section.Value)
		if one, text := scalar(body).(string); known && text && body.Kind == yaml.ScalarNode { // "hosts: web1"
			body = &yaml.Node{Kind: yaml.MappingNode, Line: body.Line, Column: body.Column, Content: []*yaml.Node{
				{Kind: yaml.ScalarNode, Tag: "!!str", Value: one, Style: yaml.DoubleQuotedStyle, Line: body.Line, Column: body.Column},
				{Kind: yaml.ScalarNode, Tag: "!!null", Line: body.Line, Column: body.Column},
			}}
		}
		switch {
		case isNull(body):
		case !known:
			r.inv.warn(at(section), "a group has hosts, vars and children; groups in a group go below children", "group %s: %q is left out, as in Ansible", k.Value, section.Value)
		case body.Kind != yaml.MappingNode:
			hint := ""
			if body.Kind == yaml.SequenceNode {
				hint = "in YAML, Ansible wants each on a line of its own with a colon behind: web1:"
			}
			r.inv.fail(at(body), hint, "group %s: %s: want a mapping, have %s", k.Value, section.Value, kind(body))
		case section.Value == "vars":
			r.values.pairs(body, depth, func(name, value *yaml.Node) { g.Vars[keyText(name)] = r.values.Var(name, value) })
		case section.Value == "hosts":
			r.values.pairs(body, depth, func(name, value *yaml.Node) { r.hosts(g, name, value) })
		default:
			r.values.pairs(body, depth, func(name, value *yaml.Node) {
				if child := r.group(name, value, depth+1); child != nil {
					g.Children = append(g.Children, Child{child.Name, at(name)})
				}
			})
		}
	})
	return g
}

func (r *yamlReader) hosts(g *Group, name, value *yaml.Node) {
	if _, text := scalar(name).(string); !text {
		r.inv.fail(at(name), "put it in quotes", "host %s: a host's name is text", name.Value)
		return
	}
	if vars, ok := r.values.Mapping("host "+name.Value, value); ok {
		r.inv.addHosts(name.Value, at(name), g, vars)
	}
}
