package inventory

import (
	"cmp"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
)

// groupSpec is a group as written in the sources.
type groupSpec struct {
	name string
	pos  Position
	layer
	files    layer // of group_vars
	hosts    []text
	children []text
	priority int // among groups of one depth: ansible_group_priority
	protect  given[bool]
	ours     bool // a file of ours has it, so that a second one may not
	empty    bool // that file gives it neither hosts nor children
	declared bool // a source of Ansible has it, which needs no hosts

	parents []*groupSpec
	direct  []int  // hosts that a source of Ansible names, by index
	members []bool // by index in Inventory.Hosts
	depth   int    // 1 plus that of the deepest parent; 0 if not known yet
	walking bool
}

// group reads one entry of groups.
func (b *builder) group(d *decoder, k text, v *yaml.Node) {
	g := &groupSpec{name: k.Value, pos: k.Pos, ours: true}
	given := d.Fields("group "+k.Value, v, `a mapping, as {hosts: ["web*"]}`, []key{
		{Name: "hosts", Read: d.patterns(&g.hosts)},
		{Name: "children", Read: d.Texts(&g.children, "a list of groups, as [web, db]")},
		{Name: "ssh", Read: d.sshBlock(&g.ssh)},
		{Name: "labels", Read: d.hostLabels(&g.labels)},
		{Name: "vars", Read: d.hostVars(&g.vars)},
		{Name: "protected", Read: d.Flag(&g.protect)},
	})
	if err := checkName(k.Value, maxName); err != nil {
		d.Add(k.Pos, "", "group %v", err)
		return
	}
	switch k.Value {
	case "all":
		d.Add(k.Pos, `put labels, vars and ssh of all hosts at the top of the file, or name it otherwise and give it hosts: "*"`, `"all" means every host`)
		return
	case "ungrouped":
		d.Add(k.Pos, "name it otherwise", `"ungrouped" means every host in no group`)
		return
	}
	first := b.groupAt[k.Value]
	if first != nil && first.ours {
		d.Add(k.Pos, "", "group %q is defined twice, first at %s", k.Value, first.pos)
		return
	}
	_, hosts := given["hosts"]
	_, children := given["children"]
	g.empty = given != nil && !hosts && !children
	if first != nil { // of another source
		first.add(&g.layer)
		first.hosts, first.children = append(first.hosts, g.hosts...), append(first.children, g.children...)
		first.ours, first.pos, first.empty, first.protect = true, g.pos, g.empty, g.protect
		return
	}
	b.addGroup(g)
}

func (b *builder) addGroup(g *groupSpec) {
	b.groups = append(b.groups, g)
	b.groupAt[g.name] = g
}

// resolveHosts puts hosts into their groups and lets them inherit from these.
func (b *builder) resolveHosts() {
	u := &b.inv.hosts
	b.inv.Hosts = u.hosts
	for _, g := range b.groups {
		u.groupNames = append(u.groupNames, g.name)
		b.checkGroup(g)
	}
	for _, g := range b.groups {
		b.ownMembers(g)
	}
	for _, g := range b.groups {
		b.findDepth(g)
	}
	ordered := slices.SortedFunc(slices.Values(b.groups), func(x, y *groupSpec) int {
		return cmp.Or(cmp.Compare(x.depth, y.depth), cmp.Compare(x.priority, y.priority), cmp.Compare(x.name, y.name))
	})
	// The deepest first, so that a child is complete before its parents include it.
	for _, g := range slices.Backward(ordered) {
		for _, parent := range g.parents {
			union(parent.members, g.members)
		}
	}
	u.groups = make(map[string][]bool, len(b.groups))
	for _, g := range b.groups {
		u.groups[g.name] = g.members
		group := &Group{Name: g.name, Pos: g.pos, Hosts: u.pick(g.members), Protected: g.protect.Value}
		for _, child := range g.children {
			group.Children = append(group.Children, child.Value)
		}
		b.inv.Groups = append(b.inv.Groups, group)
	}
	for i, h := range u.hosts {
		b.inherit(h, b.specs[i], slices.DeleteFunc(slices.Clone(ordered), func(g *groupSpec) bool { return !g.members[i] }))
	}
	b.warnConnections()
	b.sameMachine()
}

// checkGroup reports a group that has neither hosts nor children, or the name of a
// host.
func (b *builder) checkGroup(g *groupSpec) {
	if g.empty && !g.declared {
		b.Add(g.pos, "give it hosts or children", "group %q has no hosts", g.name)
	}
	h := b.inv.hosts.host(g.name)
	switch {
	case h == nil:
	case g.declared: // often so in inventories of Ansible, for which it is a group then
		b.Warn(g.pos, "as a pattern it means the group", "group %q has the name of the host at %s", g.name, h.Pos)
	default:
		b.Add(g.pos, "a pattern could mean either", "group %q has the name of the host at %s", g.name, h.Pos)
	}
}

// ownMembers finds the children of a group, and its hosts except those of its children.
func (b *builder) ownMembers(g *groupSpec) {
	u := &b.inv.hosts
	g.members = make([]bool, len(u.hosts))
	for _, i := range g.direct {
		g.members[i] = true
	}
	for _, pattern := range g.hosts {
		set, err := u.match(pattern.Value)
		if err != nil {
			b.Failed(pattern.Pos, err)
		}
		union(g.members, set)
	}
	for _, child := range g.children {
		if c := b.groupAt[child.Value]; c != nil {
			c.parents = append(c.parents, g)
		} else {
			b.Add(child.Pos, b.DidYouMean(child.Value, u.groupNames), "children: there is no group %q", child.Value)
		}
	}
}

// findDepth sets the depths of a group and its parents, and reports groups that contain
// themselves.
func (b *builder) findDepth(g *groupSpec) {
	if g.depth > 0 {
		return
	}
	g.walking = true
	depth := 1
	for _, parent := range g.parents {
		if parent.walking {
			b.Add(parent.pos, "", "group %q is among its own children", parent.name)
			continue
		}
		b.findDepth(parent)
		depth = max(depth, parent.depth+1)
	}
	g.walking, g.depth = false, depth
}

// inherit gives a host the values of the top of the files, of its groups and of itself,
// in the order of doc.go: the last one wins.
func (b *builder) inherit(h *Host, own *hostSpec, groups []*groupSpec) {
	for _, g := range groups {
		h.Groups = append(h.Groups, g.name)
	}
	slices.Sort(h.Groups)
	if len(groups) == 0 {
		groups = []*groupSpec{&b.ungrouped}
	}
	layers := append(make([]*layer, 0, 2*len(groups)+4), &b.top)
	for _, g := range groups {
		layers = append(layers, &g.layer)
	}
	layers = append(layers, &b.topFiles)
	for _, g := range groups {
		layers = append(layers, &g.files)
	}
	layers = append(layers, &own.layer, &own.files)

	var ssh sshSpec
	conn := connection{}
	h.Labels, h.Vars = map[string]string{}, map[string]Var{}
	for _, l := range layers {
		maps.Copy(h.Labels, l.labels)
		maps.Copy(h.Vars, l.vars)
		conn.over(b.connection(l))
		conn.without(&l.ssh)
		ssh.over(&l.ssh, nil)
	}
	address := b.apply(conn, h, own, &ssh)
	b.reach(h, address, &ssh)
}
