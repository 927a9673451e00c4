package setting

import (
	"path"
	"slices"
	"strings"
)

// Words of Guest.Shadowed: what becomes of a shadow.
const (
	ShadowKeep   = "keep"   // it stays
	ShadowReset  = "reset"  // it is put aside: the guest sees the image's
	ShadowRebase = "rebase" // a database of packages: what the image changed is taken over, what the guest changed stays
)

// RebasedFiles are the files that can be rebased, which is the default for them.
var RebasedFiles = []string{"/var/lib/dpkg/status", "/var/lib/apt/extended_states", "/lib/apk/db/installed"}

// PackageDatabase returns the program that keeps its packages in a file, or "".
func PackageDatabase(file string) string {
	switch {
	case file == RebasedFiles[0]:
		return "dpkg"
	case file == RebasedFiles[2]:
		return "apk"
	case strings.HasPrefix(file, "/var/lib/rpm/"), strings.HasPrefix(file, "/usr/lib/sysimage/rpm/"):
		return "rpm"
	}
	return ""
}

// ShadowAction returns what becomes of a file: by the first rule whose pattern matches it
// or a directory that it is in; without one, RebasedFiles are rebased, and all else kept.
// rules are words: reset /usr/lib/* keep /etc.
func ShadowAction(rules, file string) string {
	words := strings.Fields(rules)
	for i := 1; i < len(words); i += 2 {
		for at := file; at != "/"; at = path.Dir(at) {
			if ok, _ := path.Match(words[i], at); ok {
				return words[i-1]
			}
		}
	}
	if slices.Contains(RebasedFiles, file) {
		return ShadowRebase
	}
	return ShadowKeep
}
