package playbooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// files are the files of a test.
type files map[string]string

func (f files) read(path string) ([]byte, error) {
	text, ok := f[path]
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return []byte(text), nil
}

var fleet = &Fleet{
	Vars: map[string]any{"domain": "", "old-name": "", "cores": 0}, Sealed: []string{"password"}, Labels: []string{"site", "role"}, Images: []string{"bookworm"},
	Hosts: func(pattern string) error {
		if pattern == "all" || strings.HasPrefix(pattern, "web") {
			return nil
		}
		return fmt.Errorf("no host or group matches %q", pattern)
	},
	Guests: func(name string) error {
		if name == "www" {
			return nil
		}
		return fmt.Errorf("no guest matches %q", name)
	},
}

func load(text string, vars ...string) (*Book, error) {
	return Load("p.yml", Options{Read: files{"p.yml": text}.read, Fleet: fleet, Vars: vars})
}

// steps are a play with these steps.
func steps(text string) string {
	return "- hosts: all\n  vars: {count: 3, name: a, on: true, ratio: 1.5, users: [a, b]}\n  steps:\n" + indent(text)
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + line)
	}
	return b.String()
}

func TestMistakes(t *testing.T) {
	for _, row := range []struct {
		name, book string
		want       []string
	}{
		{"an unknown key of a play", "- host: all\n  steps: []\n", []string{`p.yml:1:3: a play has no hosts (name them: hosts: all, or a pattern as "web*")`, `p.yml:1:3: unknown key "host" (did you mean "hosts"?)`}},
		{"a pattern that names nothing", "- hosts: wbe\n  steps: []\n", []string{`p.yml:1:10: hosts: no host or group matches "wbe"`}},
		{"no steps", "- hosts: all\n", []string{"p.yml:1:3: a play has no steps"}},
		{"an empty file", "", []string{"p.yml:1:1: the file is empty (it wants at least - hosts: all\n  steps: [])"}},
		{"an inventory", "hosts: {a: {}}\n", []string{"p.yml:1:1: this looks like an inventory (a playbook of vsfleet has a list of plays at its top, as in docs/playbooks.md)"}},
		{"Ansible's", "- hosts: all\n  tasks: []\n", []string{"p.yml:1:1: this looks like an Ansible playbook (it has tasks) (a playbook of vsfleet has a list of plays at its top, as in docs/playbooks.md)"}},
		{"an unknown step", steps("- exek: [a]\n"), []string{`p.yml:4:7: unknown key "exek" (did you mean "exec"?)`}},
		{"a variable in braces in a condition", steps("- exec: [a]\n  when: host.name != \"${vars.release}\"\n"), []string{"p.yml:5:27: when: a condition takes no ${…} (write vars.release)"}},
		{"a variable in braces in a list", steps("- exec: [a]\n  loop: {list: \"${vars.list}\"}\n"), []string{"p.yml:5:20: loop: an expression takes no ${…} (write vars.list)"}},
		{"a step that does nothing", steps("- name: a\n"), []string{"p.yml:4:7: a step does not say what to do (one of check, image, guest, exec, copy, template, wait, network, limits, stat, assert, pause, confirm, play)"}},
		{"two steps in one", steps("- exec: [a]\n  wait: 3\n"), []string{"p.yml:5:13: a step has both exec and wait (make it two steps)"}},
		{"an unknown parameter", steps("- copy: {to: /a, contnet: b}\n"), []string{"p.yml:4:13: copy: want one of content, source, have 0 of them", `p.yml:4:22: unknown key "contnet" (did you mean "content"?)`}},
		{"a parameter that is missing", steps("- template: {source: a}\n"), []string{"p.yml:4:17: template: to is missing (to is absolute path of the file)"}},
		{"a path that is not absolute", steps("- stat: etc\n"), []string{`p.yml:4:13: path: want an absolute path without . and .., as /etc/motd, have "etc"`}},
		{"a word that is none", steps("- guest: {name: www, do: strat}\n"), []string{`p.yml:4:30: do: there is no "strat", want one of build, start, stop, restart, delete (did you mean "start"?)`}},
		{"a guest that nobody has", steps("- guest: wwww\n"), []string{`p.yml:4:14: guest: no guest matches "wwww"`}},
		{"an image that nobody has", steps("- image: bokworm\n"), []string{`p.yml:4:14: image: the inventory has no image "bokworm" (did you mean "bookworm"?)`}},
		{"a condition that is a number", steps("- exec: [a]\n  when: vars.count\n"), []string{"p.yml:5:13: when: want a condition, which is true or false, have int (compare it: … != 0)"}},
		{"a condition that is a text", steps("- exec: [a]\n  when: vars.name\n"), []string{`p.yml:5:13: when: want a condition, which is true or false, have string (compare it: … != "")`}},
		{"a condition with another type", steps("- exec: [a]\n  when: vars.count == \"3\"\n"), []string{`p.yml:5:24: when: invalid operation: == (mismatched types int and string)`}},
		{"a condition with an unknown name", steps("- exec: [a]\n  when: 'vars.cuont == 3'\n"), []string{`p.yml:5:19: when: unknown name "cuont" (did you mean "count"?)`}},
		{"a condition as in Ansible", steps("- exec: [a]\n  when: \"{{ x }}\"\n"), []string{`p.yml:5:14: when: an expression is written without {{ }} (write its names as they are: vars.x == "a")`}},
		{"a condition that breaks off", steps("- exec: [a]\n  when: vars.count >\n"), []string{`p.yml:5:24: when: unexpected token EOF`}},
		{"a result that nobody registers", steps("- exec: [a]\n  when: out.rc == 0\n"), []string{`p.yml:5:13: when: unknown name "out" (known are check, facts, host, vars; put a text in quotes: "out")`}},
		{"a field that a result lacks", steps("- stat: /a\n  register: st\n- exec: [a]\n  when: st.exits\n"), []string{`p.yml:7:16: when: unknown name "exits" (did you mean "exists"?)`}},
		{"a result before it is there", steps("- exec: [a]\n  when: st.exists\n- stat: /a\n  register: st\n"), []string{`p.yml:5:13: when: unknown name "st" (known are check, facts, host, vars; put a text in quotes: "st")`}},
		{"an unknown variable in a text", steps("- exec: [a, \"${vars.cuont}\"]\n"), []string{"p.yml:4:17: unknown variable ${vars.cuont} (did you mean \"vars.count\"?)"}},
		{"a variable that is encrypted", steps("- exec: [a, \"${vars.password}\"]\n"), []string{"p.yml:4:17: unknown variable ${vars.password} (it is encrypted or a mapping in the inventory, which playbooks cannot use)"}},
		{"an item outside a loop", steps("- exec: [a, \"${item}\"]\n"), []string{"p.yml:4:17: unknown variable ${item} (known are check, facts, host, vars; write $${ for ${ itself)"}},
		{"a handler that is not there", "- hosts: all\n  steps:\n    - copy: {to: /a, content: b}\n      notify: relaod\n  handlers:\n    - name: reload\n      exec: [a]\n", []string{
			`p.yml:4:15: notify: the play has no handler "relaod" (did you mean "reload"?)`, `p.yml:6:7: no step notifies the handler "reload"`}},
		{"a variable without a value", "- hosts: all\n  vars: {guest: }\n  steps: []\n", []string{"p.yml:1:3: the variable guest has no value (give it with -e guest=…)"}},
		{"in where it cannot be", steps("- pause: 3s\n  in: www\n"), []string{"p.yml:5:11: in: pause is not done in a guest"}},
		{"register where there is no result", steps("- pause: 3s\n  register: a\n"), []string{"p.yml:4:7: register: a step pause cannot have it"}},
		{"a name that is taken", steps("- exec: [a]\n  register: host\n"), []string{"p.yml:5:17: register: host is taken: choose another name"}},
		{"retries without until", steps("- exec: [a]\n  retries: 3\n"), []string{"p.yml:4:7: retries and delay are for a step with until (add until: CONDITION)"}},
		{"a strategy", "- hosts: all\n  strategy: {serial: [0, x], max_fail: 200%, on_failure: revrt, canary: no}\n  steps: []\n", []string{
			`p.yml:2:23: serial: a batch has at least one host, have "0"`, `p.yml:2:26: serial: want a number of hosts or a percentage, as 3 or 10%, have "x"`,
			`p.yml:2:40: max_fail: want a percentage from 0% to 100%, have "200%"`, `p.yml:2:58: on_failure: there is no "revrt", want revert or keep (did you mean "revert"?)`,
			`p.yml:2:73: canary: no host or group matches "no"`}},
		{"a file that is not there", steps("- play: other.yml\n"), []string{`p.yml:4:13: other.yml: file does not exist (vsfleet play --list shows those that ship with vsfleet)`}},
		{"a file that includes itself", "- play: p.yml\n", []string{"p.yml:1:9: p.yml includes itself: p.yml → p.yml"}},
		{"a long wait", steps("- wait: {port: 99999}\n"), []string{`p.yml:4:20: port: want a port from 1 to 65535, have "99999"`}},
		{"a variable named by an expression", steps("- exec: [a]\n  when: vars[host.name] == \"a\"\n"), []string{`p.yml:5:13: when: a variable is named by an expression (write vars.NAME or vars["NAME"])`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(row.book)
			var all *Errors
			if !errors.As(err, &all) {
				t.Fatalf("no errors: %v", err)
			}
			var got []string
			for _, e := range all.All {
				got = append(got, e.Error())
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(row.want, "\n  "))
			}
		})
	}
}

func TestVariablesOfTheCommandLine(t *testing.T) {
	book := "- hosts: \"${vars.where}\"\n  vars: {where: , count: 3, on: false, users: [a]}\n  steps: []\n"
	for _, row := range []struct {
		name string
		vars []string
		want any
	}{
		{"take the types of the play's", []string{"where=web1", "count=5", "on=true", "users=x,y"}, map[string]any{"where": "web1", "count": 5, "on": true, "users": []string{"x", "y"}}},
		{"and those of the inventory", []string{"where=web1", "domain=a"}, map[string]any{"where": "web1", "count": 3, "on": false, "users": []string{"a"}, "domain": "a"}},
		{"which have types as well", []string{"where=web1", "cores=x"}, `-e cores: want a whole number, have "x"`},
		{"must have that type", []string{"where=web1", "count=x"}, `-e count: want a whole number, have "x"`},
		{"must be known", []string{"where=web1", "cuont=1"}, `-e cuont: no play has such a variable (did you mean "count"?)`},
		{"have a value", []string{"where"}, `-e "where" sets no variable (write NAME=VALUE)`},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, err := load(book, row.vars...)
			if want, ok := row.want.(string); ok {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Plays[0]; got.Hosts != "web1" || !reflect.DeepEqual(got.Vars, row.want) {
				t.Errorf("got %s %v", got.Hosts, got.Vars)
			}
		})
	}
}

func scope() *Scope {
	return &Scope{
		Host: Host{Name: "web1", Address: "192.0.2.1", Groups: []string{"web"}, Labels: map[string]string{"site": "fra", "role": ""}},
		Vars: map[string]any{"count": 3, "name": "a", "on": true, "ratio": 1.5, "users": []string{"a", "b"}, "domain": "example.net"},
	}
}

func TestConditions(t *testing.T) {
	for _, row := range []struct {
		cond string
		want any
	}{
		{`vars.count > 2 and vars.on`, true},
		{`host.labels.site == "fra"`, true},
		{`host.labels.role == "db"`, false},
		{`"web" in host.groups`, true},
		{`len(vars.users) == 2`, true},
		{`vars.ratio > 1`, true},
		{`out.rc == 0 and out.stdout contains "lo"`, true},
		{`out.changed`, true},
		{`not check`, true},
		{`vars["old-name"] == "x"`, `vars["old-name"] == "x": host web1 has no variable vars.old-name`},
		{`fromJSON(out.stdout).x`, "no truth value"},
	} {
		t.Run(row.cond, func(t *testing.T) {
			b, err := load(steps("- exec: [a]\n  register: out\n- exec: [b]\n  when: |\n    " + row.cond + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			sc := scope()
			out := b.Plays[0].Steps[0]
			stdout := "hello"
			if strings.Contains(row.cond, "JSON") {
				stdout = `{"x": 3}`
			}
			sc.Register("out", out.Kind, false, Result{Changed: true, Values: map[string]any{"rc": 0, "stdout": stdout}})
			got, _, err := All(b.Plays[0].Steps[1].When, sc)
			if want, ok := row.want.(bool); ok {
				if err != nil || got != want {
					t.Errorf("got %v, %v", got, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), row.want.(string)) {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

func TestTexts(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"plain", "plain"},
		{"${host.name}.${vars.domain}", "web1.example.net"},
		{"${host.labels.site}-${vars.count}-${vars.on}-${vars.users}", "fra-3-true-a b"},
		{"${vars.old-name:-none}", "none"},
		{"${host.labels.role:-any}", "any"},
		{"$${HOME}", "${HOME}"},
		{"${vars.old-name}", "p.yml:4:13: host web1 has no variable ${vars.old-name} (give a default: ${vars.old-name:-…})"},
	} {
		t.Run(row.text, func(t *testing.T) {
			b, err := load(steps("- exec: \"" + row.text + "\"\n"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.Plays[0].Steps[0].Text("shell", scope())
			if err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestIncludedFiles(t *testing.T) {
	b, err := Load("dir/p.yml", Options{Fleet: fleet, Read: files{
		"dir/p.yml":   "- play: q.yml\n  vars: {x: 5}\n- hosts: all\n  steps:\n    - play: s.yml\n      when: facts.cpus > 1\n      tags: [more]\n",
		"dir/q.yml":   "- hosts: all\n  vars: {x: 1}\n  steps: [{exec: [\"${vars.x}\"]}]\n",
		"dir/s.yml":   "- exec: [a]\n  when: facts.memory > 1\n- play: t/u.yml\n",
		"dir/t/u.yml": "- exec: [b]\n",
	}.read})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Plays[0].Vars["x"]; len(b.Plays) != 2 || got != 5 {
		t.Errorf("%d plays, x is %v", len(b.Plays), got)
	}
	list := b.Plays[1].Steps
	if len(list) != 2 || len(list[0].When) != 2 || len(list[1].When) != 1 || !slices.Equal(list[1].Tags, []string{"more"}) {
		t.Errorf("%d steps: %+v", len(list), list)
	}
}

func TestSelect(t *testing.T) {
	text := steps("- {name: one, exec: [a], tags: [x], register: out}\n- {name: two, exec: [a], tags: [y, z]}\n" +
		"- {name: three, exec: [a], tags: [never, w]}\n- {name: four, exec: [a], tags: [always]}\n- {name: five, exec: [a], when: out.rc == 0, tags: [q]}\n")
	for _, row := range []struct {
		name string
		sel  Selection
		want string
	}{
		{"nothing chosen is all but never", Selection{}, "one two four five"},
		{"a tag, and always", Selection{Tags: []string{"y"}}, "two four"},
		{"never, if it is named", Selection{Tags: []string{"w"}}, "three four"},
		{"skipped", Selection{Skip: []string{"z", "always"}}, "one five"},
		{"from a step on", Selection{StartAt: "two", Skip: []string{"q"}}, "two four"},
		{"an unknown tag", Selection{Tags: []string{"yy"}}, `no step has the tag "yy"`},
		{"an unknown step", Selection{StartAt: "tow"}, `--start-at: no step is called "tow" (did you mean "two"?)`},
		{"a result that is left out", Selection{Tags: []string{"q"}}, `the step needs the result "out" of a step that is left out`},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, err := load(text)
			if err != nil {
				t.Fatal(err)
			}
			chosen, err := b.Select(row.sel)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				var names []string
				for _, st := range chosen.Plays[0].Steps {
					names = append(names, st.Title(scope()))
				}
				got = strings.Join(names, " ")
			}
			if !strings.Contains(got, row.want) || err == nil && got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestAStepKnowsWhoseResultsItNeeds(t *testing.T) {
	b, err := load(steps("- exec: [a]\n  register: out\n- exec: [\"${out.stdout}\"]\n- exec: [b]\n  when: out.rc == 0\n- exec: [c]\n- exec: [d]\n  loop: {list: 'split(out.stdout, \"\\n\")'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []bool
	for _, st := range b.Plays[0].Steps {
		got = append(got, st.Uses("out"))
	}
	if want := []bool{false, true, true, false, true}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The loader and the schema know the same keys.
func TestSchema(t *testing.T) {
	var s struct {
		Definitions map[string]struct {
			Properties map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	_, err := load("- hosts: all\n  qqqqqqqqqqqqqq: 1\n  steps: [{exec: [a], qqqqqqqqqqqqqq: 1}]\n")
	var all *Errors
	if !errors.As(err, &all) || len(all.All) != 2 {
		t.Fatal(err)
	}
	for i, name := range []string{"play", "step"} {
		var keys []string
		for key := range s.Definitions[name].Properties {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		if want := "known here: " + strings.Join(keys, ", "); all.All[i].Hint != want {
			t.Errorf("%s: the loader says %s\nthe schema %s", name, all.All[i].Hint, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "10": 10 * time.Second, "0.5": time.Second / 2, "1h": time.Hour, "0": 0, "-1s": 0, "x": 0, "1e9": 0, "": 0} {
		if got, err := ParseDuration(text); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

// The examples of the reference are playbooks.
func TestExamples(t *testing.T) {
	for _, k := range Kinds {
		text := steps("- " + strings.ReplaceAll(k.Example, "\n", "\n  ") + "\n")
		_, err := Load("p.yml", Options{Read: files{"p.yml": text, "checks.yml": "- exec: [a]\n"}.read, Fleet: fleet})
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	}
}
