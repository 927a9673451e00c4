package docs

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/vsfleet/vsfleet/"

// goList runs go list over all packages and returns a line for each.
func goList(t *testing.T, format string) []string {
	t.Helper()
	list := exec.Command("go", "list", "-f", format, "./...")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// packagesIn returns the packages of this module in a list, by their names in the
// page.
func packagesIn(list string) (names []string) {
	for _, path := range strings.Fields(list) {
		if name, ok := strings.CutPrefix(path, module); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// table reads that of docs/architecture.md: each package with what it imports.
func table(t *testing.T) map[string][]string {
	t.Helper()
	row := regexp.MustCompile("^\\| `([a-z0-9/]+)` \\| .* \\| ?(.*) \\|$")
	named := map[string][]string{}
	for _, l := range parse("", read(t, "docs/architecture.md")).prose {
		if m := row.FindStringSubmatch(l.text); m != nil {
			named[m[1]] = strings.Fields(strings.NewReplacer("`", "", ",", "").Replace(m[2]))
		}
	}
	return named
}

// inLayer reports whether a package is the layer itself or in its folder.
func inLayer(name, layer string) bool { return name == layer || strings.HasPrefix(name, layer+"/") }

// TestLayers compares the table of docs/architecture.md with the packages that
// there are and with what each imports.
func TestLayers(t *testing.T) {
	named := table(t)
	for _, line := range goList(t, `{{.ImportPath}}|{{join .Imports " "}}`) {
		path, imports, _ := strings.Cut(line, "|")
		name := strings.TrimPrefix(path, module)
		table, there := named[name]
		if !there {
			t.Errorf("docs/architecture.md does not name %s", name)
		}
		delete(named, name)
		have := packagesIn(imports)
		for _, other := range have {
			if !slices.Contains(table, other) {
				t.Errorf("%s imports %s: docs/architecture.md has no such arrow", name, other)
			}
		}
		for _, other := range table {
			if !slices.Contains(have, other) {
				t.Errorf("docs/architecture.md has an arrow from %s to %s, which is not in the code", name, other)
			}
		}
	}
	for name := range named {
		t.Errorf("docs/architecture.md names %s, which is no package", name)
	}
}

// TestForbiddenWays looks for what no package may import, directly or not.
func TestForbiddenWays(t *testing.T) {
	for _, line := range goList(t, `{{.ImportPath}}|{{join .Deps " "}}`) {
		path, deps, _ := strings.Cut(line, "|")
		from := strings.TrimPrefix(path, module)
		for _, to := range packagesIn(deps) {
			switch {
			case inLayer(from, "node") && (inLayer(to, "fleet") || inLayer(to, "inventory")),
				(inLayer(from, "inventory") || inLayer(from, "playbooks")) && (inLayer(to, "fleet") || inLayer(to, "node")),
				inLayer(from, "fleet") && inLayer(to, "node") && to != "node/api",
				inLayer(from, "internal") && !inLayer(to, "internal"),
				inLayer(to, "cmd"),
				(from == "fleet/rollout" || from == "fleet/plan" || from == "fleet/play" || from == "fleet/fanout") && to == "fleet/transport",
				from == "fleet/plan" && (to == "fleet/rollout" || to == "fleet/fanout"):
				t.Errorf("%s reaches %s", from, to)
			}
		}
	}
}

// TestPlansArePure looks for what reads, waits or writes in the package that
// makes plans: equal input gives equal plans.
func TestPlansArePure(t *testing.T) {
	for _, line := range goList(t, `{{.ImportPath}}|{{join .Imports " "}}`) {
		path, imports, _ := strings.Cut(line, "|")
		if path != module+"fleet/plan" {
			continue
		}
		for _, name := range strings.Fields(imports) {
			if slices.Contains([]string{"context", "crypto/rand", "io", "math/rand/v2", "net", "os", "os/exec", "sync", "syscall", "time"}, name) {
				t.Errorf("fleet/plan imports %s", name)
			}
		}
	}
}
