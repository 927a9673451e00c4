package convert

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/inventory/ansible"
)

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// Inventory makes a draft from the hosts, groups and variables of an inventory, which
// may come from Ansible.
func Inventory(inv *inventory.Inventory, sources []string) (*Draft, error) {
	d := &Draft{Source: strings.Join(sources, " ")}
	left := map[string][]string{} // why, by variable: the hosts
	for _, h := range inv.Hosts {
		if len(h.Guests) > 0 {
			return nil, fmt.Errorf("%s already has guests: it is a fleet.yml", d.Source)
		}
		d.hosts = append(d.hosts, &host{name: h.Name, address: h.Address, block: block{ssh: sshOf(h), vars: varsOf(h, left)}})
	}
	if len(d.hosts) == 0 {
		return nil, fmt.Errorf("%s has no hosts", d.Source)
	}
	for _, why := range slices.Sorted(maps.Keys(left)) {
		d.leave("%s (%s)", why, some(left[why]))
	}
	d.addGroups(inv.Groups)
	d.lift()
	return d, nil
}

// some returns up to three names.
func some(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
}

func sshOf(h *inventory.Host) map[string]string {
	ssh := map[string]string{}
	for key, value := range map[string]string{
		"user": h.SSH.User, "identity": h.SSH.Identity, "jump": h.SSH.Jump, "known_hosts": h.SSH.KnownHosts, "host_key_alias": h.SSH.HostKeyAlias,
		"become_method": h.SSH.BecomeMethod, "host_key": h.SSH.HostKey, "config": h.SSH.Config,
	} {
		if value != "" {
			ssh[key] = value
		}
	}
	if h.SSH.Port != 0 && h.SSH.Port != 22 {
		ssh["port"] = strconv.Itoa(h.SSH.Port)
	}
	if h.Become {
		ssh["become"] = "true"
	}
	return ssh
}

// varsOf returns the variables of a host that a fleet.yml can have.
func varsOf(h *inventory.Host, left map[string][]string) map[string]any {
	vars := map[string]any{}
	for name, v := range h.Vars {
		why := ""
		switch {
		case strings.HasPrefix(name, "ansible_"):
			if v.Secret {
				why = "a password"
			} else if inventory.UnderstandsVar(name) {
				continue
			} else {
				why = "it concerns Ansible only"
			}
		case !inventory.IsName(name):
			why = "no name that ${vars.NAME} could hold"
		case v.Value == nil:
			why = "it has no value"
		case v.Secret:
			why = "a secret"
		case contains(v.Value, func(s string) bool { return strings.Contains(s, "${") }):
			why = "it holds ${, which fleet.yml would replace"
		case contains(v.Value, func(s string) bool { return strings.Contains(s, "{{") || strings.Contains(s, "{%") }):
			why = "it holds a template of Jinja"
		}
		if hasVault(v.Value) {
			why = "encrypted by ansible-vault"
		}
		if why != "" {
			why = fmt.Sprintf("variable %s: %s", name, why)
			left[why] = append(left[why], h.Name)
			continue
		}
		vars[name] = v.Value
		switch v.Value.(type) {
		case float64, int64:
			if ansible.Scalar(v.Text) == v.Value && !strings.Contains(v.Text, ":") {
				vars[name] = number(v.Text) // 1.10 stays 1.10
			}
		}
	}
	return vars
}

func contains(value any, is func(string) bool) bool {
	switch v := value.(type) {
	case string:
		return is(v)
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return contains(item, is) })
	case map[string]any:
		for k, item := range v {
			if is(k) || contains(item, is) {
				return true
			}
		}
	}
	return false
}

func hasVault(value any) bool {
	switch v := value.(type) {
	case ansible.Vault, ansible.Sealed:
		return true
	case []any:
		return slices.ContainsFunc(v, hasVault)
	case map[string]any:
		for _, item := range v {
			if hasVault(item) {
				return true
			}
		}
	}
	return false
}

// quoted returns a text node, in quotes if YAML 1.1 or later would read it as another
// type.
func quoted(s string) *yaml.Node {
	n := text(s)
	if n.Style == 0 && (ansible.Scalar(s) != any(s) || s != "" && strings.ContainsRune("-?:,[]{}#&*!|>'\"%@`", rune(s[0]))) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// addGroups adds the groups that have hosts. Hosts that a group has from its children
// are listed only there.
func (d *Draft) addGroups(groups []*inventory.Group) {
	filled, names := map[string]*inventory.Group{}, map[string]string{}
	for _, g := range groups {
		if len(g.Hosts) == 0 {
			d.leave("group %s: it has no hosts", g.Name)
			continue
		}
		filled[g.Name], names[g.Name] = g, g.Name
		if slices.ContainsFunc(d.hosts, func(h *host) bool { return h.name == g.Name }) {
			names[g.Name] += "-group"
			d.leave("group %s: a host has its name, so it is called %s here", g.Name, names[g.Name])
		}
	}
	for _, g := range groups {
		if filled[g.Name] == nil {
			continue
		}
		one, inherited := &group{name: names[g.Name]}, map[*inventory.Host]bool{}
		for _, child := range g.Children {
			if c := filled[child]; c != nil && !slices.Contains(one.children, names[child]) {
				one.children = append(one.children, names[child])
				for _, h := range c.Hosts {
					inherited[h] = true
				}
			}
		}
		for _, h := range g.Hosts {
			if !inherited[h] {
				one.hosts = append(one.hosts, h.Name)
			}
		}
		d.groups = append(d.groups, one)
	}
}
