package playbooks

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/batch"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Options say how a playbook is read.
type Options struct {
	// Read returns the content of a file.
	Read func(path string) ([]byte, error)
	// Fleet is what the inventory knows; nil: anything.
	Fleet *Fleet
	// Vars override variables, as NAME=VALUE.
	Vars []string
}

// loader reads the files of one playbook.
type loader struct {
	yamlpos.Report
	Options
	extra   map[string]string
	used    map[string]bool // of extra
	open    []string        // files that are being read, each including the next
	read    int             // files
	names   []string        // of all variables
	missing map[string]Position
}

// Bounds of a playbook: a file may include others.
const (
	maxFiles   = 200
	maxInclude = 16
)

// Load reads a playbook and the files that it includes. An error is an *Errors with
// everything that is wrong in any of them.
func Load(path string, o Options) (*Book, error) {
	l := &loader{Options: o, extra: map[string]string{}, used: map[string]bool{}, missing: map[string]Position{}}
	for _, text := range o.Vars {
		name, value, ok := strings.Cut(text, "=")
		if !ok || !isName(name) {
			l.Add(Position{}, "write NAME=VALUE", "-e %q sets no variable", yamlpos.Short(text))
			continue
		}
		l.extra[name] = value
	}
	book := &Book{Name: path, Plays: l.plays(path, nil)}
	if o.Fleet != nil {
		l.names = slices.AppendSeq(l.names, maps.Keys(o.Fleet.Vars))
	}
	for _, name := range slices.Sorted(maps.Keys(l.extra)) {
		if !l.used[name] && !l.inventoryHas(name) {
			l.Add(Position{}, yamlpos.DidYouMean(name, l.names), "-e %s: no play has such a variable", name)
		}
	}
	if len(book.Plays) == 0 && l.Err() == nil {
		l.Add(Position{File: path, Line: 1, Column: 1}, "", "the playbook has no plays")
	}
	if err := l.Err(); err != nil {
		return nil, err
	}
	return book, nil
}

func (l *loader) inventoryHas(name string) bool {
	return l.Fleet == nil || hasKey(l.Fleet.Vars, name)
}

func hasKey(m map[string]any, name string) bool { _, ok := m[name]; return ok }

// file reads a file as a list.
func (l *loader) file(path string, from Position, noun, least string) (*yamlpos.Decoder, []*yaml.Node) {
	d := &yamlpos.Decoder{File: path, Report: &l.Report, Doc: yamlpos.Doc{
		Noun: noun, Page: "docs/playbooks.md", Least: least, Top: "a list of plays", Foreign: foreign,
	}}
	path = filepath.Clean(path)
	switch {
	case slices.Contains(l.open, path):
		l.Add(from, "", "%s includes itself: %s", path, strings.Join(append(l.open, path), " → "))
		return nil, nil
	case len(l.open) >= maxInclude || l.read >= maxFiles:
		l.Add(from, "", "too many files include others")
		return nil, nil
	}
	data, err := l.Read(path)
	if err != nil {
		if from.File == "" {
			from = Position{File: path}
		}
		l.Add(from, "vsfleet play --list shows those that ship with vsfleet", "%v", err)
		return nil, nil
	}
	if l.read++; !slices.Contains(l.Files, path) {
		l.Files = append(l.Files, path)
	}
	root := d.Parse(data)
	if root == nil {
		return nil, nil
	}
	if root = yamlpos.Target(root); root.Kind != yaml.SequenceNode || yamlpos.HasForeignTag(root) {
		d.Wrong(noun, root, "a list, each item with a dash before it")
		return nil, nil
	}
	return d, root.Content
}

// foreign names the kind of a file that is not one of our playbooks.
func foreign(root *yaml.Node) string {
	if root.Kind == yaml.MappingNode && (yamlpos.HasKey(root, "guests") || yamlpos.HasKey(root, "hosts") && !yamlpos.HasKey(root, "steps")) {
		return "an inventory"
	}
	if root.Kind != yaml.SequenceNode {
		return ""
	}
	for _, play := range root.Content {
		for _, key := range []string{"tasks", "roles", "gather_facts", "import_playbook", "pre_tasks"} {
			if yamlpos.HasKey(play, key) {
				return "an Ansible playbook (it has " + key + ")"
			}
		}
	}
	return ""
}

// plays reads a playbook. vars are those of the play that includes it.
func (l *loader) plays(path string, vars map[string]any) []*Play {
	return l.playsOf(path, Position{}, vars)
}

func (l *loader) playsOf(path string, from Position, vars map[string]any) (list []*Play) {
	d, nodes := l.file(path, from, "a playbook", "- hosts: all\n  steps: []")
	if d == nil {
		return nil
	}
	l.open = append(l.open, filepath.Clean(path))
	defer func() { l.open = l.open[:len(l.open)-1] }()
	for _, n := range nodes {
		n = yamlpos.Target(n)
		if yamlpos.HasKey(n, "play") {
			list = append(list, l.includePlays(d, n)...)
			continue
		}
		if p := l.play(d, n, vars); p != nil {
			list = append(list, p)
		}
	}
	return list
}

// includePlays reads "- play: other.yml".
func (l *loader) includePlays(d *yamlpos.Decoder, n *yaml.Node) []*Play {
	var file, name Given
	vars := map[string]any{}
	d.Fields("play", n, "a mapping, as {play: other.yml}", []yamlpos.Key{
		{Name: "play", Read: d.Text(&file, "a file beside this one")},
		{Name: "name", Read: d.Text(&name, "a name")},
		{Name: "vars", Read: l.vars(d, vars)},
	})
	if !file.OK() {
		return nil
	}
	return l.playsOf(beside(d.File, file.Value), file.Pos, vars)
}

func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), name)
}

// play reads one play.
func (l *loader) play(d *yamlpos.Decoder, n *yaml.Node, vars map[string]any) *Play {
	p := &Play{Vars: map[string]any{}, Pos: d.At(n)}
	var name, hosts Given
	var tags []Given
	var steps, handlers *yaml.Node
	given := d.Fields("a play", n, "a mapping, as {hosts: all, steps: […]}", []yamlpos.Key{
		{Name: "name", Read: d.Text(&name, "a name")},
		{Name: "hosts", Read: d.Text(&hosts, `a pattern of hosts, as all or "web*"`)},
		{Name: "tags", Read: d.Texts(&tags, "a list of words, as [update]")},
		{Name: "vars", Read: l.vars(d, p.Vars)},
		{Name: "strategy", Read: func(name string, v *yaml.Node) { p.Strategy = l.strategy(d, name, v) }},
		{Name: "steps", Read: func(_ string, v *yaml.Node) { steps = yamlpos.Target(v) }},
		{Name: "handlers", Read: func(_ string, v *yaml.Node) { handlers = yamlpos.Target(v) }},
	})
	if given == nil {
		return nil
	}
	maps.Copy(p.Vars, vars)
	l.override(d, p)
	p.Tags = words(tags)
	p.Name = name.Value
	l.hosts(d, p, hosts)
	if steps == nil {
		d.Add(p.Pos, "", "a play has no steps")
		return p
	}
	s := &section{loader: l, d: d, play: p, registered: map[string]registered{}}
	p.Steps = s.list(steps, "steps")
	if handlers != nil {
		s.handlers = true
		p.Handlers = s.list(handlers, "handlers")
	}
	s.notifications()
	return p
}

// override gives variables the values of -e.
func (l *loader) override(d *yamlpos.Decoder, p *Play) {
	for name, value := range p.Vars {
		l.names = append(l.names, name)
		text, ok := l.extra[name]
		if ok {
			l.used[name] = true
			typed, err := as(value, text)
			if err != nil {
				l.Once(Position{}, "", "-e %s: %v", name, err)
			}
			p.Vars[name] = typed
			continue
		}
		if _, reported := l.missing[name]; value == nil && !reported {
			l.missing[name] = p.Pos
			l.Add(p.Pos, fmt.Sprintf("give it with -e %s=…", name), "the variable %s has no value", name)
		}
	}
	for name, text := range l.extra {
		if hasKey(p.Vars, name) || !l.inventoryHas(name) {
			continue
		}
		typed := any(text) // over that of the inventory
		if l.Fleet != nil {
			var err error
			if typed, err = as(l.Fleet.Vars[name], text); err != nil {
				l.Once(Position{}, "", "-e %s: %v", name, err)
			}
		}
		p.Vars[name] = typed
	}
}

// as returns a text as a value of the same type as the variable has.
func as(value any, text string) (any, error) {
	switch value.(type) {
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, fmt.Errorf("want a whole number, have %q", text)
		}
		return n, nil
	case float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0.0, fmt.Errorf("want a number, have %q", text)
		}
		return n, nil
	case bool:
		if text != "true" && text != "false" {
			return false, fmt.Errorf("want true or false, have %q", text)
		}
		return text == "true", nil
	case []string:
		return strings.FieldsFunc(text, func(c rune) bool { return c == ',' }), nil
	}
	return text, nil
}

// hosts sets the pattern of a play, in which variables of the play may stand.
func (l *loader) hosts(d *yamlpos.Decoder, p *Play, hosts Given) {
	if !hosts.OK() {
		d.Add(p.Pos, `name them: hosts: all, or a pattern as "web*"`, "a play has no hosts")
		return
	}
	p.Hosts = l.constant(hosts, "hosts", p)
	if l.Fleet != nil && l.Fleet.Hosts != nil && p.Hosts != "" {
		if err := l.Fleet.Hosts(p.Hosts); err != nil {
			l.Add(hosts.Pos, "", "hosts: %v", err)
		}
	}
}

// constant replaces the variables of a text that is the same on all hosts.
func (l *loader) constant(t Given, what string, p *Play) string {
	text, err := parseText(t.Value, t.Pos)
	if err != nil {
		l.Add(err.Pos, err.Hint, "%s", err.Msg)
		return ""
	}
	for _, variable := range text.variables() {
		name, ok := strings.CutPrefix(variable, "vars.")
		value, known := p.Vars[name]
		switch {
		case !ok:
			l.Add(t.Pos, "variables of the play and of -e can: ${vars.X}", "%s: ${%s} cannot be used here", what, variable)
			return ""
		case !known:
			l.Add(t.Pos, yamlpos.DidYouMean(name, slices.Sorted(maps.Keys(p.Vars))), "%s: the play has no variable %s", what, yamlpos.Short(name))
			return ""
		case value == nil:
			return "" // which is reported
		}
	}
	value, fail := text.In(&Scope{Vars: p.Vars})
	if fail != nil {
		l.Add(t.Pos, "", "%s: %v", what, fail)
	}
	return value
}

// vars reads variables.
func (l *loader) vars(d *yamlpos.Decoder, to map[string]any) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		d.Entries(name, n, "a mapping of variables, as {release: 2.4}", func(k Given, v *yaml.Node) {
			if !isName(k.Value) {
				d.Add(k.Pos, "", "vars: %q is no name: want letters, digits and _, a letter first", yamlpos.Short(k.Value))
				return
			}
			to[k.Value] = l.value(d, k.Value, yamlpos.Target(v))
		})
	}
}

func (l *loader) value(d *yamlpos.Decoder, name string, v *yaml.Node) any {
	const want = "a text, a number, true or false, or a list of texts"
	switch {
	case v.Kind == yaml.SequenceNode && !yamlpos.HasForeignTag(v):
		var list []Given
		d.Texts(&list, want)(name, v)
		return words(list)
	case v.Kind != yaml.ScalarNode || yamlpos.HasForeignTag(v):
		d.Wrong(name, v, want)
		return ""
	}
	switch v.Tag {
	case "!!null":
		return nil
	case "!!int":
		if n, err := strconv.Atoi(v.Value); err == nil {
			return n
		}
	case "!!float":
		if n, err := strconv.ParseFloat(v.Value, 64); err == nil {
			return n
		}
	case "!!bool":
		return v.Value == "true" || v.Value == "True" || v.Value == "TRUE"
	}
	return v.Value
}

func words(list []Given) []string {
	out := make([]string, len(list))
	for i, t := range list {
		out[i] = t.Value
	}
	return out
}

func isName(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// strategy reads how a play goes through its hosts.
func (l *loader) strategy(d *yamlpos.Decoder, name string, n *yaml.Node) (s Strategy) {
	var serial []Given
	var canary, pause, maxFail, onFailure, timeout Given
	var confirm yamlpos.Given[bool]
	var retries yamlpos.Given[int]
	d.Fields(name, n, "a mapping, as {serial: [1, 10%, 100%], max_fail: 1}", []yamlpos.Key{
		{Name: "serial", Read: func(name string, v *yaml.Node) {
			const want = "a size or a list of them, as 5 or [1, 10%, 100%]"
			if yamlpos.Target(v).Kind == yaml.SequenceNode {
				d.Texts(&serial, want)(name, v)
				return
			}
			var one Given
			if d.Text(&one, want)(name, v); one.OK() {
				serial = []Given{one}
			}
		}},
		{Name: "canary", Read: d.Text(&canary, "a pattern of hosts")},
		{Name: "pause", Read: d.Text(&pause, "a time, as 30s")},
		{Name: "confirm", Read: d.Flag(&confirm)},
		{Name: "max_fail", Read: d.Text(&maxFail, "a number of hosts or a percentage, as 3 or 10%")},
		{Name: "on_failure", Read: d.Text(&onFailure, "revert or keep")},
		{Name: "retries", Read: d.Number(&retries, 0, 100)},
		{Name: "timeout", Read: d.Text(&timeout, "a time, as 10m")},
	})
	wrong := func(t Given, what string, err error) {
		if err != nil {
			l.Add(t.Pos, "", "%s: %v", what, err)
		}
	}
	for _, t := range serial {
		sizes, err := batch.ParseSizes(t.Value)
		wrong(t, "serial", err)
		s.Serial = append(s.Serial, sizes...)
	}
	var err error
	if maxFail.OK() {
		s.MaxFail, err = batch.ParseSize(maxFail.Value)
		wrong(maxFail, "max_fail", err)
	}
	if pause.OK() {
		s.Pause, err = ParseDuration(pause.Value)
		wrong(pause, "pause", err)
	}
	if timeout.OK() {
		s.Timeout, err = ParseDuration(timeout.Value)
		wrong(timeout, "timeout", err)
	}
	if s.OnFailure = onFailure.Value; onFailure.OK() && onFailure.Value != "revert" && onFailure.Value != "keep" {
		l.Add(onFailure.Pos, yamlpos.DidYouMean(onFailure.Value, []string{"revert", "keep"}), "on_failure: there is no %q, want revert or keep", yamlpos.Short(onFailure.Value))
	}
	if canary.OK() && l.Fleet != nil && l.Fleet.Hosts != nil {
		if err := l.Fleet.Hosts(canary.Value); err != nil {
			l.Add(canary.Pos, "", "canary: %v", err)
		}
	}
	s.Canary, s.Confirm, s.Retries = canary.Value, confirm.Value, retries.Value
	return s
}
