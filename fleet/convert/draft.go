package convert

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/inventory"
)

// Draft is a fleet.yml in the making.
type Draft struct {
	Source string // what it is made from, for its first line
	Left   []string

	top    block
	hosts  []*host
	groups []*group
}

// block holds the values that one place of a fleet.yml gives to hosts.
type block struct {
	ssh  map[string]string // by the keys of ssh, in the order of sshKeys
	vars map[string]any
}

type host struct {
	name, address string
	block
}

type group struct {
	name            string
	hosts, children []string
	block
}

// sshKeys are the keys of ssh that are written, in this order.
var sshKeys = []string{"user", "port", "identity", "jump", "known_hosts", "host_key_alias", "become", "become_method", "host_key", "config"}

func (d *Draft) leave(format string, args ...any) {
	d.Left = append(d.Left, fmt.Sprintf(format, args...))
}

// add adds a host, unless it conflicts with one that an inventory has already.
func (d *Draft) add(h *host) {
	if !inventory.IsHostName(h.name) {
		name := strings.Trim(strings.Map(nameRune, h.name), "-._")
		if !inventory.IsHostName(name) {
			d.leave("%s: no name that a pattern could hold", h.name)
			return
		}
		if h.address == "" {
			h.address = h.name
		}
		if _, err := netip.ParseAddr(h.name); err != nil {
			d.leave("%s: it is called %s here, as patterns could not name it", h.name, name)
		}
		h.name = name
	}
	for _, other := range d.hosts {
		switch {
		case other.name == h.name:
			d.leave("%s: it is there already", h.name)
			return
		case strings.EqualFold(other.where(), h.where()) && other.ssh["port"] == h.ssh["port"] && other.ssh["jump"] == h.ssh["jump"]:
			d.leave("%s: it is the same machine as %s, at %s", h.name, other.name, h.where())
			return
		}
	}
	d.hosts = append(d.hosts, h)
}

func (h *host) where() string {
	if h.address != "" {
		return h.address
	}
	return h.name
}

func nameRune(r rune) rune {
	if inventory.IsHostName("x" + string(r)) {
		return r
	}
	return '-'
}

// lift moves values that all hosts share to the top of the file, and values that all
// hosts of a group share to the group.
func (d *Draft) lift() {
	byName := map[string]*host{}
	for _, h := range d.hosts {
		byName[h.name] = h
	}
	liftTo(&d.top, d.hosts)
	members := map[*group][]*host{}
	for _, g := range d.groups {
		members[g] = d.members(g, byName, map[string]bool{})
	}
	largest := slices.SortedStableFunc(slices.Values(d.groups), func(a, b *group) int { return cmp.Compare(len(members[b]), len(members[a])) })
	for _, g := range largest {
		liftTo(&g.block, members[g])
	}
}

func (d *Draft) members(g *group, byName map[string]*host, seen map[string]bool) []*host {
	var list []*host
	for _, name := range g.hosts {
		if h := byName[name]; h != nil && !seen[name] {
			seen[name] = true
			list = append(list, h)
		}
	}
	for _, child := range g.children {
		for _, c := range d.groups {
			if c.name == child {
				list = append(list, d.members(c, byName, seen)...)
			}
		}
	}
	return list
}

// liftTo moves values that all given hosts share and that no setting of other hosts can
// override.
func liftTo(to *block, hosts []*host) {
	if len(hosts) < 2 {
		return
	}
	first := hosts[0]
	for _, key := range slices.Sorted(maps.Keys(first.ssh)) {
		if all(hosts, func(h *host) bool { return h.ssh[key] == first.ssh[key] }) {
			to.ssh = put(to.ssh, key, first.ssh[key])
			for _, h := range hosts[1:] {
				delete(h.ssh, key)
			}
			delete(first.ssh, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(first.vars)) {
		text := fmt.Sprintf("%#v", first.vars[key])
		if all(hosts, func(h *host) bool { v, ok := h.vars[key]; return ok && fmt.Sprintf("%#v", v) == text }) {
			to.vars = put(to.vars, key, first.vars[key])
			for _, h := range hosts[1:] {
				delete(h.vars, key)
			}
			delete(first.vars, key)
		}
	}
}

func all(hosts []*host, is func(*host) bool) bool {
	return !slices.ContainsFunc(hosts, func(h *host) bool { return !is(h) })
}

func put[V any](m map[string]V, key string, value V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[key] = value
	return m
}

// YAML returns the text of the fleet.yml.
func (d *Draft) YAML() ([]byte, error) {
	root := mapping()
	if len(d.top.ssh) > 0 {
		ssh := mapping()
		d.top.sshTo(ssh)
		set(root, "ssh", ssh)
	}
	if len(d.top.vars) > 0 {
		vars, err := encode(d.top.vars)
		if err != nil {
			return nil, err
		}
		set(root, "vars", vars)
	}
	hosts := mapping()
	for _, h := range d.hosts {
		n := mapping()
		if len(h.vars) == 0 {
			n.Style = yaml.FlowStyle // one line
		}
		if h.address != "" && h.address != h.name {
			set(n, "address", text(h.address))
		}
		if err := h.block.to(n); err != nil {
			return nil, err
		}
		set(hosts, h.name, n)
	}
	set(root, "hosts", hosts)
	groups := mapping()
	for _, g := range d.groups {
		n := mapping()
		if len(g.hosts) > 0 {
			set(n, "hosts", list(g.hosts))
		}
		if len(g.children) > 0 {
			set(n, "children", list(g.children))
		}
		if len(g.ssh) > 0 {
			ssh := mapping()
			g.sshTo(ssh)
			set(n, "ssh", ssh)
		}
		if err := (&block{vars: g.vars}).to(n); err != nil {
			return nil, err
		}
		set(groups, g.name, n)
	}
	if len(d.groups) > 0 {
		set(root, "groups", groups)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Made from %s by vsfleet inventory import.\n", strings.ReplaceAll(d.Source, "\n", " "))
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// to adds ssh keys and variables to a mapping.
func (b *block) to(n *yaml.Node) error {
	b.sshTo(n)
	if len(b.vars) == 0 {
		return nil
	}
	vars, err := encode(b.vars)
	if err == nil {
		set(n, "vars", vars)
	}
	return err
}

func (b *block) sshTo(n *yaml.Node) {
	for _, key := range sshKeys {
		value := b.ssh[key]
		if value == "" {
			continue
		}
		v := text(value)
		if key == "port" || key == "become" {
			v = &yaml.Node{Kind: yaml.ScalarNode, Value: value}
		}
		set(n, key, v)
	}
}

func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} }

func set(n *yaml.Node, key string, value *yaml.Node) {
	n.Content = append(n.Content, text(key), value)
}

// text returns a text node, in quotes if YAML 1.1 or 1.2 would read it as another type.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func list(names []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, name := range names {
		n.Content = append(n.Content, text(name))
	}
	return n
}

// number is a number as it was written, which the YAML encoder might change.
type number string

// encode returns variables as nodes.
func encode(value any) (*yaml.Node, error) {
	switch v := value.(type) {
	case number:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: string(v)}, nil
	case string:
		return quoted(v), nil
	case float64:
		s := strconv.FormatFloat(v, 'f', -1, 64)
		if v == math.Trunc(v) {
			s += ".0" // else it would be an integer
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Value: s}, nil
	case map[string]any:
		n := mapping()
		for _, k := range slices.Sorted(maps.Keys(v)) {
			item, err := encode(v[k])
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, quoted(k), item)
		}
		return n, nil
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, one := range v {
			item, err := encode(one)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		return n, nil
	}
	n := &yaml.Node{}
	return n, n.Encode(value)
}
