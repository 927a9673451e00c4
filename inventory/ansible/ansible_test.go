package ansible

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// The values of inventories are compared with Ansible's own in package inventory;
// these are the ones that are nowhere there.
func TestLiterals(t *testing.T) {
	for text, want := range map[string]any{
		"1": int64(1), "-1": int64(-1), "+1": int64(1), "--1": int64(1), "0": int64(0), "00": int64(0), "007": "007", "0x_f": int64(15), "0b1_1": int64(3), "1__0": "1__0", "_1": "_1",
		"1.": 1.0, ".5": .5, "1e5": 1e5, "1.5.2": "1.5.2", "1a": "1a", "99999999999999999999": "99999999999999999999", "0xg": "0xg", "1j": "1j",
		"None": nil, "none": "none", "True": true, "true": "true", "Nonesuch": "Nonesuch", "-True": "-True", "- 5": int64(-5), "-": "-", "+": "+",
		"'a'": "a", `"a"`: "a", "'a": "'a", `'a\'b'`: "a'b", `'\x41\u00e9\101\q'`: `Aé` + "A" + `\q`, `'\x4'`: `'\x4'`, `'\N{DASH}'`: `'\N{DASH}'`, "'''a'b'''": "a'b", "b'a'": "b'a'", "f'a'": "f'a'", "r'\\n'": `\n`, "u'a' 'b'": "ab",
		"[]": []any{}, "[1,]": []any{int64(1)}, "[1": "[1", "[1 2]": "[1 2]", "[a]": "[a]", "()": []any{}, "(1)": int64(1), "(1,)": []any{int64(1)}, "1,2": []any{int64(1), int64(2)}, "1,": []any{int64(1)}, "[,]": "[,]",
		"{}": map[string]any{}, "{1: 2, None: 3, True: 4}": map[string]any{"1": int64(2), "null": int64(3), "true": int64(4)}, "{'a'}": "{'a'}", "{[1]: 2}": "{[1]: 2}", "{'a': {'b': []}}": map[string]any{"a": map[string]any{"b": []any{}}},
		"1 # one": int64(1), "'a' # b": "a", "": "", " 1": int64(1), strings.Repeat("[", 60) + strings.Repeat("]", 60): strings.Repeat("[", 60) + strings.Repeat("]", 60),
	} {
		if d := cmp.Diff(want, literal(text, Pos{}).Value); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

func TestSSHArgs(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       SSHArgs
	}{
		{"nothing", "", SSHArgs{}},
		{"a jump host", "-J ops@gate:2200", SSHArgs{Jump: "ops@gate:2200"}},
		{"glued to its option", "-Jgate -p2222 -lroot -ikey", SSHArgs{Jump: "gate", Port: "2222", User: "root", Identity: "key"}},
		{"as -o", "-o ProxyJump=gate -oUser=root -o 'Port 22' -o identityfile=~/k -o HostKeyAlias=x", SSHArgs{Jump: "gate", User: "root", Port: "22", Identity: "~/k", HostKeyAlias: "x"}},
		{"no jump host", "-o ProxyJump=none -o ProxyCommand=none", SSHArgs{Jump: "none"}},
		{"a command that jumps", `-o ProxyCommand="ssh -W %h:%p -q ops@gate -p 2200"`, SSHArgs{Jump: "ops@gate:2200"}},
		{"a command that jumps by netcat", `-o ProxyCommand='/usr/bin/ssh -l ops gate nc %h %p'`, SSHArgs{Jump: "ops@gate"}},
		{"a command that jumps twice", `-o ProxyCommand="ssh -J outer -W [%h]:%p inner"`, SSHArgs{Jump: "outer,inner"}},
		{"a command with a key of its own", `-o ProxyCommand="ssh -i k -A -o StrictHostKeyChecking=no -W %h:%p gate"`,
			SSHArgs{Jump: "gate", Unknown: []string{"-A of ProxyCommand", "-o StrictHostKeyChecking=no of ProxyCommand", "-i k of ProxyCommand"}}},
		{"a command that does something else", "-o 'ProxyCommand=nc -x proxy %h %p'", SSHArgs{Unknown: []string{"-o ProxyCommand=nc -x proxy %h %p"}}},
		{"a command that only looks like it", "-o 'ProxyCommand=ssh gate cat'", SSHArgs{Unknown: []string{"-o ProxyCommand=ssh gate cat"}}},
		{"host keys", "-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=kh", SSHArgs{HostKey: "accept-new", KnownHosts: "kh"}},
		{"no host keys", "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null", SSHArgs{Unknown: []string{"-o StrictHostKeyChecking=no", "-o UserKnownHostsFile=/dev/null"}}},
		{"what does not matter", "-C -q -4 -o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=30 -o ForwardAgent=no", SSHArgs{}},
		{"what does", "-A -L 80:a:80 -o Ciphers=x -F cfg word", SSHArgs{Config: "cfg", Unknown: []string{"-A", "-L 80:a:80", "-o Ciphers=x", "word"}}},
		{"a template", "-o ProxyJump={{ gate }} -J {{ a | default('b') }}", SSHArgs{Jump: "{{a|default(b)}}"}},
		{"options without their arguments", "-o ProxyJump= -o User -C -J", SSHArgs{Unknown: []string{"-o ProxyJump= without a value", "-o User without a value", "-J without its argument"}}},
		{"a quote that does not end", "-J 'a", SSHArgs{Unknown: []string{"-J 'a"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if d := cmp.Diff(row.want, ParseSSHArgs(row.text)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPositionsInJSON(t *testing.T) {
	root, err := ParseJSON([]byte("{\n  \"web\": {\"hosts\": [\"a\",\n    7]}\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	inv, _ := ReadList(root)
	if d := cmp.Diff([]Problem{{Pos: Pos{3, 5}, Msg: `group web: hosts: want a name, have "7"`}}, inv.Problems); d != "" {
		t.Error(d)
	}
	for text, want := range map[string]string{
		"":                               "line 1, column 1: it ends too early",
		"{\"a\": [1,\n 2":                "line 2, column 3: it ends too early",
		"{} {}":                          "line 1, column 5: something follows the object",
		"nonsense":                       "line 1, column 1: invalid character 'o' in literal null (expecting 'u')",
		strings.Repeat("[", 200):         "line 1, column 102: it is nested too deeply",
		"{\"a\": \"" + "x\x01" + "\"}":   "line 1, column 7: invalid character '\\x01' in string literal",
		"Traceback (most recent call)\n": "line 1, column 1: invalid character 'T' looking for beginning of value",
	} {
		if _, err := ParseJSON([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

// ansible-inventory marks what has a tag.
func TestMarksOfAnsibleInventory(t *testing.T) {
	root, err := ParseJSON([]byte(`{"web": ["a"], "_meta": {"hostvars": {"a": {"v": {"__ansible_vault": "x"}, "u": [{"__ansible_unsafe": "{{ y }}"}]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	inv, whole := ReadList(root)
	vars := inv.Hosts[0].Vars
	if d := cmp.Diff([]any{Vault{}, []any{"{{ y }}"}}, []any{vars["v"].Value, vars["u"].Value}); d != "" || !whole {
		t.Error(d)
	}
}

// Nine lines of aliases stand for a billion values, and loops for an endless one.
func TestAliasesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("all:\n  vars:\n    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "    a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	for name, text := range map[string]string{
		"a tower of values": b.String(),
		"a loop of values":  "all: {vars: {a: &a [*a]}}\n",
		"a loop of merges":  "all: {vars: {a: &a {<<: *a}}}\n",
		"a loop of groups":  "all: &g {children: {a: *g, b: *g}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
				t.Fatal(err)
			}
			inv := ReadYAML(doc.Content[0])
			if len(inv.Problems) != 1 || inv.Problems[0].Msg != "the values of this file are nested too deeply, or aliases make them too large" {
				t.Errorf("%.300v", inv.Problems)
			}
		})
	}
}
