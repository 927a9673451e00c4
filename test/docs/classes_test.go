package docs

import (
	"regexp"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/outcome"
)

// TestClassesAreExplained compares the table of docs/troubleshooting.md with the kinds
// of errors.
func TestClassesAreExplained(t *testing.T) {
	page := read(t, "docs/troubleshooting.md")
	_, section, _ := strings.Cut(page, "## Classes of failures")
	section, _, _ = strings.Cut(section, "\n## ")
	explained := map[string]bool{}
	for row := range strings.Lines(section) {
		if first, _, found := strings.Cut(strings.TrimPrefix(row, "|"), "|"); found && strings.HasPrefix(row, "|") {
			for _, class := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(first, -1) {
				explained[class[1]] = true
			}
		}
	}
	for _, kind := range outcome.Kinds() {
		if !explained[string(kind)] {
			t.Errorf("docs/troubleshooting.md does not explain the class %s", kind)
		}
		delete(explained, string(kind))
	}
	for class := range explained {
		t.Errorf("docs/troubleshooting.md explains a class %s, which nothing is of", class)
	}
}
