package inventory

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/ansible"
)

// varsFiles reads the variables in group_vars and host_vars of a directory for the
// groups and hosts of the inventory.
func (b *builder) varsFiles(dir string) {
	groups := b.listVars(filepath.Join(dir, "group_vars"))
	for _, g := range b.groups {
		groups.read(g.name, &g.files)
	}
	groups.read("all", &b.topFiles)
	groups.read("ungrouped", &b.ungrouped.files)
	hosts := b.listVars(filepath.Join(dir, "host_vars"))
	for i, h := range b.inv.hosts.hosts {
		if hosts.has(h.Name) {
			spec := *b.specs[i] // which other hosts of a range share
			hosts.read(h.Name, &spec.files)
			b.specs[i] = &spec
		}
	}
	groups.rest("group", b.groupNames())
	hosts.rest("host", b.inv.hosts.names)
}

func (b *builder) groupNames() []string {
	names := []string{"all", "ungrouped"}
	for _, g := range b.groups {
		names = append(names, g.name)
	}
	return names
}

// varsDir is a directory of files, or directories, of variables.
type varsDir struct {
	*builder
	path    string
	entries map[string]bool // by name, with those that were not read
}

func (b *builder) listVars(path string) *varsDir {
	v := &varsDir{builder: b, path: path, entries: map[string]bool{}}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.Add(Position{File: path}, "", "read variables: %v", err)
	}
	for _, entry := range entries {
		v.entries[entry.Name()] = true
	}
	return v
}

// varsEndings are the extensions of files of variables. If a name has several, the
// first one is read, as in Ansible.
var varsEndings = []string{"", ".yml", ".yaml", ".json"}

func (v *varsDir) has(name string) bool {
	for _, ending := range varsEndings {
		if v.entries[name+ending] {
			return true
		}
	}
	return false
}

// read adds the variables of a group or host to l.
func (v *varsDir) read(name string, l *layer) {
	first := ""
	for _, ending := range varsEndings {
		entry := name + ending
		if !v.entries[entry] {
			continue
		}
		delete(v.entries, entry)
		path := filepath.Join(v.path, entry)
		if first != "" {
			v.Warn(Position{File: path}, "put one into the other", "it is left out, as Ansible reads only %s of the two", first)
			continue
		}
		first = path
		v.readAny(path, l)
	}
}

// readAny reads a file, or all those in a directory, by name.
func (v *varsDir) readAny(path string, l *layer) {
	if !isDir(path) {
		v.readFile(path, l)
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		v.Add(Position{File: path}, "", "read variables: %v", err)
	}
	for _, entry := range entries {
		name, below := entry.Name(), filepath.Join(path, entry.Name())
		switch ending := filepath.Ext(name); {
		case strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~"):
		case isDir(below):
			v.readAny(below, l)
		case ending == "" || ending == ".yml" || ending == ".yaml" || ending == ".json":
			v.readFile(below, l)
		}
	}
}

func (v *varsDir) readFile(path string, l *layer) {
	v.Files = append(v.Files, path)
	if isSpecial(path) {
		v.Warn(Position{File: path}, "", "it is left out, as it is not a file")
		return
	}
	data, err := readAll(path)
	if err != nil {
		v.Add(Position{File: path}, "", "read variables: %v", err)
		return
	}
	if isVaultFile(data) {
		v.Warn(Position{File: path, Line: 1, Column: 1}, "decrypt it, or give what guests need elsewhere", "it is encrypted by ansible-vault, so its variables are left out")
		return
	}
	doc, err := yamlpos.Document(data)
	if errors.Is(err, io.EOF) {
		return
	}
	d := newDecoder(path, &v.report)
	d.Doc = yamlpos.Doc{Noun: "a file of variables", Page: "docs/inventory.md"}
	if err != nil {
		d.Root(data, doc, err) // which reports it
		return
	}
	var problems []ansible.Problem
	vars, _ := ansible.NewValues(&problems).Expect(doc).Mapping("variables", doc.Content[0])
	m := &merger{builder: v.builder, file: path}
	given := m.layer(vars)
	l.add(&given)
	m.problems(problems)
}

// maxSlips limits how many mistyped names of a directory are reported.
const maxSlips = 5

// rest warns of files that look like mistyped names of a group or host. Other files
// often belong to another inventory. Names that differ in digits only, such as web3 and
// web2, are not mistyped.
func (v *varsDir) rest(what string, known []string) {
	numbered := map[string]bool{}
	for _, name := range known {
		numbered[withoutDigits(name)] = true
	}
	slips := 0
	for _, entry := range sortedKeys(v.entries) {
		name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(entry, ".yml"), ".yaml"), ".json")
		if slips == maxSlips || numbered[withoutDigits(name)] {
			continue
		}
		if hint := v.DidYouMean(name, known); hint != "" {
			slips++
			v.Warn(Position{File: filepath.Join(v.path, entry)}, hint, "it is left out: there is no %s %q", what, name)
		}
	}
}

func withoutDigits(s string) string {
	return strings.Map(func(c rune) rune {
		if '0' <= c && c <= '9' {
			return -1
		}
		return c
	}, s)
}
