// Package buildmethod lists the methods by which a root filesystem is made: their names,
// arguments and what they need, as the inventory, vsnode and the documentation show them.
// Package node/builder carries them out, and checks what is behind the letters.
package buildmethod

import "strings"

// Method is a row of the table.
type Method struct {
	Name string
	Args string // as a line of help
	Does string
	// Required is the letter of an argument that must be given, which Long names too; 0:
	// none. Lacks is the question that it answers, and Example an answer.
	Required byte
	Or       byte // another letter that will do; 0: none
	Long     string
	Lacks    string
	Example  string
	Packages bool // it installs packages
	// Moment: it copies what may be another the next day, so that `vserver NAME build` does
	// not take an earlier copy for it.
	Moment bool
	// OfHost: what comes of it depends on the host, so that the inventory has to name one.
	OfHost bool
}

// Table has all methods.
var Table = []Method{
	{Name: "debootstrap", Args: "-d SUITE [-m MIRROR] [-s SCRIPT] [-- TOOL'S OPTIONS]", Does: "installs Debian or Ubuntu by mmdebstrap or debootstrap",
		Required: 'd', Lacks: "which distribution", Example: "[-d, bookworm]", Packages: true},
	{Name: "dnf", Args: "-d RELEASE [-r REPOSITORY]… [-k KEY]… [-- PACKAGES AND DNF'S OPTIONS]", Does: "installs a distribution of RPM packages by the host's dnf",
		Required: 'd', Lacks: "which release", Example: `[-d, "9", -r, /etc/vservers/rocky.repo, --, "@core"]`, Packages: true},
	{Name: "yum", Args: "those of dnf", Does: "the same, by its old name",
		Required: 'd', Lacks: "which release", Example: `[-d, "9", -r, /etc/vservers/rocky.repo, --, "@core"]`, Packages: true},
	{Name: "skeleton", Args: "[-- COMMAND [ARGUMENT]…]", Does: "makes the directories of an empty root, and runs a command there"},
	{Name: "template", Args: "-t ARCHIVE|DIRECTORY [-t …]", Does: "unpacks tar archives, or copies directories, one over the other",
		Required: 't', Long: "--template", Lacks: "which archive", Example: "[-t, /srv/box.tar.zst]"},
	{Name: "rsync", Args: "-s [[USER@]HOST:]DIRECTORY [-o OPTION]… [-- RSYNC'S OPTIONS]", Does: "copies a tree by the host's rsync, also from another machine",
		Required: 's', Long: "--source", Lacks: "which tree", Example: "[-s, \"root@old.example.net:/\"]", Moment: true},
	{Name: "clone", Args: "-s GUEST|DIRECTORY [-x PATH]…", Does: "copies the root of another guest, running or not",
		Required: 's', Long: "--source", Lacks: "which guest", Example: "[-s, www]", Moment: true},
	{Name: "host", Args: "[-x PATH]… [-i PATH]…", Does: "copies the root of the host that builds", OfHost: true, Moment: true},
	{Name: "oci", Args: "-r HOST/NAME:TAG|-s DIRECTORY|-s FILE.tar [-r NAME] [-p OS/ARCH[/VARIANT]]", Does: "unpacks an image of a registry, or one in OCI's layout",
		Required: 's', Or: 'r', Long: "--source", Lacks: "which image", Example: "[-r, docker.io/library/debian:bookworm]"},
}

// Find returns the method of that name.
func Find(name string) (Method, bool) {
	for _, m := range Table {
		if m.Name == name {
			return m, true
		}
	}
	return Method{}, false
}

// Names returns the names of all methods.
func Names() []string {
	names := make([]string, len(Table))
	for i, m := range Table {
		names[i] = m.Name
	}
	return names
}

// A Refusal is a method of util-vserver that is not offered.
type Refusal struct{ Name, Why, Instead string }

// Refused has the methods of util-vserver, and of what was built on it, that are not
// offered.
var Refused = []Refusal{
	{"legacy", "it copied the host's own root", "host"},
	{"copy", "it had no script in util-vserver either", "clone or template"},
	{"rpm", "it installed lists of packages without what they depend on", "dnf, which takes packages by name"},
	{"apt-rpm", "it was for distributions that are no more", "dnf"},
	{"urpmi", "it was for distributions that are no more", "urpmi --root TREE, and template"},
	{"poldek", "it is PLD's own", "poldek --root TREE, and template"},
	{"fai", "it needs a patched FAI", "rsync of what FAI installed elsewhere"},
	{"lvm", "it was never in util-vserver", "template of the directory where the volume is mounted"},
	{"ssh", "it was never in util-vserver", "rsync, with -s HOST:DIRECTORY"},
}

// Registry returns what a spec says of an image of a registry: its reference, and the
// platform if it names one. ref is empty if it is no such image.
func Registry(method string, args []string) (ref, platform string) {
	if method != "oci" {
		return "", ""
	}
	given := map[string]string{}
	for i := 0; i < len(args); i++ {
		letter, value := args[i], ""
		switch {
		case strings.HasPrefix(letter, "--source"):
			return "", "" // a layout
		case len(letter) > 2:
			letter, value = letter[:2], letter[2:]
		case i+1 < len(args):
			i++
			value = args[i]
		}
		given[letter] = value
	}
	if given["-s"] != "" {
		return "", ""
	}
	return given["-r"], given["-p"]
}
