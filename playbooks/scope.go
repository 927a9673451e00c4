package playbooks

import (
	"maps"
	"reflect"

	"github.com/expr-lang/expr/types"
)

// Fleet is what an inventory knows, so that a playbook can be checked against it.
type Fleet struct {
	Vars   map[string]any     // of any host, with a value of its type, see Values
	Sealed []string           // variables that playbooks cannot use: encrypted ones, mappings
	Labels []string           // of any host
	Hosts  func(string) error // why a pattern names no hosts
	Guests func(string) error // why no host has a guest of that name or pattern
	Images []string
}

// Host is a host as conditions and texts see it.
type Host struct {
	Name, Address string
	Groups        []string
	Labels        map[string]string
}

// Facts describe a machine.
type Facts struct {
	Hostname, Kernel, Arch, OS string
	CPUs                       int
	Memory, Free               int // bytes
}

// Result is what a step registers.
type Result struct {
	Changed, Failed, Skipped bool
	Error                    string
	Values                   map[string]any // by the names of Kind.Results
	Results                  []Result       // of a loop
}

// Scope is what the expressions and texts of a step see on a host.
type Scope struct {
	Host      Host
	Vars      map[string]any
	Facts     Facts
	Registers map[string]any // see Result.Register
	Check     bool           // nothing is to be changed

	Looping     bool
	Item, Value string
}

// Register keeps a result under a name. kind and loop are those of the step.
func (sc *Scope) Register(name string, kind *Kind, loop bool, r Result) {
	if sc.Registers == nil {
		sc.Registers = map[string]any{}
	}
	values := resultValues(kind, r)
	if loop {
		var list []any
		for _, one := range r.Results {
			list = append(list, resultValues(kind, one))
		}
		values["results"] = list
	}
	sc.Registers[name] = values
}

func resultValues(kind *Kind, r Result) map[string]any {
	values := map[string]any{"changed": r.Changed, "failed": r.Failed, "skipped": r.Skipped, "error": r.Error}
	for _, field := range kind.Results {
		values[field.Name] = field.none
	}
	maps.Copy(values, r.Values)
	return values
}

// env returns the scope as expressions see it.
func (sc *Scope) env() map[string]any {
	labels := make(map[string]any, len(sc.Host.Labels))
	for name, value := range sc.Host.Labels {
		labels[name] = value
	}
	env := map[string]any{
		"host":  map[string]any{"name": sc.Host.Name, "address": sc.Host.Address, "groups": sc.Host.Groups, "labels": labels},
		"vars":  sc.Vars,
		"check": sc.Check,
		"facts": map[string]any{
			"hostname": sc.Facts.Hostname, "kernel": sc.Facts.Kernel, "arch": sc.Facts.Arch, "os": sc.Facts.OS,
			"cpus": sc.Facts.CPUs, "memory": sc.Facts.Memory, "free": sc.Facts.Free,
		},
	}
	if sc.Looping {
		env["item"], env["value"] = sc.Item, sc.Value
	}
	maps.Copy(env, sc.Registers)
	return env
}

const kindOfList = reflect.Slice

// environment returns the types of a scope: vars are the variables of the playbook. All
// variables have the types of their values.
func environment(fleet *Fleet, vars map[string]any, registered map[string]registered, looping bool) types.Map {
	labels, variables := types.Map{}, types.Map{}
	if fleet == nil { // nobody knows which there are
		labels[types.Extra], variables[types.Extra] = types.String, types.Any
	} else {
		for _, name := range fleet.Labels {
			labels[name] = types.String
		}
		for name, value := range fleet.Vars {
			variables[name] = types.TypeOf(value)
		}
	}
	for name, value := range vars {
		variables[name] = types.TypeOf(value)
		if value == nil {
			variables[name] = types.String
		}
	}
	env := types.Map{
		"host": types.Map{"name": types.String, "address": types.String, "groups": types.Array(types.String), "labels": labels},
		"vars": variables, "check": types.Bool,
		"facts": types.Map{
			"hostname": types.String, "kernel": types.String, "arch": types.String, "os": types.String,
			"cpus": types.Int, "memory": types.Int, "free": types.Int,
		},
	}
	if looping {
		env["item"], env["value"] = types.String, types.String
	}
	for name, r := range registered {
		env[name] = r.types()
	}
	return env
}

// registered is a name that a step of that kind registers.
type registered struct {
	kind *Kind
	loop bool
}

func (r registered) types() types.Map {
	one := func() types.Map {
		m := types.Map{"changed": types.Bool, "failed": types.Bool, "skipped": types.Bool, "error": types.String}
		for _, field := range r.kind.Results {
			m[field.Name] = types.TypeOf(field.none)
		}
		return m
	}
	m := one()
	if r.loop {
		m["results"] = types.Array(one())
	}
	return m
}
