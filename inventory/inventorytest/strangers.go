// Package inventorytest has inventories of Ansible's as strangers write them, for
// tests of what reads them.
package inventorytest

import (
	"bytes"
	"embed"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

//go:embed strangers/*.txtar
var files embed.FS

// Files returns all files of all inventories, by name.
func Files() map[string]string {
	all := map[string]string{}
	archives, err := fs.Glob(files, "strangers/*.txtar")
	if err != nil {
		panic(err) // the pattern is right
	}
	for _, path := range archives {
		data, err := files.ReadFile(path)
		if err != nil {
			panic(err) // it is embedded
		}
		for _, file := range txtar.Parse(data).Files {
			if filepath.Base(file.Name) != "case" {
				all[path+"/"+file.Name] = string(file.Data)
			}
		}
	}
	return all
}

// Stranger is an inventory of Ansible's as strangers write them: a directory of
// strangers/*.txtar. Its file "case" has what is not said by default:
//
//	sources: hosts more/   the inventories, from the first to the last; else "hosts"
//	refused: TEXT          vsfleet refuses it with an error that holds TEXT
//	alone: REASON          vsfleet reads it, and Ansible does not
//	vars: NAME REASON      the variable differs on purpose
//	hosts: NAME REASON     the host differs on purpose
type Stranger struct {
	Dir     string   `json:"dir"`
	Sources []string `json:"sources"`

	Name        string          `json:"-"`
	Refused     string          `json:"-"`
	Alone       string          `json:"-"`
	Vars, Hosts map[string]bool `json:"-"` // that differ on purpose
}

// Strangers writes all inventories below a temporary directory.
func Strangers(t *testing.T) []*Stranger {
	t.Helper()
	archives, err := fs.Glob(files, "strangers/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no inventories", err)
	}
	base := t.TempDir()
	var list []*Stranger
	for _, path := range archives {
		data, err := files.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		archive := txtar.Parse(data)
		prefix := strings.TrimSuffix(filepath.Base(path), ".txtar")
		for _, file := range archive.Files {
			dir, rest, ok := strings.Cut(file.Name, "/")
			if !ok {
				t.Fatalf("%s: %s is in no directory", path, file.Name)
			}
			name := prefix + "/" + dir
			i := slices.IndexFunc(list, func(s *Stranger) bool { return s.Name == name })
			if i < 0 {
				i = len(list)
				list = append(list, &Stranger{Dir: filepath.Join(base, name), Sources: []string{"hosts"}, Name: name, Vars: map[string]bool{}, Hosts: map[string]bool{}})
			}
			if rest == "case" {
				list[i].describe(t, string(file.Data))
				continue
			}
			mode := fs.FileMode(0o600)
			if bytes.HasPrefix(file.Data, []byte("#!")) {
				mode = 0o700
			}
			at := filepath.Join(base, name, rest)
			if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, file.Data, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	return list
}

func (s *Stranger) describe(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		name, _, _ := strings.Cut(value, " ")
		switch key {
		case "sources":
			s.Sources = strings.Fields(value)
		case "refused":
			s.Refused = value
		case "alone":
			s.Alone = value
		case "vars":
			s.Vars[name] = true
		case "hosts":
			s.Hosts[name] = true
		case "":
		default:
			t.Fatalf("%s: unknown key %q", s.Name, key)
		}
	}
}
