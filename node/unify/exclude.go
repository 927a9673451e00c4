package unify

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// Excludes are rules for paths, of which the first that matches applies, as in
// util-vserver's lists.
type Excludes []rule

type rule struct {
	pattern string
	include bool
}

// Builtin is the list of a host that has none: what is a guest's own, and what programs
// write to.
var Builtin = Excludes{
	{"/.rpmdb", false}, {"/boot", false}, {"/dev", false}, {"/etc", false}, {"/home", false}, {"/media", false}, {"/mnt", false}, {"/proc", false},
	{"/root", false}, {"/run", false}, {"/selinux", false}, {"/sys", false}, {"/tmp", false}, {"/var", false},
	{"ls-R", false}, {"*.log", false}, {"*.sqlite", false}, {"*.db", false}, {"utmp", false}, {"wtmp", false},
}

// ReadExcludes reads a list: a pattern per line, with "+" before those of files that are
// unified whatever a later line says, with "-", "~" or nothing before others. A pattern
// that begins with a slash is that of a whole path, others are those of a name. What is in
// an excluded directory is excluded.
func ReadExcludes(r io.Reader) (list Excludes, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		add := rule{pattern: text}
		if strings.IndexByte("+-~", text[0]) >= 0 {
			add = rule{pattern: strings.TrimSpace(text[1:]), include: text[0] == '+'}
		}
		if add.pattern != "/" {
			add.pattern = strings.TrimSuffix(add.pattern, "/")
		}
		if _, err := path.Match(add.pattern, ""); err != nil || add.pattern == "" {
			return nil, fmt.Errorf("line %d: %q is not a pattern", n, text)
		}
		list = append(list, add)
	}
	return list, lines.Err()
}

// match reports whether a file or directory, of a path without a slash at its front, is
// excluded.
func (x Excludes) match(name string) bool {
	for _, r := range x {
		against := path.Base(name)
		if strings.Contains(r.pattern, "/") {
			against = "/" + name
		}
		if ok, _ := path.Match(r.pattern, against); ok {
			return !r.include
		}
	}
	return false
}
