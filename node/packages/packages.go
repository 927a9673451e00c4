package packages

import (
	"bytes"
	"strings"
)

// Set has the versions of installed packages by their names. A package of another
// architecture than the system's is NAME:ARCH, as dpkg writes it.
type Set map[string]string

// Databases are the files that [Read] understands, from the root.
var Databases = []string{"var/lib/dpkg/status", "lib/apk/db/installed"}

// MaxDatabase bounds the size of a database: ten times that of a large desktop.
const MaxDatabase = 64 << 20

// Read reads the database with a name of Databases.
func Read(name string, data []byte) Set {
	if name == Databases[1] {
		return readAPK(data)
	}
	return readDpkg(data)
}

// readDpkg reads /var/lib/dpkg/status: paragraphs of fields, of which those of installed
// packages count.
func readDpkg(data []byte) Set {
	set := Set{}
	var name, arch, version string
	installed := false
	native := ""
	end := func() {
		if installed && name != "" && version != "" {
			if name == "dpkg" {
				native = arch
			}
			set[name+":"+arch] = version
		}
		name, arch, version, installed = "", "", "", false
	}
	for line := range bytes.Lines(data) {
		field, value, ok := bytes.Cut(bytes.TrimRight(line, "\n"), []byte(": "))
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			end()
		case !ok:
		case string(field) == "Package":
			name = string(value)
		case string(field) == "Architecture":
			arch = string(value)
		case string(field) == "Version":
			version = string(value)
		case string(field) == "Status":
			installed = bytes.HasSuffix(value, []byte(" installed"))
		}
	}
	end()
	return short(set, native)
}

// short takes the architecture from the names of packages that are of the system's, or of
// none.
func short(long Set, native string) Set {
	set := Set{}
	for name, version := range long {
		if base, arch, _ := strings.Cut(name, ":"); arch == native || arch == "all" || arch == "" {
			name = base
		}
		set[name] = version
	}
	return set
}

// readAPK reads lib/apk/db/installed: paragraphs of letters, P: the name, V: the version.
func readAPK(data []byte) Set {
	set := Set{}
	name := ""
	for line := range bytes.Lines(data) {
		key, value, ok := strings.Cut(strings.TrimRight(string(line), "\n"), ":")
		switch {
		case !ok:
			name = ""
		case key == "P":
			name = value
		case key == "V" && name != "":
			set[name] = value
		}
	}
	return set
}
