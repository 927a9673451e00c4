package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/check"
	"github.com/vsfleet/vsfleet/playbooks"
)

const root = "../.."

// page is a Markdown file, without the fences.
type page struct {
	name   string // below root
	prose  []line
	fences []fence
}

type line struct {
	number int
	text   string
}

type fence struct {
	number   int // of its first line
	language string
	lines    []line
}

func (f fence) text() string {
	var b strings.Builder
	for _, l := range f.lines {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}

// pages returns those at the top and all in docs.
func pages(t *testing.T) []page {
	t.Helper()
	names := []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			names = append(names, strings.TrimPrefix(path, root+"/"))
		}
	}
	var list []page
	for _, name := range names {
		list = append(list, parse(name, read(t, name)))
	}
	return list
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parse(name, text string) page {
	p := page{name: name}
	inside := false
	for i, s := range strings.Split(text, "\n") {
		l := line{i + 1, s}
		language, mark := strings.CutPrefix(strings.TrimSpace(s), "```")
		switch {
		case mark && !inside:
			p.fences = append(p.fences, fence{number: l.number, language: language})
			inside = true
		case mark:
			inside = false
		case inside:
			f := &p.fences[len(p.fences)-1]
			f.lines = append(f.lines, l)
		default:
			p.prose = append(p.prose, l)
		}
	}
	return p
}

// TestCommandsExist takes every line of a fence and every `…` that begins with
// vsfleet, and asks vsfleet's help for its command and flags.
func TestCommandsExist(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "vsfleet")
	build := exec.Command("go", "build", "-o", binary, "./cmd/vsfleet")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	h := &helper{binary: binary, known: map[string]help{}}
	seen := 0
	for _, p := range pages(t) {
		var lines []line
		for _, f := range p.fences {
			lines = append(lines, f.lines...)
		}
		for _, l := range p.prose {
			for _, span := range codeSpan.FindAllStringSubmatch(l.text, -1) {
				lines = append(lines, line{l.number, span[1]})
			}
		}
		for _, l := range lines {
			m := commandLine.FindStringSubmatch(l.text)
			if m == nil {
				continue
			}
			seen++
			if err := h.check(words(m[1])); err != nil {
				t.Errorf("%s:%d: %s: %v", p.name, l.number, strings.TrimSpace(l.text), err)
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d command lines were found", seen)
	}
}

var (
	codeSpan    = regexp.MustCompile("`([^`]+)`")
	commandLine = regexp.MustCompile(`^\s*(?:\$ )?(?:source <\()?(?:bin/)?vsfleet (.*)$`)
)

// words splits a line as a shell does, as far as the documentation needs it: up
// to a comment, a pipe or a redirection.
func words(s string) []string {
	var list []string
	var word strings.Builder
	quote, begun := rune(0), false
	end := func() {
		if begun {
			list = append(list, word.String())
		}
		word.Reset()
		begun = false
	}
	for _, c := range s {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == ' ':
			end()
		case c == '#' && !begun, strings.ContainsRune("|<>;)", c), c == '…':
			end()
			return list
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	end()
	return list
}

func TestWords(t *testing.T) {
	for in, want := range map[string][]string{
		`stat --sort rss   # largest`:      {"stat", "--sort", "rss"},
		`run -- 'df -h / | tail -1'`:       {"run", "--", "df -h / | tail -1"},
		`inventory schema > fleet.json`:    {"inventory", "schema"},
		`-i "a b".yml -o json`:             {"-i", "a b.yml", "-o", "json"},
		`completion bash)`:                 {"completion", "bash"},
		`guest start 'lab*/www' | grep ''`: {"guest", "start", "lab*/www"},
	} {
		if got := words(in); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

// help is the help text of one of vsfleet's commands, parsed.
type help struct {
	commands []string
	flags    map[string]bool // "--name" and "-n": does it take a value?
}

type helper struct {
	binary string
	known  map[string]help // by path: "", "guest", "guest exec"
}

var flagLine = regexp.MustCompile(`^ {2,6}(?:(-\w), )?(--[\w-]+)( \S+)? {2,}`)

func (h *helper) of(path []string) (help, error) {
	key := strings.Join(path, " ")
	if known, ok := h.known[key]; ok {
		return known, nil
	}
	out, err := exec.Command(h.binary, append(slices.Clone(path), "--help")...).Output()
	if err != nil {
		return help{}, fmt.Errorf("vsfleet %s --help: %w", key, err)
	}
	found := help{flags: map[string]bool{}}
	section := ""
	for text := range strings.Lines(string(out)) {
		text = strings.TrimRight(text, "\n")
		switch {
		case strings.HasSuffix(text, ":") && !strings.HasPrefix(text, " "):
			section = text
		case section == "Available Commands:" && strings.HasPrefix(text, "  "):
			found.commands = append(found.commands, strings.Fields(text)[0])
		default:
			if m := flagLine.FindStringSubmatch(text); m != nil {
				found.flags[m[2]] = m[3] != ""
				if m[1] != "" {
					found.flags[m[1]] = m[3] != ""
				}
			}
		}
	}
	if len(path) == 0 {
		found.commands = append(found.commands, "docs") // hidden
	}
	h.known[key] = found
	return found, nil
}

// check walks down to the command and looks at every flag on the way.
func (h *helper) check(words []string) error {
	var path []string
	now, err := h.of(nil)
	if err != nil {
		return err
	}
	walking := true
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "--":
			return nil
		case strings.HasPrefix(w, "-") && w != "-":
			name, _, joined := strings.Cut(w, "=")
			value, known := now.flags[name]
			if !known {
				return fmt.Errorf("%s has no flag %s", strings.Join(append([]string{"vsfleet"}, path...), " "), name)
			}
			if value && !joined {
				i++
			}
		case !walking || w == strings.ToUpper(w): // an argument, or a word like COMMAND
			walking = false
		case slices.Contains(now.commands, w):
			path = append(path, w)
			if now, err = h.of(path); err != nil {
				return err
			}
		case len(now.commands) > 0 && !strings.Contains(w, "/"): // guest backup takes HOST/GUEST too
			return fmt.Errorf("%s has no command %q", strings.Join(append([]string{"vsfleet"}, path...), " "), w)
		default:
			walking = false
		}
	}
	return nil
}

// TestInventoriesLoad reads every fence of YAML, and the examples, as
// inventories. Where there are no hosts the lab's are added, and the files that
// guests are given; a line that is a network alone becomes a guest's.
func TestInventoriesLoad(t *testing.T) {
	texts := map[string]string{}
	for _, p := range pages(t) {
		for _, f := range p.fences {
			if f.language != "yaml" {
				continue
			}
			if p.name == "docs/playbooks.md" {
				playbook(t, fmt.Sprintf("%s:%d", p.name, f.number), f.text())
				continue
			}
			if networks := strings.TrimSpace(f.text()); strings.HasPrefix(networks, "network:") {
				for i, text := range strings.Split(networks, "\n") {
					texts[fmt.Sprintf("%s:%d", p.name, f.number+1+i)] = "images: {deb: {method: debootstrap, args: [-d, bookworm]}}\n" +
						"guests:\n  g:\n    on: lab1\n    image: deb\n    " + text + "\n"
				}
				continue
			}
			texts[fmt.Sprintf("%s:%d", p.name, f.number)] = f.text()
		}
	}
	examples, err := filepath.Glob(filepath.Join(root, "examples/*.yml"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("examples: %v, %v", examples, err)
	}
	for _, path := range examples {
		name := strings.TrimPrefix(path, root+"/")
		texts[name] = read(t, name)
	}
	schema := inventorySchema(t)
	for name, text := range texts {
		paths := []string{write(t, "fleet.yml", text)}
		for _, file := range regexp.MustCompile(`(?:source|template): ([a-z.]+)`).FindAllStringSubmatch(text, -1) {
			beside := filepath.Join(filepath.Dir(paths[0]), file[1])
			if err := os.WriteFile(beside, []byte("of ${guest.name}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if !regexp.MustCompile(`(?m)^hosts:`).MatchString(text) {
			paths = append(paths, write(t, "lab.yml", "hosts: {lab1: {address: 192.0.2.1}, lab2: {address: 192.0.2.2}}\n"))
		}
		if _, err := inventory.Load(paths...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if err := schema.Validate(v); err != nil {
			t.Errorf("%s: editors would mark it: %v", name, err)
		}
	}
}

// inventorySchema returns the schema of inventories, as an editor uses it.
func inventorySchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(inventory.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("fleet.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile("fleet.schema.json")
}

// playbook checks a playbook of the documentation, or steps of one.
func playbook(t *testing.T, name, text string) {
	t.Helper()
	if !strings.Contains(text, "\n  steps:") {
		text = "- hosts: all\n  steps:\n    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ") + "\n"
	}
	read := func(path string) ([]byte, error) {
		if path == name {
			return []byte(text), nil
		}
		return []byte("- exec: [a]\n"), nil // what it includes
	}
	if _, err := playbooks.Load(name, playbooks.Options{Read: read}); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKeysAreDocumented finds every key of the inventory's schema in its page.
func TestKeysAreDocumented(t *testing.T) {
	page := read(t, "docs/inventory.md")
	var schema any
	if err := json.Unmarshal(inventory.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	var collect func(node any)
	collect = func(node any) {
		switch node := node.(type) {
		case []any:
			for _, n := range node {
				collect(n)
			}
		case map[string]any:
			if properties, ok := node["properties"].(map[string]any); ok {
				for name := range properties {
					keys[name] = true
				}
			}
			for _, n := range node {
				collect(n)
			}
		}
	}
	collect(schema)
	if len(keys) < 20 {
		t.Fatalf("only %d keys in the schema", len(keys))
	}
	for name := range keys {
		if !strings.Contains(page, "`"+name+"`") && !strings.Contains(page, "`{"+name+":") {
			t.Errorf("docs/inventory.md does not say what `%s` is", name)
		}
	}
}

// TestRowsAreDocumented finds every row of check in its page.
func TestRowsAreDocumented(t *testing.T) {
	page := read(t, "docs/check.md")
	c, err := check.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Rows {
		if !strings.Contains(page, r.Name) {
			t.Errorf("docs/check.md has no row %q", r.Name)
		}
	}
}

// TestManPagesHaveEveryCommand asks vsnode for its commands and looks for them in
// the pages that packaging has for it.
func TestManPagesHaveEveryCommand(t *testing.T) {
	for _, row := range []struct {
		page    string
		help    []string
		pattern string
	}{
		{"packaging/vsnode.8", []string{"help"}, `(?m)^  vsnode (\w+)`},
		{"packaging/vserver.8", []string{"vserver", "--help"}, `(?m)^  (\w+)(?: |$)`},
	} {
		ask := exec.Command("go", append([]string{"run", "./cmd/vsnode"}, row.help...)...)
		ask.Dir = root
		help, err := ask.Output()
		if err != nil {
			t.Fatal(err)
		}
		page := read(t, row.page)
		found := regexp.MustCompile(row.pattern).FindAllStringSubmatch(string(help), -1)
		if len(found) < 5 {
			t.Errorf("only %d commands in %s", len(found), help)
		}
		for _, m := range found {
			if !regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(page) {
				t.Errorf("%s has no command %s", row.page, m[1])
			}
		}
	}
}
