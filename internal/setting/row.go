package setting

import (
	"strings"
	"sync"
)

// Row is one setting of a guest.
type Row struct {
	// Key is its place in the inventory: "limits.memory" is memory in limits.
	Key  string
	Form Form
	// Want describes valid values in errors: "a size, as 512M or 2G". A Block has none.
	Want string
	// Words are the valid values of a Text; nil: any.
	Words []string
	// Modes are the network modes in which it makes sense; nil: all. ModesWhy is the
	// hint for another mode.
	Modes    []Mode
	ModesWhy string

	// Doc and Default describe it in docs/inventory.md and in the schema.
	Doc, Default string
	schema       string // its JSON Schema, if that does not follow from Form and Words

	// Plan is its name in plans: "raw sockets".
	Plan string
	// Live describes which changes a running guest takes without a restart.
	Live Live
	// Controller is the cgroup v2 controller that a host needs for it; "": none.
	Controller string
	// Off is what lifts the limit in a file of the cgroup; "": "max".
	Off string

	// File is its file in /etc/vservers/NAME; "": there are several, which
	// node/guest reads. FileDoc describes it in docs/guests.md.
	File, FileDoc string
	// Older files are read if File is empty, and removed when it is written.
	Older []string

	value value
	check func(*Guest) error // refuses values that no guest can have; nil: none
}

// Form is the form of a value in the inventory.
type Form int

// Forms.
const (
	Text  Form = iota // one value, which may hold variables
	List              // a list of such values
	Flag              // true or false
	Block             // read by the inventory's own code
)

// Live describes which changes a running guest takes without a restart. The zero value
// means none.
type Live struct {
	Doc string // "at once"
	// now reports whether the change from a to b is one of them, on a host with these
	// cgroup v2 controllers.
	now func(a, b *Guest, controllers []string) bool
}

// Possible reports whether running guests take any change at once.
func (l Live) Possible() bool { return l.now != nil }

// Tree reads the files in /etc/vservers/NAME, by their names there.
type Tree interface {
	Scalar(file string) string // the first line, or ""
	List(file string) []string // the lines without comments and blank lines
	Has(file string) bool
}

// value accesses a setting in a Guest, and converts it.
type value interface {
	parse(g *Guest, s string) error           // sets it from inventory text, or adds an item of a list
	text(g *Guest) string                     // for people; "": not set
	same(a, b *Guest) bool                    // reports whether a and b have the same value
	assign(to, from *Guest)                   // copies it
	read(g *Guest, t Tree, file string) error // sets it from a file of the host
	content(g *Guest) string                  // of that file; "": no file
}

// Name returns the last part of the key, which errors use.
func (r *Row) Name() string { return r.Key[strings.LastIndexByte(r.Key, '.')+1:] }

// Block returns the mapping that contains the key: "network", "limits", or "" for the
// guest itself.
func (r *Row) Block() string {
	block, _, found := strings.Cut(r.Key, ".")
	if !found {
		return ""
	}
	return block
}

// In returns the rows of a block. They must not be changed.
func In(block string) []*Row { return blocks()[block] }

// blocks is computed once, as In is called for each guest of an inventory.
var blocks = sync.OnceValue(func() map[string][]*Row {
	rows := map[string][]*Row{}
	for _, r := range Table {
		rows[r.Block()] = append(rows[r.Block()], r)
	}
	return rows
})

// Parse sets it from inventory text, or adds an item to a list.
func (r *Row) Parse(g *Guest, s string) error { return r.value.parse(g, s) }

// Same reports whether two guests have the same value, however it is written.
func (r *Row) Same(a, b *Guest) bool { return r.value.same(a, b) }

// Text returns the value in g for people: "80/tcp, 443/tcp"; "" if it is not set.
func (r *Row) Text(g *Guest) string { return r.value.text(g) }

// AtOnce reports whether a running guest takes the change from a to b without a
// restart, on a host with these cgroup v2 controllers.
func (r *Row) AtOnce(a, b *Guest, controllers []string) bool {
	return r.Live.Possible() && r.Live.now(a, b, controllers)
}

// Assign copies it from one guest to another.
func (r *Row) Assign(to, from *Guest) { r.value.assign(to, from) }

// Read sets it from File, or from an older file.
func (r *Row) Read(g *Guest, t Tree) error {
	file := r.File
	for _, older := range r.Older {
		if t.Scalar(file) == "" {
			file = older
		}
	}
	return r.value.read(g, t, file)
}

// Content returns the content of File: "" for no file, [Present] for an empty one.
func (r *Row) Content(g *Guest) string { return r.value.content(g) }

// CgroupFile returns the name of its file in the guest's cgroup, or "".
func (r *Row) CgroupFile() string {
	file, ok := strings.CutPrefix(r.File, "cgroup/")
	if !ok {
		return ""
	}
	return file
}

// Present stands for an empty file.
const Present = "\n"
