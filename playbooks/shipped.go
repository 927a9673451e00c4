package playbooks

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed shipped/*.yml
var shippedFiles embed.FS

const shippedDir = "shipped"

// Shipped is a playbook that comes with vsfleet.
type Shipped struct {
	Name  string // as in "vsfleet play NAME"
	About string // what it is for, in one line
	Text  string
}

// AllShipped returns the playbooks that come with vsfleet, by name.
func AllShipped() []Shipped {
	entries, err := fs.ReadDir(shippedFiles, shippedDir)
	if err != nil { // it is part of this program: cannot happen
		panic(err)
	}
	var list []Shipped
	for _, e := range entries {
		text, err := shippedFiles.ReadFile(path.Join(shippedDir, e.Name()))
		if err != nil {
			panic(err)
		}
		about, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		list = append(list, Shipped{Name: strings.TrimSuffix(e.Name(), ".yml"), About: about, Text: string(text)})
	}
	return list
}

// FindShipped returns the playbook of a name that comes with vsfleet.
func FindShipped(name string) (Shipped, error) {
	list := AllShipped()
	i := slices.IndexFunc(list, func(s Shipped) bool { return s.Name == name })
	if i >= 0 {
		return list[i], nil
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return Shipped{}, &Error{Msg: fmt.Sprintf("no playbook %q comes with vsfleet, only %s", name, strings.Join(names, ", "))}
}
