package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestMainHasNoRecords keeps what is printed as data out of the commands: types
// with json tags belong to fleet/report and node/api, where others can use them.
func TestMainHasNoRecords(t *testing.T) {
	for _, dir := range []string{"cmd/vsfleet", "cmd/vsnode"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		set := token.NewFileSet()
		for _, name := range files {
			file, err := parser.ParseFile(set, name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				field, ok := n.(*ast.Field)
				if ok && field.Tag != nil && strings.Contains(field.Tag.Value, `json:"`) {
					t.Errorf("%s: a type with json tags: its place is fleet/report", set.Position(field.Pos()))
				}
				return true
			})
		}
	}
}
