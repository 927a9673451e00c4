package docs

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// escapes are what docs/security.md has to explain: ways out of containers that are
// known by a number or a name.
var escapes = []string{
	"CVE-2016-9962", "CVE-2019-5736", "CVE-2019-14271", "CVE-2021-30465", "CVE-2022-0185", "CVE-2022-0492", "CVE-2024-21626",
	"CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881", "CVE-2026-41579", "CVE-2026-47766", "CVE-2026-31431",
	"open_by_handle_at", "release_agent", "core_pattern", "TIOCSTI", "ptrace across contexts", "keyrings",
}

// TestEscapesHaveTests compares the table of known escapes with the list, and asks
// that every test that it names exists: a function, a row of test/attack, or a script
// that names the number.
func TestEscapesHaveTests(t *testing.T) {
	_, section, _ := strings.Cut(read(t, "docs/security.md"), "## Known escapes")
	section, _, _ = strings.Cut(section, "\n## ")
	files, err := filepath.Glob(filepath.Join(root, "*/*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob(filepath.Join(root, "*/*/*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, path := range append(files, deeper...) {
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllStringSubmatch(read(t, name), -1) {
			known[f[1]] = true
		}
	}
	rows, err := exec.Command("go", "run", "../attack", "--mode", "shared", "--list").Output()
	if err != nil {
		t.Fatalf("list the attacks: %v", err)
	}
	for _, name := range strings.Fields(string(rows)) {
		known[name] = true
	}
	explained := ""
	for row := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
		if len(cells) != 4 || strings.HasPrefix(cells[0], "---") || strings.TrimSpace(cells[0]) == "escape" {
			continue
		}
		explained += cells[0] + "\n"
		tests := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1)
		for _, name := range tests {
			if script := name[1]; strings.Contains(script, "/") {
				number := regexp.MustCompile(`CVE-[\d-]+`).FindString(cells[0])
				if number == "" || !strings.Contains(read(t, script), number) {
					t.Errorf("%s: %s does not name it", cells[0], script)
				}
			} else if !known[script] {
				t.Errorf("%s: there is no test and no attack %s", cells[0], script)
			}
		}
		if len(tests) == 0 || slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) == "" }) {
			t.Errorf("%s: not explained, or without a test", cells[0])
		}
	}
	for _, name := range escapes {
		if !regexp.MustCompile(regexp.QuoteMeta(name) + `\b`).MatchString(explained) {
			t.Errorf("docs/security.md does not explain %s", name)
		}
	}
}
