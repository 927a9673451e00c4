package report

import (
	"slices"

	"github.com/vsfleet/vsfleet/inventory"
)

// GroupRecord is a group of the inventory. The first record is "all"; "ungrouped" has
// the hosts that are in no group.
type GroupRecord struct {
	Group    string   `json:"group"`
	Children []string `json:"children"` // groups in it
	Hosts    []string `json:"hosts"`    // that are in none of its children
	// Vars of its hosts, if they were asked for; secrets are redacted.
	Vars map[string]map[string]inventory.Var `json:"vars,omitempty"`
}

// GroupRecords returns the groups that hosts are in, parents before their children.
func GroupRecords(inv *inventory.Inventory, hosts []*inventory.Host, vars bool) []GroupRecord {
	members := map[string][]string{}
	isChild := map[string]bool{}
	var groups []*inventory.Group
	for _, g := range inv.Groups {
		for _, h := range g.Hosts {
			if slices.Contains(hosts, h) {
				members[g.Name] = append(members[g.Name], h.Name)
			}
		}
		if len(members[g.Name]) > 0 {
			groups = append(groups, g)
		}
	}
	records := []GroupRecord{{Group: "all"}}
	for _, g := range groups {
		r := GroupRecord{Group: g.Name, Hosts: slices.Clone(members[g.Name])}
		for _, child := range g.Children {
			if isChild[child] = true; len(members[child]) > 0 {
				r.Children = append(r.Children, child)
				r.Hosts = slices.DeleteFunc(r.Hosts, func(h string) bool { return slices.Contains(members[child], h) })
			}
		}
		records = append(records, r)
	}
	ungrouped := GroupRecord{Group: "ungrouped"}
	for _, h := range hosts {
		if len(h.Groups) == 0 {
			ungrouped.Hosts = append(ungrouped.Hosts, h.Name)
		}
	}
	if len(ungrouped.Hosts) > 0 {
		records = append(records, ungrouped)
	}
	for _, r := range records[1:] {
		if !isChild[r.Group] {
			records[0].Children = append(records[0].Children, r.Group)
		}
	}
	if vars {
		for i := range records {
			records[i].Vars = varsOf(hosts, records[i].Hosts)
		}
	}
	return records
}

func varsOf(hosts []*inventory.Host, names []string) map[string]map[string]inventory.Var {
	vars := map[string]map[string]inventory.Var{}
	for _, h := range hosts {
		if slices.Contains(names, h.Name) {
			vars[h.Name] = h.Vars
		}
	}
	return vars
}

// Below returns the records of a group and of all groups in it, or nil if the group
// does not exist.
func Below(records []GroupRecord, root string) []GroupRecord {
	in := map[string]bool{root: true}
	for grown := true; grown; {
		grown = false
		for _, r := range records {
			for _, child := range r.Children {
				if in[r.Group] && !in[child] {
					in[child], grown = true, true
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(records), func(r GroupRecord) bool { return !in[r.Group] })
}
