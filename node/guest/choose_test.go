package guest

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
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
		"mail":   "apps/init/mark=mail apps/init/depends=web_none",
		"off":    "apps/init/mark=default disabled=",
		"bright": "apps/init/mark=bright",
	} {
		for file := range strings.FieldsSeq("vdir=x " + files) {
			file, text, _ := strings.Cut(file, "=")
			path := filepath.Join(h.config(name), file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(strings.NewReplacer(",", "\n", "_", " ").Replace(text)+"\n"), 0o644); err != nil {
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
		{"all, but for those disabled", Choice{All: true}, "bright cache db mail plain web"},
		{"a mark", Choice{Marks: []string{"default"}}, "web"},
		{"one of two marks", Choice{Marks: []string{"default", "base"}}, "db web"},
		{"not a mark", Choice{Marks: []string{"!base"}}, "bright cache mail plain web"},
		{"marked, and not by one", Choice{Marked: true, Marks: []string{"!base"}}, "bright mail web"},
		{"unmarked", Choice{Unmarked: true}, "cache plain"},
		{"running", Choice{Running: true}, ""},
		{"running, of a mark that guests have", Choice{Running: true, Marks: []string{"base"}}, ""},
		{"a mark that no guest has", Choice{Marks: []string{"bsae"}}, `no guest has the mark "bsae" (apps/init/mark)`},
		{"a mark that no guest has beside one that is had", Choice{Marks: []string{"bsae", "base"}}, "db"},
		{"stopped and marked", Choice{Stopped: true, Marked: true}, "bright db mail web"},
	} {
		t.Run(row.name, func(t *testing.T) {
			names, err := h.Choose(row.c)
			got := strings.Join(names, " ")
			if err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
	g, err := h.Dependencies()
	if want := (depends.Graph{"web": {"db", "cache"}, "cache": {"db"}, "mail": {"web", "none"}}); err != nil || !reflect.DeepEqual(g, want) {
		t.Errorf("dependencies %v, %v; want %v", g, err, want)
	}
	want := []string{"it depends on web, which does not run (start-vservers mail starts both)", "it depends on none, which is not there"}
	if got := h.Lacks("mail", nil); !slices.Equal(got, want) {
		t.Errorf("mail lacks %q, want %q", got, want)
	}
	if got := h.Lacks("mail", []string{"web"}); !slices.Equal(got, want[1:]) {
		t.Errorf("beside web, mail lacks %q, want %q", got, want[1:])
	}
}
