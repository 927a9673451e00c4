package unify

import (
	"strings"
	"testing"
)

func TestExcludes(t *testing.T) {
	for _, row := range []struct {
		what, list, path string
		excluded         bool
	}{
		{"a directory", "/etc", "etc", true},
		{"with a slash at its end", "/etc/", "etc", true},
		{"what a pattern of a path matches", "/etc/*", "etc/passwd", true},
		{"a name anywhere", "ls-R", "srv/ftp/ls-R", true},
		{"another name", "ls-R", "srv/ftp/ls", false},
		{"the first rule applies", "+/etc/termcap\n/etc/*", "etc/termcap", false},
		{"as it is with the order turned", "/etc/*\n+/etc/termcap", "etc/termcap", true},
		{"not copied in util-vserver", "~/etc/shadow", "etc/shadow", true},
		{"with a dash", "- /var", "var", true},
		{"a comment", "# /var\n\n", "var", false},
	} {
		list, err := ReadExcludes(strings.NewReader(row.list))
		if err != nil || list.match(row.path) != row.excluded {
			t.Errorf("%s: %v, %v", row.what, list.match(row.path), err)
		}
	}
	for _, bad := range []string{"/etc/[", "+"} {
		if _, err := ReadExcludes(strings.NewReader("/var\n" + bad)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzExcludes(f *testing.F) {
	f.Add("/etc/*\n+x\n~[a-b]", "etc/x")
	f.Fuzz(func(t *testing.T, text, path string) {
		list, err := ReadExcludes(strings.NewReader(text))
		if err == nil {
			list.match(path)
		}
	})
}
