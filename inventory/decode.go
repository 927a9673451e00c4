package inventory

import (
	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/ansible"
)

type (
	// Position is a place in an inventory file. Line and Column count from 1; they
	// are 0 if the file as a whole is meant.
	Position = yamlpos.Position
	// Error is one mistake in an inventory or a pattern. Pos is zero for a pattern
	// that comes from no file.
	Error = yamlpos.Error
	// Errors holds all mistakes in an inventory, in the order of the files. It is never
	// empty.
	Errors = yamlpos.Errors

	given[T any] = yamlpos.Given[T]
	// text is a value that has not been resolved for a host yet.
	text   = yamlpos.Text
	key    = yamlpos.Key
	report = yamlpos.Report
)

// decoder reads one inventory file.
type decoder struct {
	*yamlpos.Decoder
	reader *ansible.Values // of variables
	found  []ansible.Problem
}

func newDecoder(file string, to *report) *decoder {
	return &decoder{Decoder: &yamlpos.Decoder{File: file, Report: to, Doc: yamlpos.Doc{
		Noun: "an inventory", Page: "docs/inventory.md", Least: "hosts: {NAME: {address: …}}",
		Top: "hosts, groups, images and guests", Foreign: playbook,
	}}}
}

// patterns reads a pattern or a list of them into to.
func (d *decoder) patterns(to *[]text) func(string, *yaml.Node) {
	const want = `a pattern or a list of them, as "web*" or [web01, "db[1:3]"]`
	return func(name string, n *yaml.Node) {
		if n = yamlpos.Target(n); n.Kind == yaml.SequenceNode {
			d.Texts(to, want)(name, n)
			if len(n.Content) == 0 {
				d.Add(d.At(n), "", "%s: want %s, have an empty list", name, want)
			}
			return
		}
		var one text
		if d.Text(&one, want)(name, n); one.OK() {
			*to = []text{one}
		}
	}
}

// labels reads a mapping of names to texts into to; check refuses some of them.
func (d *decoder) labels(to *map[string]string, want string, check func(name, value string) error) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		*to = map[string]string{}
		d.Entries(name, n, want, func(k text, v *yaml.Node) {
			t, ok := d.Scalar(k.Value, v, "a text or a number")
			if !ok {
				return
			}
			if err := checkName(k.Value, maxName); err != nil {
				d.Add(k.Pos, "", "%s: %v", name, err)
			} else if err := check(k.Value, t.Value); err != nil {
				d.Add(t.Pos, "", "%s: %v", name, err)
			} else {
				(*to)[k.Value] = t.Value
			}
		})
	}
}
