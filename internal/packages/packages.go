package packages

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Tool is a tool that installs packages.
type Tool string

// Tools whose databases are read.
const (
	Dpkg Tool = "dpkg"
	APK  Tool = "apk"
	RPM  Tool = "rpm"
)

// Set has the versions of installed packages by their names. A package of another
// architecture than the system's is NAME:ARCH, as dpkg writes it.
type Set map[string]string

// Installed are the packages of a root filesystem.
type Installed struct {
	Tool     Tool // empty: there are none
	Packages Set
}

// MaxDatabase bounds the size of a database: ten times that of a large desktop.
const MaxDatabase = 64 << 20

// databases are read in this order, from the root.
var databases = []struct {
	path string
	tool Tool
	read func([]byte) (Set, error) // nil: nothing here reads it
}{
	{"var/lib/dpkg/status", Dpkg, readDpkg},
	{"lib/apk/db/installed", APK, readAPK},
	{"usr/lib/sysimage/rpm/rpmdb.sqlite", RPM, readRPM}, // of Fedora
	{"var/lib/rpm/rpmdb.sqlite", RPM, readRPM},
	{"usr/lib/sysimage/rpm/Packages.db", RPM, nil}, // of SUSE
	{"var/lib/rpm/Packages", RPM, nil},             // of rpm before 4.16
}

// Find returns the packages of a root filesystem, by the first database that has any. read
// returns up to limit bytes of a file.
func Find(read func(path string, limit int64) ([]byte, error)) (Installed, error) {
	var first error
	for _, db := range databases {
		data, err := read(db.path, MaxDatabase+1)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(data) > MaxDatabase {
			err = fmt.Errorf("it has more than %d MiB", MaxDatabase>>20)
		}
		var set Set
		if err == nil && db.read == nil {
			err = errors.New("of rpm's databases only those in SQLite are read (rpmdb --rebuilddb makes one with rpm 4.16 or newer)")
		} else if err == nil {
			set, err = db.read(data)
		}
		if len(set) > 0 {
			return Installed{db.tool, set}, nil
		}
		if err != nil {
			first = cmp.Or(first, fmt.Errorf("%s: %w", db.path, err))
		}
	}
	return Installed{}, first
}

// readDpkg reads /var/lib/dpkg/status: paragraphs of fields, of which those of installed
// packages count.
func readDpkg(data []byte) (Set, error) {
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
	return short(set, native), nil
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
func readAPK(data []byte) (Set, error) {
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
	return set, nil
}
