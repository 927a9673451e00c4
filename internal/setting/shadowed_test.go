package setting

import "testing"

func TestShadowAction(t *testing.T) {
	const dpkg = "/var/lib/dpkg/status"
	for _, row := range []struct{ what, rules, file, want string }{
		{"no rules", "", "/etc/passwd", ShadowKeep},
		{"a database without rules", "", dpkg, ShadowRebase},
		{"a pattern of the file", "reset /usr/lib/*.so", "/usr/lib/a.so", ShadowReset},
		{"a pattern of a directory above", "reset /usr", "/usr/lib/a.so", ShadowReset},
		{"a star does not cross directories", "reset /u*/a.so", "/usr/lib/a.so", ShadowKeep},
		{"the first that applies", "keep /usr/lib reset /usr", "/usr/lib/a.so", ShadowKeep},
		{"a rule for a database", "keep /var", dpkg, ShadowKeep},
		{"half a rule on a host", "reset", "/usr/lib/a.so", ShadowKeep},
	} {
		t.Run(row.what, func(t *testing.T) {
			if got := ShadowAction(row.rules, row.file); got != row.want {
				t.Errorf("%s, want %s", got, row.want)
			}
		})
	}
	for file, want := range map[string]string{dpkg: "dpkg", "/lib/apk/db/installed": "apk", "/var/lib/rpm/rpmdb.sqlite": "rpm", "/usr/lib/sysimage/rpm/rpmdb.sqlite": "rpm", "/etc/passwd": ""} {
		if got := PackageDatabase(file); got != want {
			t.Errorf("%s is of %q, want %q", file, got, want)
		}
	}
}
