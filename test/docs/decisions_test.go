package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDecisionsHaveOneNumberEach checks that no two decisions share a number, and that
// the title of each begins with the number of its file.
func TestDecisionsHaveOneNumberEach(t *testing.T) {
	pages, err := filepath.Glob("../../docs/decisions/[0-9]*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(err, len(pages))
	}
	files := map[string]string{}
	for _, path := range pages {
		name := filepath.Base(path)
		number, _, _ := strings.Cut(name, "-")
		if other := files[number]; other != "" {
			t.Errorf("%s and %s have the same number", other, name)
		}
		files[number] = name
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if title := "# " + strings.TrimLeft(number, "0") + ". "; !strings.HasPrefix(string(text), title) {
			t.Errorf("%s: the title does not begin with %q", name, title)
		}
	}
}
