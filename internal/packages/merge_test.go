package packages

import (
	"maps"
	"testing"
)

func TestMerge(t *testing.T) {
	par := func(name, version string, more ...string) string {
		s := "Package: " + name + "\nStatus: install ok installed\nArchitecture: amd64\nVersion: " + version + "\n"
		for _, line := range more {
			s += line + "\n"
		}
		return s + "\n"
	}
	for _, row := range []struct{ what, was, guest, is, want string }{
		{"what the guest has as it was becomes the image's", par("libc6", "1"), par("libc6", "1"), par("libc6", "2"), par("libc6", "2")},
		{"what the guest installed stays", par("a", "1"), par("a", "1") + par("nginx", "9"), par("a", "2"), par("a", "2") + par("nginx", "9")},
		{"what the guest upgraded stays", par("a", "1"), par("a", "3"), par("a", "2"), par("a", "3")},
		{"what the guest removed stays away", par("a", "1") + par("b", "1"), par("a", "1"), par("a", "2") + par("b", "2"), par("a", "2")},
		{"what only has its configuration left stays so", par("a", "1"), "Package: a\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n", par("a", "2"), "Package: a\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"},
		{"what the guest holds stays held", par("a", "1"), "Package: a\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 1\n\n", par("a", "2"), "Package: a\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 1\n\n"},
		{"what is new in the image comes", par("a", "1"), par("a", "1"), par("a", "1") + par("b", "1"), par("a", "1") + par("b", "1")},
		{"what the image removed goes", par("a", "1") + par("b", "1"), par("a", "1") + par("b", "1"), par("b", "1"), par("b", "1")},
		{"what both installed is the guest's", par("a", "1"), par("a", "1") + par("b", "7"), par("a", "1") + par("b", "8"), par("a", "1") + par("b", "7")},
		{"the same version in other words is the same", par("a", "1"), par("a", "1", "Priority: extra"), par("a", "2"), par("a", "2")},
		{"an architecture more is another package", par("a", "1"), par("a", "1") + "Package: a\nStatus: install ok installed\nArchitecture: i386\nVersion: 1\n\n", par("a", "2"),
			par("a", "2") + "Package: a\nStatus: install ok installed\nArchitecture: i386\nVersion: 1\n\n"},
		{"apt's marks", "Package: a\nArchitecture: amd64\nAuto-Installed: 1\n\n", "Package: a\nArchitecture: amd64\nAuto-Installed: 0\n\n", "Package: a\nArchitecture: amd64\nAuto-Installed: 1\n\nPackage: b\nArchitecture: amd64\nAuto-Installed: 1\n\n",
			"Package: a\nArchitecture: amd64\nAuto-Installed: 0\n\nPackage: b\nArchitecture: amd64\nAuto-Installed: 1\n\n"},
		{"apk's database", "C:1\nP:musl\nV:1\n\n", "C:1\nP:musl\nV:1\n\nP:nginx\nV:5\n\n", "C:2\nP:musl\nV:2\n\n", "C:2\nP:musl\nV:2\n\nP:nginx\nV:5\n\n"},
		{"blank lines too many", "\n\n" + par("a", "1"), "\n" + par("a", "1") + "\n\n\n", par("a", "2"), par("a", "2")},
		{"an image without a database", "", par("a", "1"), par("b", "1"), par("a", "1") + par("b", "1")},
		{"a guest that emptied it", par("a", "1"), "", par("a", "2"), ""},
		{"paragraphs that are no packages stay", "", "Hello: world\n\n", par("a", "1"), "Hello: world\n\n" + par("a", "1")},
	} {
		t.Run(row.what, func(t *testing.T) {
			if got := string(Merge([]byte(row.was), []byte(row.guest), []byte(row.is))); got != row.want {
				t.Errorf("got %q\nwant %q", got, row.want)
			}
		})
	}
}

// FuzzMerge: nothing of the guest's own is lost, and what is merged twice has the same packages.
func FuzzMerge(f *testing.F) {
	f.Add("Package: a\nVersion: 1\n", "Package: a\nVersion: 1\n\nPackage: b\nVersion: 1\n", "Package: a\nVersion: 2\n")
	f.Add("P:a\nV:1\n", "P:a\nV:1\n\n\nx", "P:b\nV:1\n\nP:a\nV:1")
	f.Fuzz(func(t *testing.T, was, guest, is string) {
		merged := Merge([]byte(was), []byte(guest), []byte(is))
		before, after := byPackage([]byte(was)), byPackage(merged)
		again := byPackage(Merge([]byte(is), merged, []byte(is)))
		if !maps.EqualFunc(again, after, func(a, b []byte) bool { return true }) {
			t.Errorf("merged for the same image again: %q, was %q", again, merged)
		}
		for key, p := range byPackage([]byte(guest)) {
			if !samePackage(p, before[key]) && after[key] == nil {
				t.Errorf("the guest's own %q is lost", key)
			}
		}
		if same := Merge([]byte(guest), []byte(guest), []byte(guest)); !maps.EqualFunc(byPackage(same), byPackage([]byte(guest)), func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("nothing has changed, and it is %q", same)
		}
	})
}
