package ansible

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

var (
	iniSection = regexp.MustCompile(`^\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?$`)
	iniGroup   = regexp.MustCompile(`^([^:\]\s]+)\s*(?:#.*)?$`)
)

// ReadINI reads an inventory in Ansible's INI: sections of hosts, and those of the
// variables and child groups of a group.
func ReadINI(text string) *Inventory {
	inv := newInventory()
	g, state := inv.group("ungrouped", Pos{1, 1}), "hosts"
	g.Declared = true
	number := 0
	for line := range strings.Lines(text) {
		number++
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		pos := Pos{number, 1 + strings.Index(line, trimmed)}
		if m := iniSection.FindStringSubmatch(trimmed); m != nil {
			if state = m[2]; state == "" {
				state = "hosts"
			}
			if !slices.Contains([]string{"hosts", "vars", "children"}, state) {
				inv.fail(pos, "a section is [NAME], [NAME:vars] or [NAME:children]", "section %s: there is no kind %q", trimmed, state)
				state = "" // what it holds cannot be read
				continue
			}
			g = inv.group(m[1], pos)
			g.Declared = g.Declared || state != "vars"
			continue
		}
		if trimmed[0] == '[' && trimmed[len(trimmed)-1] == ']' {
			inv.fail(pos, "a section is [NAME], [NAME:vars] or [NAME:children], without spaces", "%s is no section", short(trimmed))
			state = ""
			continue
		}
		inv.iniLine(g, state, trimmed, pos)
	}
	return inv
}

// iniLine reads one line of a section.
func (inv *Inventory) iniLine(g *Group, state, line string, pos Pos) {
	switch state {
	case "hosts":
		inv.iniHost(g, line, pos)
	case "vars":
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			inv.fail(pos, "", "[%s:vars]: want NAME=VALUE, have %q", g.Name, short(line))
			return
		}
		g.Vars[strings.TrimSpace(name)] = literal(strings.TrimSpace(value), pos)
	case "children":
		m := iniGroup.FindStringSubmatch(line)
		if m == nil {
			inv.fail(pos, "", "[%s:children]: want the name of a group, have %q", g.Name, short(line))
			return
		}
		inv.group(m[1], pos)
		g.Children = append(g.Children, Child{m[1], pos})
	}
}

// iniHost reads "web[01:10]:2222 ansible_user=admin rack=7".
func (inv *Inventory) iniHost(g *Group, line string, pos Pos) {
	words, err := SplitWords(line, true)
	if err != nil || len(words) == 0 {
		inv.fail(pos, "", "%q: %v", short(line), err)
		return
	}
	if words[0] == "---" {
		inv.fail(pos, "", "--- begins a YAML file, but this is none: it is read as INI")
		return
	}
	vars := map[string]Var{}
	from := len(words[0]) // quotes make words longer in the line, never shorter
	for _, word := range words[1:] {
		name, value, ok := strings.Cut(word, "=")
		at := pos
		if i := strings.Index(line[from:], name); i >= 0 {
			at.Column += from + i
			from += i + len(word)
		}
		if !ok {
			inv.fail(at, "put a value with spaces in it in quotes", "host %s: want NAME=VALUE, have %q", short(words[0]), short(word))
			return
		}
		vars[name] = literal(value, at)
	}
	inv.addHosts(words[0], pos, g, vars)
}

// literal reads the value of a variable of an INI file: a literal of Python, or
// else text.
func literal(s string, pos Pos) Var {
	v := Var{Value: s, Text: s, Pos: pos}
	if value, ok := parseLiteral(s); ok {
		v.Value = value
		if text, is := value.(string); is {
			v.Text = text
		}
	}
	return v
}

// SplitWords splits a line as a shell does, with quotes and backslashes. A comment
// begins with #, wherever that is.
func SplitWords(s string, comments bool) ([]string, error) {
	var words []string
	var word strings.Builder
	inside, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'':
			if i+1 == len(s) {
				return nil, errors.New("a backslash at the end")
			}
			if next := s[i+1]; quote == 0 || next == '"' || next == '\\' {
				i++
				c = next
			}
			inside = true
			word.WriteByte(c)
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, inside = c, true
		case c == ' ' || c == '\t' || c == '\r' || c == '\n', comments && c == '#':
			if inside {
				words = append(words, word.String())
				word.Reset()
				inside = false
			}
			if c == '#' {
				return words, nil
			}
		default:
			inside = true
			word.WriteByte(c)
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inside {
		words = append(words, word.String())
	}
	return words, nil
}
