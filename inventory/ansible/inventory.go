package ansible

import "fmt"

// Inventory is what one source says, in its order and unresolved.
type Inventory struct {
	Hosts    []*Host
	Groups   []*Group
	Problems []Problem

	hosts  map[string]*Host
	groups map[string]*Group
}

// Host is a host with the variables that the source gives it.
type Host struct {
	Name string
	Pos  Pos
	Vars map[string]Var
}

// Group is a group with its own hosts and child groups. The groups "all" and
// "ungrouped" are there if the source names them.
type Group struct {
	Name     string
	Pos      Pos
	Hosts    []string
	Children []Child
	Vars     map[string]Var
	// Declared groups exist by themselves. One that a source only gives variables
	// or a parent must be declared by it or a source before it.
	Declared bool
}

// Child is a group in a group, with the place that says so.
type Child struct {
	Name string
	Pos  Pos
}

// Var is the value of a variable: nil, bool, int64, float64, string, [Vault], [Sealed],
// []any or map[string]any. Text is a scalar as it was written: 1.10 stays 1.10.
type Var struct {
	Value any
	Text  string
	Pos   Pos
}

// Vault stands for a value encrypted by ansible-vault.
type Vault struct{}

func (Vault) String() string { return "(encrypted by ansible-vault)" }

// MarshalText lets a Vault be printed as JSON and YAML.
func (v Vault) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Sealed is a value with the tag !age, which vsfleet decrypts.
type Sealed struct {
	Armored string
	Pos     Pos
}

func (Sealed) String() string { return "(secret)" }

// MarshalText lets a Sealed be printed as JSON and YAML.
func (s Sealed) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Pos is a place in a file; both numbers count from 1.
type Pos struct{ Line, Column int }

// Problem is a mistake in a source, or a warning about it.
type Problem struct {
	Pos
	Msg, Hint string
	Warning   bool
}

func newInventory() *Inventory {
	return &Inventory{hosts: map[string]*Host{}, groups: map[string]*Group{}}
}

func (inv *Inventory) fail(at Pos, hint, format string, args ...any) {
	inv.Problems = append(inv.Problems, Problem{Pos: at, Msg: fmt.Sprintf(format, args...), Hint: hint})
}

func (inv *Inventory) warn(at Pos, hint, format string, args ...any) {
	inv.Problems = append(inv.Problems, Problem{Pos: at, Msg: fmt.Sprintf(format, args...), Hint: hint, Warning: true})
}

// group returns the group of that name, which it adds if it is new.
func (inv *Inventory) group(name string, at Pos) *Group {
	g := inv.groups[name]
	if g == nil {
		g = &Group{Name: name, Pos: at, Vars: map[string]Var{}}
		inv.groups[name] = g
		inv.Groups = append(inv.Groups, g)
	}
	return g
}

// host returns the host of that name, which it adds if it is new, as a member of g.
func (inv *Inventory) host(name string, at Pos, g *Group) *Host {
	h := inv.hosts[name]
	if h == nil {
		h = &Host{Name: name, Pos: at, Vars: map[string]Var{}}
		inv.hosts[name] = h
		inv.Hosts = append(inv.Hosts, h)
	}
	g.Hosts = append(g.Hosts, name)
	return h
}

// addHosts adds the hosts that "web[01:10].example.net:2222" names to g. A port is
// only for hosts that are new, as in Ansible.
func (inv *Inventory) addHosts(pattern string, at Pos, g *Group, vars map[string]Var) {
	names, port, err := expandHosts(pattern)
	if err != nil {
		inv.fail(at, "", "host %v", err)
		return
	}
	for _, name := range names {
		_, known := inv.hosts[name]
		h := inv.host(name, at, g)
		if port.Value != nil && !known {
			port.Pos = at
			h.Vars["ansible_port"] = port
		}
		for name, v := range vars {
			h.Vars[name] = v
		}
	}
}
