package inventory

import (
	"fmt"
	"net/netip"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/ansible"
	"github.com/vsfleet/vsfleet/inventory/secret"
)

// merge adds an Ansible source. Its values for hosts and groups that other sources have
// too override theirs.
func (b *builder) merge(file string, inv *ansible.Inventory) {
	m := &merger{builder: b, file: file}
	m.problems(inv.Problems)
	for _, h := range inv.Hosts {
		m.host(h)
	}
	for _, g := range inv.Groups {
		m.group(g)
	}
	m.undeclared(inv)
}

// merger is what merges one source.
type merger struct {
	*builder
	file string
}

// problems reports mistakes in the source.
func (m *merger) problems(list []ansible.Problem) {
	for _, p := range list {
		if p.Warning {
			m.Warn(m.at(p.Pos), p.Hint, "%s", p.Msg)
		} else {
			m.Add(m.at(p.Pos), p.Hint, "%s", p.Msg)
		}
	}
}

func (m *merger) at(p ansible.Pos) Position {
	return Position{File: m.file, Line: p.Line, Column: p.Column}
}

// layer returns variables as a layer.
func (m *merger) layer(vars map[string]ansible.Var) layer {
	l := layer{}
	if len(vars) > 0 {
		l.vars = make(map[string]Var, len(vars))
	}
	for name, v := range vars {
		if sealed, ok := v.Value.(ansible.Sealed); ok {
			m.sealed(&l, name, v.Pos, sealed)
			continue
		}
		l.vars[name] = Var{Value: v.Value, Text: v.Text, From: m.at(v.Pos), Secret: isPassword(name), foreign: true}
	}
	return l
}

// sealed adds a variable that is encrypted.
func (m *merger) sealed(l *layer, name string, at ansible.Pos, sealed ansible.Sealed) {
	v, err := secret.New(m.at(sealed.Pos), []byte(sealed.Armored))
	if err != nil {
		notSealed(&m.report, name, m.at(sealed.Pos), err)
		return
	}
	l.vars[name] = Var{Value: v, From: m.at(at), Secret: true}
}

func (m *merger) host(h *ansible.Host) {
	pos := m.at(h.Pos)
	if err := checkName(yamlpos.Short(h.Name), maxHostName); err != nil {
		hint := ""
		if _, bad := netip.ParseAddr(h.Name); bad == nil {
			hint = fmt.Sprintf("a pattern could not name it: give it a name, and ansible_host=%s", h.Name)
		}
		m.Add(pos, hint, "host %v", err)
		return
	}
	if h.Name == "all" {
		m.Add(pos, "name it otherwise", `"all" means every host`)
		return
	}
	i, _ := m.addHost(h.Name, pos)
	m.specs[i] = m.specs[i].with(&hostSpec{layer: m.layer(h.Vars)})
}

func (m *merger) group(g *ansible.Group) {
	l := m.layer(g.Vars)
	switch g.Name {
	case "all":
		m.top.add(&l)
		return
	case "ungrouped":
		m.ungrouped.add(&l)
		if len(g.Children) > 0 {
			m.Add(m.at(g.Children[0].Pos), "name it otherwise", `"ungrouped" means every host in no group, and has no children`)
		}
		return
	}
	if err := checkName(yamlpos.Short(g.Name), maxName); err != nil {
		m.Add(m.at(g.Pos), "", "group %v", err)
		return
	}
	spec := m.groupAt[g.Name]
	if spec == nil {
		spec = &groupSpec{name: g.Name, pos: m.at(g.Pos)}
		m.addGroup(spec)
	}
	spec.declared = spec.declared || g.Declared
	if v, ok := l.vars["ansible_group_priority"]; ok {
		delete(l.vars, "ansible_group_priority")
		n, whole := v.Value.(int64)
		if spec.priority = int(n); !whole {
			m.Add(v.From, "", "ansible_group_priority: want a whole number, have %q", yamlpos.Short(v.Text))
		}
	}
	spec.add(&l)
	for _, name := range g.Hosts {
		if i, ok := m.inv.hosts.index[name]; ok { // else it was refused
			spec.direct = append(spec.direct, i)
		}
	}
	for _, child := range g.Children {
		switch child.Name {
		case "all", "ungrouped":
			m.Add(m.at(child.Pos), "", "group %q cannot be in another group", child.Name)
		default:
			spec.children = append(spec.children, text{Value: child.Name, Pos: m.at(child.Pos)})
		}
	}
}

// undeclared reports groups that have variables or a parent in this source, but are
// declared neither there nor in an earlier source.
func (m *merger) undeclared(inv *ansible.Inventory) {
	for _, g := range inv.Groups {
		spec := m.groupAt[g.Name]
		if spec == nil || spec.declared || spec.ours {
			continue
		}
		var known []string
		for _, other := range m.groups {
			if other.declared || other.ours {
				known = append(known, other.name)
			}
		}
		m.Add(m.at(g.Pos), m.DidYouMean(g.Name, known), "there is no group %q", g.Name)
		spec.declared = true // reported
	}
}
