package view

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// Graph prints a group with the groups and hosts in it, as ansible-inventory --graph
// does.
func Graph(w io.Writer, groups []report.GroupRecord, root string) error {
	g := graph{w: w, groups: map[string]report.GroupRecord{}}
	for _, r := range groups {
		g.groups[r.Group] = r
	}
	g.group(root, "")
	return g.err
}

type graph struct {
	w      io.Writer
	groups map[string]report.GroupRecord
	err    error
}

func (g *graph) line(indent, format string, args ...any) {
	if g.err == nil {
		_, g.err = fmt.Fprintln(g.w, indent+Clean(fmt.Sprintf(format, args...)))
	}
}

func (g *graph) group(name, indent string) {
	r := g.groups[name]
	if indent == "" {
		g.line("", "@%s:", name)
	} else {
		g.line(indent, "|--@%s:", name)
	}
	below := indent + "  "
	if indent != "" {
		below = indent + "|  "
	}
	for _, child := range r.Children {
		g.group(child, below)
	}
	for _, host := range r.Hosts {
		g.line(below, "|--%s", host)
		for _, k := range slices.Sorted(maps.Keys(r.Vars[host])) {
			g.line(below+"|  ", "|--{%s = %s}", k, varText(r.Vars[host][k]))
		}
	}
}

// varText returns a variable in one line.
func varText(v any) string {
	text, err := json.Marshal(v) // redacts secrets
	if err != nil {
		return err.Error()
	}
	var s string
	if json.Unmarshal(text, &s) == nil {
		return s
	}
	return string(text)
}

// Dot prints the groups and hosts for Graphviz.
func Dot(w io.Writer, groups []report.GroupRecord) error {
	lines := []string{"digraph inventory {", "  rankdir=LR;"}
	for _, r := range groups {
		lines = append(lines, fmt.Sprintf("  %q [shape=box];", "@"+r.Group))
		for _, child := range r.Children {
			lines = append(lines, fmt.Sprintf("  %q -> %q;", "@"+r.Group, "@"+child))
		}
		for _, host := range r.Hosts {
			lines = append(lines, fmt.Sprintf("  %q -> %q;", "@"+r.Group, host))
		}
	}
	_, err := io.WriteString(w, strings.Join(append(lines, "}"), "\n")+"\n")
	return err
}

// Mermaid prints the groups and hosts as a flowchart for Markdown.
func Mermaid(w io.Writer, groups []report.GroupRecord) error {
	ids := map[string]string{}
	id := func(name string) string {
		if ids[name] == "" {
			ids[name] = fmt.Sprintf("n%d", len(ids))
			return fmt.Sprintf("%s[%q]", ids[name], name)
		}
		return ids[name]
	}
	lines := []string{"flowchart LR"}
	for _, r := range groups {
		for _, child := range r.Children {
			lines = append(lines, fmt.Sprintf("  %s --> %s", id("@"+r.Group), id("@"+child)))
		}
		for _, host := range r.Hosts {
			lines = append(lines, fmt.Sprintf("  %s --> %s", id("@"+r.Group), id(host)))
		}
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}
