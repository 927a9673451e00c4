package ansible

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
)

// IsList reports whether a document is what an inventory program prints for
// --list: it has hosts' variables below _meta, or a group that is a list or has a
// list of hosts.
func IsList(root *yaml.Node) bool {
	for i := 0; i+1 < len(root.Content); i += 2 {
		v := target(root.Content[i+1])
		if root.Content[i].Value == "_meta" && v.Kind == yaml.MappingNode {
			return true
		}
	}
	return false
}

// ReadList reads what an inventory program prints for --list. The second result
// reports whether it has the variables of all hosts: else the program is to be
// asked for them with --host, one by one.
func ReadList(root *yaml.Node) (*Inventory, bool) {
	inv := newInventory()
	if root.Kind != yaml.MappingNode {
		inv.fail(at(root), "", "want an object with a member for each group, have %s", kind(root))
		return inv, true
	}
	values := NewValues(&inv.Problems).Expect(root)
	var meta *yaml.Node
	values.pairs(root, 0, func(k, v *yaml.Node) {
		if v = target(v); k.Value != "_meta" {
			inv.listGroup(values, k, v)
			return
		}
		if v.Kind == yaml.MappingNode {
			values.pairs(v, 0, func(k, v *yaml.Node) {
				if k.Value == "hostvars" {
					meta = target(v)
				}
			})
		}
	})
	if meta == nil {
		return inv, false
	}
	if meta.Kind != yaml.MappingNode {
		inv.fail(at(meta), "", "_meta: hostvars: want an object with a member for each host, have %s", kind(meta))
		return inv, true
	}
	values.pairs(meta, 0, func(k, v *yaml.Node) {
		if h := inv.hosts[k.Value]; h != nil { // others are in no group, and left out by Ansible too
			inv.hostVars(values, h, v)
		}
	})
	return inv, true
}

// ReadHost adds what a program prints for --host to the host's variables.
func (inv *Inventory) ReadHost(h *Host, root *yaml.Node) {
	inv.hostVars(NewValues(&inv.Problems).Expect(root), h, root)
}

func (inv *Inventory) hostVars(values *Values, h *Host, n *yaml.Node) {
	if vars, ok := values.Mapping("host "+h.Name, n); ok {
		for name, v := range vars {
			h.Vars[name] = v
		}
	}
}

func (inv *Inventory) listGroup(values *Values, k, v *yaml.Node) {
	g := inv.group(k.Value, at(k))
	g.Declared = true
	if v.Kind != yaml.MappingNode {
		inv.listHosts(g, v)
		return
	}
	sections := map[string]*yaml.Node{}
	values.pairs(v, 0, func(k, v *yaml.Node) { sections[k.Value] = target(v) })
	hosts, children, vars := sections["hosts"], sections["children"], sections["vars"]
	if hosts == nil && children == nil && vars == nil && len(sections) > 0 { // the short form of one host
		h := inv.host(g.Name, at(k), g)
		inv.hostVars(values, h, v)
		return
	}
	if hosts != nil {
		inv.listHosts(g, hosts)
	}
	if vars != nil {
		if set, ok := values.Mapping("group "+g.Name+": vars", vars); ok {
			for name, v := range set {
				g.Vars[name] = v
			}
		}
	}
	if children != nil {
		for _, name := range inv.names(g, "children", children) {
			inv.group(name.Value, at(name)).Declared = true
			g.Children = append(g.Children, Child{name.Value, at(name)})
		}
	}
}

func (inv *Inventory) listHosts(g *Group, n *yaml.Node) {
	for _, name := range inv.names(g, "hosts", n) {
		inv.host(name.Value, at(name), g)
	}
}

func (inv *Inventory) names(g *Group, what string, n *yaml.Node) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		inv.fail(at(n), "", "group %s: %s: want a list, have %s", g.Name, what, kind(n))
		return nil
	}
	return slices.DeleteFunc(slices.Clone(n.Content), func(name *yaml.Node) bool {
		if _, text := scalar(name).(string); text && name.Kind == yaml.ScalarNode {
			return false
		}
		inv.fail(at(name), "", "group %s: %s: want a name, have %s", g.Name, what, kind(name))
		return true
	})
}

// maxJSONDepth limits how deeply a program may nest what it prints.
const maxJSONDepth = 100

// ParseJSON returns a JSON text as nodes, with their lines and columns. A member
// that is there twice stays: the last one counts.
func ParseJSON(data []byte) (*yaml.Node, error) {
	p := &jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data)), pos: Pos{1, 1}}
	p.dec.UseNumber()
	n, err := p.value(0)
	if err == nil {
		switch _, extra := p.dec.Token(); {
		case extra == nil:
			err = errors.New("something follows the object")
		case !errors.Is(extra, io.EOF):
			err = extra
		}
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it ends too early")
		}
		p.advance()
		return nil, fmt.Errorf("line %d, column %d: %w", p.pos.Line, p.pos.Column, err)
	}
	return n, nil
}

type jsonParser struct {
	data   []byte
	dec    *json.Decoder
	offset int
	pos    Pos // of offset
}

// advance moves pos to where the decoder is, past what stands between tokens.
func (p *jsonParser) advance() {
	to := min(int(p.dec.InputOffset()), len(p.data))
	for to < len(p.data) && bytes.IndexByte([]byte(" \t\r\n,:"), p.data[to]) >= 0 {
		to++
	}
	for _, c := range p.data[p.offset:max(to, p.offset)] {
		if p.pos.Column++; c == '\n' {
			p.pos = Pos{p.pos.Line + 1, 1}
		}
	}
	p.offset = max(to, p.offset)
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	if depth > maxJSONDepth {
		return nil, errors.New("it is nested too deeply")
	}
	p.advance()
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.pos.Line, Column: p.pos.Column}
	token, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if t == '{' {
			n.Kind = yaml.MappingNode
		}
		for p.dec.More() {
			item, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		_, err = p.dec.Token()
		return n, err
	case string:
		n.Value, n.Tag, n.Style = t, "!!str", yaml.DoubleQuotedStyle
	case json.Number:
		n.Value, n.Tag = t.String(), "!!int"
		if bytes.ContainsAny([]byte(t), ".eE") {
			n.Tag, n.Style = "!!float", yaml.TaggedStyle
		}
	case bool:
		n.Value, n.Tag = fmt.Sprint(t), "!!bool"
	default:
		n.Value, n.Tag = "null", "!!null"
	}
	return n, nil
}
