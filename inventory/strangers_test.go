package inventory_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/inventory/ansible"
	"github.com/vsfleet/vsfleet/inventory/inventorytest"
	"github.com/vsfleet/vsfleet/inventory/program"
)

// listed is what a program says of an inventory: the hosts of each group, the groups
// in each group, and the variables of each host.
type listed struct {
	Members  map[string][]string
	Children map[string][]string
	Vars     map[string]map[string]any
}

// byAnsible reads what ansible-inventory --list has printed.
func byAnsible(t *testing.T, s *inventorytest.Stranger, text string) listed {
	t.Helper()
	var raw map[string]struct {
		Hosts, Children []string
		Hostvars        map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	l := listed{Members: map[string][]string{}, Children: map[string][]string{}, Vars: map[string]map[string]any{}}
	names := map[string]bool{}
	for name, g := range raw {
		names[name] = true
		for _, child := range g.Children {
			names[child] = true
		}
	}
	var members func(name string) map[string]bool
	members = func(name string) map[string]bool {
		set := map[string]bool{}
		for _, h := range raw[name].Hosts {
			set[h] = true
		}
		for _, child := range raw[name].Children {
			maps.Copy(set, members(child))
		}
		return set
	}
	for name := range names {
		if name == "_meta" {
			continue
		}
		hosts := slices.Sorted(maps.Keys(members(name)))
		for _, h := range hosts {
			l.Vars[h] = map[string]any{}
		}
		if name != "all" && name != "ungrouped" {
			l.Members[name] = hosts
			l.Children[name] = slices.Sorted(slices.Values(raw[name].Children))
		}
	}
	for h, vars := range raw["_meta"].Hostvars {
		l.Vars[h] = vars
	}
	l.drop(s)
	return l
}

// byUs is the same of our inventory, by way of JSON so that numbers compare.
func byUs(t *testing.T, s *inventorytest.Stranger, inv *inventory.Inventory) listed {
	t.Helper()
	l := listed{Members: map[string][]string{}, Children: map[string][]string{}, Vars: map[string]map[string]any{}}
	for _, h := range inv.Hosts {
		l.Vars[h.Name] = map[string]any{}
		for name, v := range h.Vars {
			l.Vars[h.Name][name] = plain(v.Value)
		}
	}
	for _, g := range inv.Groups {
		var hosts []string
		for _, h := range g.Hosts {
			hosts = append(hosts, h.Name)
		}
		slices.Sort(hosts)
		l.Members[g.Name] = hosts
		children := slices.Clone(g.Children)
		slices.Sort(children)
		l.Children[g.Name] = slices.Compact(children)
	}
	l.drop(s)
	return l
}

// plain returns a value as JSON has it.
func plain(value any) any {
	switch v := value.(type) {
	case int64:
		return float64(v)
	case ansible.Vault:
		return "encrypted"
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plain(v[i])
		}
		return list
	case map[string]any:
		if _, vault := v["__ansible_vault"]; vault {
			return "encrypted"
		}
		if unsafe, ok := v["__ansible_unsafe"]; ok {
			return unsafe
		}
		m := map[string]any{}
		for k := range v {
			m[k] = plain(v[k])
		}
		return m
	}
	return value
}

// drop removes what differs on purpose, and groups that neither have hosts nor
// children: ansible-inventory leaves out most of them.
func (l listed) drop(s *inventorytest.Stranger) {
	for host, vars := range l.Vars {
		for name := range vars {
			if vars[name] = plain(vars[name]); s.Vars[name] {
				delete(vars, name)
			}
		}
		if s.Hosts[host] {
			delete(l.Vars, host)
		}
	}
	for name := range l.Members {
		if len(l.Members[name]) == 0 && len(l.Children[name]) == 0 {
			delete(l.Members, name)
			delete(l.Children, name)
		}
	}
	for name, children := range l.Children {
		l.Children[name] = slices.DeleteFunc(children, func(child string) bool { return len(l.Members[child]) == 0 })
	}
}

// runAnsible runs ansible-inventory for all of them.
func runAnsible(t *testing.T, list []*inventorytest.Stranger) []struct {
	Status         int
	Stdout, Stderr string
} {
	t.Helper()
	cases, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	out := python(t, cases, "testdata/strangers.py")
	var results []struct {
		Status         int
		Stdout, Stderr string
	}
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatal(err)
	}
	return results
}

// python runs a program with Ansible's modules and without any configuration of this
// machine, and returns what it prints.
func python(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	home := t.TempDir()
	config := filepath.Join(home, "ansible.cfg")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", args...)
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + home, "LANG=C.UTF-8", "ANSIBLE_HOME=" + home, "ANSIBLE_CONFIG=" + config,
		"ANSIBLE_LOCALHOST_WARNING=0", "ANSIBLE_NOCOLOR=1", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=1",
	}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s (apt-get install ansible-core)", err, &stderr)
	}
	return out
}

// TestPatternsAreThoseOfAnsible compares the hosts of patterns that Ansible has too.
func TestPatternsAreThoseOfAnsible(t *testing.T) {
	const path = "testdata/patterns.ini"
	patterns := []string{
		"all", "*", "web", "web1", "web1:db1", "web1,db1", "web:db", "web:&fra", "web:!fra", "web:&eu:!web1", "!web", "&fra", "!fra:web:&eu", "web,!web1",
		"eu", "web*", "*1", "db?", "web[!1]*", "*.example.com", "~web[12]$", "~(web|db).*1", "~we", "fra,ber", "fra:ber:!db", "ungrouped", "lonely",
		"db[0]", "db[-1]", "fra[0:1]", "db[1:]", "all[0]", "app[0]", "app[1:2]", "app[-2]", "db[0]:db[-1]", "app:!app[0]", "w*1", "mail.example.com", "192.0.2.9",
	}
	inv, err := inventory.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	var want [][]string
	if err := json.Unmarshal(python(t, nil, append([]string{"testdata/patterns.py", path}, patterns...)...), &want); err != nil {
		t.Fatal(err)
	}
	for i, pattern := range patterns {
		hosts, err := inv.Select(pattern)
		var got []string
		for _, h := range hosts {
			got = append(got, h.Name)
		}
		slices.Sort(got)
		slices.Sort(want[i])
		if d := cmp.Diff(slices.Compact(want[i]), got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", pattern, err, d)
		}
	}
}

// TestStrangersInventories compares hosts, groups and variables with those that
// ansible-inventory --list prints. Each inventory is read the same, or refused for a
// reason that its case names.
func TestStrangersInventories(t *testing.T) {
	list := inventorytest.Strangers(t)
	if len(list) < 100 {
		t.Errorf("there are %d inventories, want at least 100", len(list))
	}
	results := runAnsible(t, list)
	for i, s := range list {
		t.Run(s.Name, func(t *testing.T) {
			t.Chdir(s.Dir)
			inv, err := inventory.Loader{Run: program.Runner(t.Context(), time.Minute)}.Load(s.Sources...)
			if s.Refused != "" || err != nil {
				if err == nil || s.Refused == "" || !strings.Contains(err.Error(), s.Refused) {
					t.Errorf("got the error %v, want %q", err, s.Refused)
				}
				return
			}
			if s.Alone != "" {
				if results[i].Status == 0 {
					t.Errorf("Ansible reads it too")
				}
				return
			}
			if results[i].Status != 0 {
				t.Fatalf("Ansible refuses it: %s", results[i].Stderr)
			}
			if d := cmp.Diff(byAnsible(t, s, results[i].Stdout), byUs(t, s, inv)); d != "" {
				t.Errorf("Ansible (-), vsfleet (+):\n%s", d)
			}
		})
	}
	if testing.Verbose() {
		refused := 0
		for _, s := range list {
			if s.Refused != "" {
				refused++
			}
		}
		fmt.Printf("%d inventories, %d of them refused\n", len(list), refused)
	}
}
