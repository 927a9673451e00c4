package guest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/depends"
)

func TestChooseAndDependencies(t *testing.T) {
	h := &Host{Paths: Paths{ConfigDir: t.TempDir(), DataDir: t.TempDir(), RunDir: t.TempDir()}}
	for name, files := range map[string]string{
		"plain":  "",
		"web":    "apps/init/mark=default apps/init/depends=db,cache",
		"db":     "apps/init/mark=base",
		"cache":  "apps/init/depends=db",
		"off":    "apps/init/mark=default disabled=",
		"bright": "apps/init/mark=bright",
	} {
		for file := range strings.FieldsSeq("vdir=x " + files) {
			file, text, _ := strings.Cut(file, "=")
			path := filepath.Join(h.config(name), file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, ",", "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(h.config(name), "vdir")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/none", filepath.Join(h.config(name), "vdir")); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name string
		c    Choice
		want string
	}{
		{"names keep their order, each once", Choice{Names: []string{"web", "off", "db", "web"}}, "web off db"},
		{"all, but for those disabled", Choice{All: true}, "bright cache db plain web"},
		{"a mark", Choice{Marks: []string{"default"}}, "web"},
		{"one of two marks", Choice{Marks: []string{"default", "base"}}, "db web"},
		{"not a mark", Choice{Marks: []string{"!base"}}, "bright cache plain web"},
		{"marked, and not by one", Choice{Marked: true, Marks: []string{"!base"}}, "bright web"},
		{"unmarked", Choice{Unmarked: true}, "cache plain"},
		{"running", Choice{Running: true}, ""},
		{"stopped and marked", Choice{Stopped: true, Marked: true}, "bright db web"},
	} {
		t.Run(row.name, func(t *testing.T) {
			names, err := h.Choose(row.c)
			if err != nil || strings.Join(names, " ") != row.want {
				t.Errorf("%q, %v; want %q", names, err, row.want)
			}
		})
	}
	g, err := h.Dependencies()
	if want := (depends.Graph{"web": {"db", "cache"}, "cache": {"db"}}); err != nil || !reflect.DeepEqual(g, want) {
		t.Errorf("dependencies %v, %v; want %v", g, err, want)
	}
}
