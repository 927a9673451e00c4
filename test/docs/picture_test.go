package docs

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "draw the picture of docs/architecture.md again")

// TestPicture compares the picture of docs/architecture.md with the table below
// it. go test ./test/docs -run TestPicture -update draws it again.
func TestPicture(t *testing.T) {
	const name, begin, end = "docs/architecture.md", "```mermaid\n", "```\n"
	page := read(t, name)
	before, rest, there := strings.Cut(page, begin)
	drawn, after, closed := strings.Cut(rest, end)
	if !there || !closed {
		t.Fatalf("%s has no mermaid fence", name)
	}
	want := picture(table(t))
	if drawn == want {
		return
	}
	if !*update {
		t.Fatalf("the picture of %s is not that of its table: go test ./test/docs -run TestPicture -update draws it again", name)
	}
	if err := os.WriteFile(filepath.Join(root, name), []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// boxes are the groups of the picture, each with how its packages' names begin.
var boxes = []struct {
	title    string
	prefixes []string
}{
	{"vsfleet, on the machine you sit at", []string{"cmd/vsfleet", "fleet", "inventory", "playbooks", "lab"}},
	{"vsnode, on each host", []string{"cmd/vsnode", "node"}},
}

// picture draws packages and what they import in Mermaid's language. It leaves
// out what is for tests and builds, internal, which everything may import, and
// arrows that follow from others.
func picture(imports map[string][]string) string {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	box := map[string]int{}
	for name := range imports {
		if inLayer(name, "fleet/push/pack") || strings.HasSuffix(name, "test") {
			continue
		}
		for i, candidate := range boxes {
			for _, prefix := range candidate.prefixes {
				if inLayer(name, prefix) {
					box[name] = i
				}
			}
		}
	}
	names := slices.Sorted(maps.Keys(box))
	for i, candidate := range boxes {
		fmt.Fprintf(&b, "  subgraph box%d [\"%s\"]\n", i, candidate.title)
		for _, name := range names {
			if box[name] == i {
				fmt.Fprintf(&b, "    %s[%s]\n", id(name), name)
			}
		}
		b.WriteString("  end\n")
	}
	imports = reduce(imports)
	for _, from := range names {
		for _, to := range imports[from] {
			if _, drawn := box[to]; !drawn {
				continue
			}
			fmt.Fprintf(&b, "  %s --> %s\n", id(from), id(to))
		}
	}
	return b.String()
}

// id names a package in Mermaid, where "end" and slashes mean something else.
func id(name string) string { return "p_" + strings.ReplaceAll(name, "/", "_") }

// reduce returns a graph without the arrows that a longer way makes superfluous.
func reduce(imports map[string][]string) map[string][]string {
	var reach func(from, to string) bool
	reach = func(from, to string) bool {
		return slices.ContainsFunc(imports[from], func(next string) bool { return next == to || reach(next, to) })
	}
	less := map[string][]string{}
	for from, all := range imports {
		less[from] = slices.DeleteFunc(slices.Clone(all), func(to string) bool {
			return slices.ContainsFunc(all, func(other string) bool { return reach(other, to) })
		})
		slices.Sort(less[from])
	}
	return less
}

func TestReduce(t *testing.T) {
	got := reduce(map[string][]string{"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": nil})
	if text := fmt.Sprint(got); text != "map[a:[b] b:[c] c:[d] d:[]]" {
		t.Error(text)
	}
}
