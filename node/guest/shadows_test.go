package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// A guest that moves to another version of its image gets what that changed in the package
// database, and its libraries where a rule says so; going back puts its files back as they
// were.
func TestShadowedFilesOnTheWayToAnotherImageAndBack(t *testing.T) {
	h := host(t)
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	const status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
	const nginx = "Package: nginx\nStatus: install ok installed\nArchitecture: amd64\nVersion: 9\n\n"
	set := func(version string) {
		t.Helper()
		for name, text := range map[string]string{
			"var/lib/dpkg/status": strings.Replace(status, "Version: 1", "Version: "+version, 1),
			"usr/lib/libx.so":     "x " + version, "usr/lib/liby.so": "y " + version, "srv/conf": "conf " + version, "srv/mode": "mode " + version,
		} {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755))
			must(t, os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644))
		}
	}
	plain := h.Tree
	set("1")
	store, one := described(t, h)
	h.Tree = plain
	set("22")
	_, two := described(t, h)
	if one.ID == two.ID {
		t.Fatal("the two versions are the same")
	}
	h.Images = store

	g := inMode(api.ModeNAT, "shadowed", 151, "sleep", "1000")
	g.Image = one.ID
	configured(t, h, g, nil)
	start := func(image, rules string) {
		t.Helper()
		writeFiles(t, h, g.Name, map[string]string{"image": image + "\n", "apps/vunify/shadowed": rules + "\n"})
		must(t, h.Start(t.Context(), g.Name, Options{}))
	}
	see := func(stop bool) string {
		t.Helper()
		out, _ := run(t, h, g.Name, "sh", "-c", "busybox cat /usr/lib/libx.so /usr/lib/liby.so /srv/conf /srv/mode 2>/dev/null; busybox grep -E '^(Package|Version)' /var/lib/dpkg/status | busybox tr '\\n' ' '")
		if stop {
			_, err := h.Stop(t.Context(), g.Name)
			must(t, err)
		}
		return strings.TrimSpace(strings.ReplaceAll(out, "\n", " "))
	}
	start(one.ID, "")
	run(t, h, g.Name, "sh", "-c", "printf '"+strings.ReplaceAll(nginx, "\n", `\n`)+"' >>/var/lib/dpkg/status; for f in /usr/lib/libx.so /srv/conf; do printf mine >$f; done; rm /usr/lib/liby.so 2>/dev/null || busybox rm /usr/lib/liby.so; busybox chmod 600 /srv/mode")
	from, found, err := h.Shadows(t.Context(), g.Name, two.ID, Trees{})
	must(t, err)
	var got []string
	for _, f := range found {
		got = append(got, f.Path+" "+string(f.Kind))
	}
	const want = "/var/lib/dpkg/status changed, /srv/conf changed, /usr/lib/libx.so changed, /usr/lib/liby.so removed, /srv/mode attributes"
	if from != one.ID || strings.Join(got, ", ") != want {
		t.Errorf("from %s: %v, want %s", from, got, want)
	}
	before := see(true)
	upper := h.rootDir(g.Name)
	exact, err := os.ReadFile(upper + "/var/lib/dpkg/status")
	must(t, err)

	for _, row := range []struct{ what, image, rules, want string }{
		{"a rule for libraries", two.ID, "reset /usr/lib/*", "x 22y 22minemode 22Package: libc6 Version: 22 Package: nginx Version: 9"},
		{"back", one.ID, "reset /usr/lib/*", before},
		{"no rules", two.ID, "", "mineminemode 22Package: libc6 Version: 22 Package: nginx Version: 9"},
		{"back again", one.ID, "", before},
		{"all is kept", two.ID, "keep /var", "mineminemode 22Package: libc6 Version: 1 Package: nginx Version: 9"},
		{"and back", one.ID, "", before},
	} {
		start(row.image, row.rules)
		if got := see(true); got != row.want {
			t.Errorf("%s: it sees %q, want %q", row.what, got, row.want)
		}
		if row.image == one.ID {
			now, err := os.ReadFile(upper + "/var/lib/dpkg/status")
			must(t, err)
			if string(now) != string(exact) {
				t.Errorf("%s: the database is %q, was %q", row.what, now, exact)
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(upper), ".root.shadowed", "*")); err != nil || left != nil {
				t.Errorf("%s: it has left %v, %v", row.what, left, err)
			}
		}
	}

	// What was installed on the new image is not lost on the way back.
	start(two.ID, "")
	run(t, h, g.Name, "sh", "-c", "printf 'Package: extra\\nStatus: install ok installed\\nArchitecture: amd64\\nVersion: 3\\n\\n' >>/var/lib/dpkg/status")
	see(true)
	start(one.ID, "")
	if got := see(true); !strings.HasSuffix(got, "Package: libc6 Version: 1 Package: nginx Version: 9 Package: extra Version: 3") {
		t.Errorf("back with a package more: %q", got)
	}
}
