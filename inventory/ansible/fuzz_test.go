package ansible_test

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/inventory/ansible"
	"github.com/vsfleet/vsfleet/inventory/inventorytest"
)

// seeds adds the files of strangers' inventories that begin or end in some way.
func seeds(f *testing.F, is func(name, text string) bool) {
	for name, text := range inventorytest.Files() {
		if is(path.Base(name), text) {
			f.Add(text)
		}
	}
}

func check(t *testing.T, inv *ansible.Inventory) {
	t.Helper()
	for _, p := range inv.Problems {
		if p.Msg == "" || p.Line < 1 || p.Column < 1 {
			t.Errorf("%+v", p)
		}
	}
	hosts := map[string]bool{}
	for _, h := range inv.Hosts {
		if hosts[h.Name] {
			t.Errorf("host %q is there twice", h.Name)
		}
		hosts[h.Name] = true
		for name, v := range h.Vars {
			if v.Pos.Line < 1 || v.Pos.Column < 1 {
				t.Errorf("%s of %s is at %v", name, h.Name, v.Pos)
			}
		}
	}
	groups := map[string]bool{}
	for _, g := range inv.Groups {
		if groups[g.Name] {
			t.Errorf("group %q is there twice", g.Name)
		}
		groups[g.Name] = true
		for _, h := range g.Hosts {
			if !hosts[h] {
				t.Errorf("host %q of group %q is nowhere", h, g.Name)
			}
		}
	}
	for _, g := range inv.Groups {
		for _, child := range g.Children {
			if !groups[child.Name] {
				t.Errorf("group %q of group %q is nowhere", child.Name, g.Name)
			}
		}
	}
}

func FuzzReadINI(f *testing.F) {
	seeds(f, func(name, text string) bool { return strings.HasPrefix(text, "[") || strings.Contains(text, "\n[") })
	f.Fuzz(func(t *testing.T, text string) { check(t, ansible.ReadINI(text)) })
}

func FuzzReadYAML(f *testing.F) {
	seeds(f, func(name, _ string) bool { return strings.HasSuffix(name, "ml") })
	f.Fuzz(func(t *testing.T, text string) {
		defer func() {
			// yaml.v3 panics on some malformed comments; callers recover.
			if p := recover(); p != nil && p != "internal error: attempted to parse unknown event (please report): none" {
				panic(p)
			}
		}()
		var doc yaml.Node
		if yaml.Unmarshal([]byte(text), &doc) == nil && len(doc.Content) == 1 && doc.Content[0].Kind == yaml.MappingNode {
			check(t, ansible.ReadYAML(doc.Content[0]))
		}
	})
}

func FuzzReadList(f *testing.F) {
	for name, text := range inventorytest.Files() {
		if begin := strings.IndexByte(text, '{'); begin >= 0 && strings.HasPrefix(text, "#!/bin/sh") {
			f.Add(text[begin : strings.LastIndexByte(text, '}')+1])
		} else if strings.HasSuffix(name, ".json") {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		root, err := ansible.ParseJSON([]byte(text))
		if err == nil && !json.Valid([]byte(text)) {
			t.Errorf("%q is no JSON", text)
		}
		if err == nil {
			inv, _ := ansible.ReadList(root)
			check(t, inv)
		}
	})
}

func FuzzSSHArgs(f *testing.F) {
	for _, s := range []string{"-J a -o ProxyJump=b", `-o ProxyCommand="ssh -W %h:%p a@b -p 1"`, "-o", "-", "'", "\\", "-oX", "{{ a }} -J{{b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := ansible.ParseSSHArgs(text)
		for _, word := range append(args.Unknown, args.Jump, args.User) {
			if len(word) > len(text)+len("-o  without its argument of ProxyCommand") {
				t.Errorf("%q from %q", word, text)
			}
		}
	})
}
