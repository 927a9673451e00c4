package inventory

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
	"github.com/vsfleet/vsfleet/inventory/ansible"
)

// foreign reads a file if it is an Ansible inventory.
func (b *builder) foreign(path string, data []byte, doc *yaml.Node, err error) bool {
	if !errors.Is(err, io.EOF) && isINI(path, data, doc, err) {
		b.ini(path, data)
		return true
	}
	if err != nil {
		return false
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return false
	}
	switch plugin := member(root, "plugin"); {
	case plugin != nil && plugin.Kind == yaml.ScalarNode:
		b.Add(Position{File: path, Line: plugin.Line, Column: plugin.Column}, "save what it finds: ansible-inventory -i "+path+" --list --export > hosts.json, and name that with -i",
			"this configures Ansible's inventory plugin %s, which vsfleet does not run", yamlpos.Short(plugin.Value))
	case ansible.IsList(root):
		list, _ := ansible.ReadList(root)
		b.merge(path, list)
	case isOurs(root):
		return false
	case isAnsible(root):
		b.merge(path, ansible.ReadYAML(root))
	default:
		return false
	}
	return true
}

// ini reads an inventory in Ansible's INI format. Errors show little of a file that is
// not an inventory: it was named by mistake, and may hold secrets.
func (b *builder) ini(path string, data []byte) {
	pos := Position{File: path, Line: 1, Column: 1}
	if bytes.ContainsFunc(data, func(c rune) bool { return c == utf8.RuneError || unicode.IsControl(c) && !unicode.IsSpace(c) }) {
		b.Add(pos, "", "this is not a UTF-8 text file, so it cannot be an inventory")
		return
	}
	inv := ansible.ReadINI(string(data))
	bad := len(inv.Problems)
	for _, h := range inv.Hosts {
		if !IsHostName(h.Name) {
			bad++
		}
	}
	if bad > (len(inv.Hosts)+len(inv.Problems))/2 && data[0] != '[' && !bytes.Contains(data, []byte("\n[")) {
		b.Add(pos, "an inventory is YAML as in docs/inventory.md, or an Ansible inventory", "this does not look like an inventory")
		return
	}
	b.merge(path, inv)
}

// ourKeys are the keys at the top of a file of ours.
var ourKeys = []string{"ssh", "labels", "vars", "hosts", "groups", "images", "guests", "rollout"}

// isOurs reports whether a document is a fleet.yml: all its keys are keys of one, or
// some key cannot be that of an Ansible group.
func isOurs(root *yaml.Node) bool {
	for i := 0; i+1 < len(root.Content); i += 2 {
		name, v := root.Content[i].Value, yamlpos.Target(root.Content[i+1])
		if !slices.Contains(ourKeys, name) && !strings.HasPrefix(name, "x-") {
			continue
		}
		// A group of Ansible's may be called guests, too.
		if member(v, "hosts") == nil && member(v, "children") == nil || name == "hosts" && member(v, "hosts") == nil {
			return true
		}
	}
	return false
}

// isAnsible reports whether a document is an Ansible inventory in YAML: some key at its
// top is a group, or all could be empty groups.
func isAnsible(root *yaml.Node) bool {
	empty := len(root.Content) > 0
	for i := 0; i+1 < len(root.Content); i += 2 {
		v := yamlpos.Target(root.Content[i+1])
		if root.Content[i].Value == "all" || member(v, "hosts") != nil || member(v, "children") != nil || member(v, "vars") != nil {
			return true
		}
		empty = empty && yamlpos.IsNull(v)
	}
	return empty
}

// isINI reports whether a file is an Ansible inventory in INI format: it has a section,
// or its name is not that of a YAML file and its content is not YAML, or a single word.
func isINI(path string, data []byte, doc *yaml.Node, err error) bool {
	if yamlpos.IsSecondDocument(err) {
		return false
	}
	scalar := err == nil && doc.Content[0].Kind == yaml.ScalarNode && !yamlpos.IsNull(doc.Content[0])
	if err == nil && !scalar {
		// "[web]" alone is a list to YAML.
		return doc.Content[0].Kind == yaml.SequenceNode && iniSection.Match(data) && !isYAMLName(path)
	}
	if scalar && bytes.Contains(data, []byte("ansible_")) {
		return true
	}
	return iniSection.Match(data) || !isYAMLName(path) && !bytes.HasPrefix(bytes.TrimSpace(data), []byte("---"))
}

var iniSection = regexp.MustCompile(`(?m)^\[[^:\]\s,"'{}]+(:(vars|children|hosts))?\]\s*(#.*)?$`)

func isYAMLName(path string) bool {
	return slices.Contains([]string{".yml", ".yaml", ".json"}, strings.ToLower(filepath.Ext(path)))
}

// isVaultFile reports whether a file as a whole is encrypted by ansible-vault.
func isVaultFile(data []byte) bool { return bytes.HasPrefix(data, []byte("$ANSIBLE_VAULT;")) }

// playbook describes a file that is an Ansible playbook, or returns "".
func playbook(root *yaml.Node) string {
	if root.Kind != yaml.SequenceNode {
		return ""
	}
	for _, play := range root.Content {
		if member(play, "hosts") != nil || member(play, "import_playbook") != nil {
			return "an Ansible playbook"
		}
	}
	return ""
}

// member returns the value of a key of a mapping, or nil.
func member(n *yaml.Node, name string) *yaml.Node {
	if n = yamlpos.Target(n); n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return yamlpos.Target(n.Content[i+1])
		}
	}
	return nil
}
