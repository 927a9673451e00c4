package setting

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Row is one setting of a guest.
type Row struct {
	// Key is where the inventory has it: "limits.memory" is memory in limits.
	Key  string
	Form Form
	// Want describes a value of it in errors: "a size, as 512M or 2G".
	Want string
	// Words are all values that a Text can have; nil: no such list.
	Words []string
	// Modes of the network in which it makes sense, and what to say to whoever
	// gives it in another; nil: all.
	Modes    []Mode
	ModesWhy string

	// Doc and Default are its text in docs/inventory.md and in the schema.
	Doc, Default string
	schema       string // how the schema has it, where that does not follow from Form and Words

	// Plan is its name in what a plan says: "raw sockets".
	Plan string
	// Live decides whether a running guest takes a change at once.
	Live Live
	// Controller of cgroup v2 without which a host cannot hold it; "": none.
	Controller string

	// File holds it below /etc/vservers/NAME; "": several files do, which
	// node/guest reads. FileDoc is its text in docs/guests.md.
	File, FileDoc string
	// Older files say the same: read where File says nothing.
	Older []string

	value value
	check func(*Guest) error // what it cannot be; nil: anything
}

// Form is how the inventory gives a setting.
type Form int

// Forms.
const (
	Text  Form = iota // one value, which may hold variables
	List              // a list of such values
	Flag              // true or false
	Block             // what else the inventory reads by code of its own
)

// Live decides whether a running guest takes a change at once, or at a restart.
type Live struct {
	Doc string // "at once"
	// now: the guest has a, it is to have b, and these are the controllers of its host.
	now func(a, b *Guest, controllers []string) bool
}

// Possible reports whether there is any change that running guests take at once.
func (l Live) Possible() bool { return l.now != nil }

// Tree reads the files of a guest's configuration, by their names below
// /etc/vservers/NAME.
type Tree interface {
	Scalar(file string) string // its first line; "" where there is none
	List(file string) []string // its lines without comments and blank ones
	Has(file string) bool
}

// value is where a setting lies in a Guest, and how it is written.
type value interface {
	parse(g *Guest, s string) error           // a text of the inventory, or an item of its list
	text(g *Guest) string                     // for people; "": not set
	same(a, b *Guest) bool                    // whether they have it alike
	assign(to, from *Guest)                   // gives to what from has
	read(g *Guest, t Tree, file string) error // what the host's file says
	content(g *Guest) string                  // of that file; "": there is none
}

// Name is the last part of the key, as the inventory's errors call it.
func (r *Row) Name() string { return r.Key[strings.LastIndexByte(r.Key, '.')+1:] }

// Block is the mapping of the inventory that the key stands in; "": the guest's own.
func (r *Row) Block() string {
	block, _, found := strings.Cut(r.Key, ".")
	if !found {
		return ""
	}
	return block
}

// In returns the rows whose keys stand in a block of a guest.
func In(block string) []*Row {
	return slices.DeleteFunc(slices.Clone(Table), func(r *Row) bool { return r.Block() != block })
}

// Parse sets it to what an inventory says, or, in a list, adds an item.
func (r *Row) Parse(g *Guest, s string) error { return r.value.parse(g, s) }

// Same reports whether two guests have it alike, in whatever way that is written.
func (r *Row) Same(a, b *Guest) bool { return r.value.same(a, b) }

// Given reports whether it is set.
func (r *Row) Given(g *Guest) bool { return r.value.text(g) != "" }

// Change says in a line what becomes of it between two guests.
func (r *Row) Change(from, to *Guest) string {
	return fmt.Sprintf("%s %s → %s", r.Plan, cmp.Or(r.value.text(from), "none"), cmp.Or(r.value.text(to), "none"))
}

// AtOnce reports whether a guest that runs with a has it as b does without a
// restart, on a host with these controllers of cgroup v2.
func (r *Row) AtOnce(a, b *Guest, controllers []string) bool {
	return r.Live.Possible() && r.Live.now(a, b, controllers)
}

// Assign gives to what from has.
func (r *Row) Assign(to, from *Guest) { r.value.assign(to, from) }

// Read sets it to what File says, or an older one.
func (r *Row) Read(g *Guest, t Tree) error {
	file := r.File
	for _, older := range r.Older {
		if t.Scalar(file) == "" {
			file = older
		}
	}
	return r.value.read(g, t, file)
}

// Content is what File holds: "" where there is none, [Present] where its being
// there says all.
func (r *Row) Content(g *Guest) string { return r.value.content(g) }

// CgroupFile returns the file of the cgroup that holds it while the guest runs,
// or "".
func (r *Row) CgroupFile() string {
	file, ok := strings.CutPrefix(r.File, "cgroup/")
	if !ok {
		return ""
	}
	return file
}

// Present is the content of a file that is empty.
const Present = "\n"
