package packages

import (
	"io/fs"
	"maps"
	"os/exec"
	"testing"
)

// TestCompare: each row is what dpkg says, too.
func TestCompare(t *testing.T) {
	for _, row := range []struct {
		a, op, b string
	}{
		{"1.0", "eq", "1.0"}, {"1.0", "lt", "1.1"}, {"1.9", "lt", "1.10"}, {"2.0", "gt", "1.99"},
		{"1.0~rc1", "lt", "1.0"}, {"1.0~~", "lt", "1.0~"}, {"1.0", "lt", "1.0a"}, {"1.0a", "lt", "1.0+"},
		{"1:0.1", "gt", "9"}, {"0:1", "eq", "1"}, {"1.0-1", "gt", "1.0"}, {"1.0-1", "lt", "1.0-1+deb12u1"},
		{"1.0-2", "lt", "1.0-10"}, {"3.0.11-1~deb12u2", "lt", "3.0.11-1~deb12u10"}, {"1.0-1-1", "gt", "1.0-1"},
		{"007", "eq", "7"}, {"1.0-0", "eq", "1.0"}, {"a", "gt", "1"}, {"2.36-9+deb12u4", "lt", "2.36-9+deb12u13"},
	} {
		got := Dpkg.Compare(row.a, row.b)
		want := map[string]bool{"lt": got < 0, "eq": got == 0, "gt": got > 0}[row.op]
		if back := Dpkg.Compare(row.b, row.a); !want || (got < 0) != (back > 0) || (got == 0) != (back == 0) {
			t.Errorf("%s against %s: %d, want %s", row.a, row.b, got, row.op)
		}
		if err := exec.Command("dpkg", "--compare-versions", row.a, row.op, row.b).Run(); err != nil {
			t.Errorf("dpkg does not say that %s %s %s: %v", row.a, row.op, row.b, err)
		}
	}
	for _, row := range [][2]string{{"1.0_rc1-r0", "1.0-r0"}, {"1.36.1-r5", "1.36.1-r15"}, {"1.2_alpha1", "1.2_beta1"}, {"1.2-r0", "1.2_p1-r0"}} {
		if APK.Compare(row[0], row[1]) >= 0 || APK.Compare(row[1], row[0]) <= 0 {
			t.Errorf("%s is not older than %s", row[0], row[1])
		}
	}
}

func TestRead(t *testing.T) {
	for _, row := range []struct {
		name, path, text string
		tool             Tool
		want             Set
	}{
		{"dpkg's", "var/lib/dpkg/status", `Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21

Package: libc6
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 2.36-9
Description: GNU C Library
 Version: 9 is no field here

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: adduser
Status: hold ok installed
Architecture: all
Version: 3.134`, Dpkg, Set{"dpkg": "1.21", "libc6:i386": "2.36-9", "adduser": "3.134"}},
		{"apk's", "lib/apk/db/installed", "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\n\nP:busybox\nV:1.36.1-r5\n", APK, Set{"musl": "1.2.5-r0", "busybox": "1.36.1-r5"}},
		{"nothing", "var/lib/dpkg/status", "", "", nil},
		{"something else than a database", "var/lib/dpkg/status", "\x00\xff: \n: \nPackage: \n", "", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := Find(func(path string, _ int64) ([]byte, error) {
				if path != row.path {
					return nil, fs.ErrNotExist
				}
				return []byte(row.text), nil
			})
			if err != nil || got.Tool != row.tool || !maps.Equal(got.Packages, row.want) {
				t.Errorf("%v, %v, want %s %v", got, err, row.tool, row.want)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add("Package: a\nStatus: install ok installed\nVersion: 1:2-3\n", "P:a\nV:1_rc1-r2\n")
	f.Fuzz(func(t *testing.T, dpkg, apk string) {
		ours, _ := readDpkg([]byte(dpkg))
		theirs, _ := readAPK([]byte(apk))
		for _, version := range ours {
			for _, other := range theirs {
				if c, back := Dpkg.Compare(version, other), Dpkg.Compare(other, version); (c < 0) != (back > 0) || (c == 0) != (back == 0) {
					t.Errorf("%q against %q: %d, the other way %d", version, other, c, back)
				}
			}
		}
	})
}
