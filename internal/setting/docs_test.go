package setting

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the settings into the tables of docs/inventory.md and docs/guests.md")

// The pages have the row that the table generates for each setting.
func TestEverySettingIsDocumented(t *testing.T) {
	for _, table := range []struct {
		page, before string // a line above the table
		rows         []string
	}{
		{"../../docs/inventory.md", "A guest. The last column shows when a change takes effect in a running guest: at once, or after a restart, which `apply` does:", Reference("")},
		{"../../docs/inventory.md", "`network` ([networks](networks.md)):", Reference("network")},
		{"../../docs/inventory.md", "`limits`:", Reference("limits")},
		{"../../docs/guests.md", "## The configuration on the host", FileReference()},
	} {
		b, err := os.ReadFile(table.page)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		at := slices.Index(lines, table.before)
		if at < 0 {
			t.Errorf("%s has no line %q", table.page, table.before)
			continue
		}
		for at < len(lines) && !strings.HasPrefix(lines[at], "|---") {
			at++
		}
		for _, row := range table.rows {
			if *update {
				lines = put(lines, at, row)
			} else if !slices.Contains(lines[at:], row) {
				t.Errorf("%s lacks %s\nmake it by: go test ./internal/setting -update", table.page, row)
			}
		}
		if *update {
			if err := os.WriteFile(table.page, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// put replaces the row with the same key in the table below line at, or adds it.
func put(lines []string, at int, row string) []string {
	key, _, _ := strings.Cut(row[1:], "|")
	for at++; strings.HasPrefix(lines[at], "|"); at++ {
		if strings.HasPrefix(lines[at], "|"+key+"|") {
			lines[at] = row
			return lines
		}
	}
	return slices.Insert(lines, at, row)
}
