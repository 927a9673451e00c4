package inventory

import (
	"strings"
	"testing"
)

// The rules of a guest go before those of its image.
func TestShadowed(t *testing.T) {
	const text = `hosts: {h1: {vars: {dir: opt}}}
images:
  deb: {method: debootstrap, args: [-d, bookworm], shadowed: [{path: "/usr/lib/*", do: reset}, {path: /var/lib/dpkg/status, do: rebase}]}
guests:
  www: {on: h1, image: deb, network: {mode: nat}, shadowed: [{path: "/${vars.dir}", do: keep}]}
  db: {on: h1, image: deb, network: {mode: nat}}
`
	inv, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	const image = "reset /usr/lib/* rebase /var/lib/dpkg/status"
	for _, g := range inv.Hosts[0].Guests {
		want := map[string]string{"db": image, "www": "keep /opt " + image}[g.Name]
		if g.Shadowed != want {
			t.Errorf("%s: %q, want %q", g.Name, g.Shadowed, want)
		}
	}
	for _, row := range []struct{ what, rules, want string }{
		{"no list", "reset", "shadowed: want a list of rules, as [{path: /usr/lib/*, do: reset}]"},
		{"half a rule", "[{path: /usr}]", "shadowed: a rule has a path, and what to do"},
		{"an unknown word", "[{path: /usr, do: rest}]", `shadowed: there is no "rest", want rebase, reset or keep (did you mean "reset"?)`},
		{"a path that is none", "[{path: usr, do: reset}]", `want the pattern of a path from the guest's root, as /usr/lib/*, have "usr"`},
		{"the whole root", "[{path: /, do: reset}]", `have "/"`},
		{"a pattern that is none", `[{path: "/usr/[", do: reset}]`, `have "/usr/["`},
		{"a path with steps back", `[{path: "/usr/../etc", do: reset}]`, `have "/usr/../etc"`},
		{"a blank", `[{path: "/usr/a b", do: reset}]`, "a pattern has no blanks; ? matches one"},
		{"a file that nobody can merge", "[{path: /etc/passwd, do: rebase}]", "shadowed: /etc/passwd cannot be rebased, only databases of packages can: /var/lib/dpkg/status, /var/lib/apt/extended_states, /lib/apk/db/installed (use reset or keep)"},
	} {
		t.Run(row.what, func(t *testing.T) {
			for name, old := range map[string]string{"guest": `[{path: "/${vars.dir}", do: keep}]`, "image": `[{path: "/usr/lib/*", do: reset}, {path: /var/lib/dpkg/status, do: rebase}]`} {
				_, err := load(t, strings.Replace(text, old, row.rules, 1))
				if err == nil || !strings.Contains(err.Error(), row.want) {
					t.Errorf("of a %s: %v, want %s", name, err, row.want)
				}
			}
		})
	}
	if _, err := load(t, strings.Replace(text, `"/usr/lib/*"`, `"/${vars.dir}"`, 1)); err == nil || !strings.Contains(err.Error(), "a rule of an image has no variables") {
		t.Errorf("a variable in an image: %v", err)
	}
}
