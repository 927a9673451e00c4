package inventory

import (
	"errors"
	"strings"
	"testing"
)

func TestVariables(t *testing.T) {
	sc := scope{host: &Host{
		Name: "h1", Address: "192.0.2.1", Labels: map[string]string{"site": "fra"},
		Vars: map[string]Var{"domain": Text("example.net"), "empty": Text(""), "odd": Text("${host.name}")},
	}, guest: "www"}
	for _, row := range []struct{ name, text, want string }{
		{"none", "a $HOME $} {b}", "a $HOME $} {b}"},
		{"each", "${host.name} ${host.address} ${host.labels.site} ${vars.domain} ${guest.name}", "h1 192.0.2.1 fra example.net www"},
		{"a value that is empty", "<${vars.empty}>", "<>"},
		{"a value is not expanded again", "${vars.odd}", "${host.name}"},
		{"escaped", "$${host.name} $$${host.name} $$$", "${host.name} $${host.name} $$$"},
		{"a default that is not needed", "${vars.domain:-example.org}", "example.net"},
		{"a default where there is no variable", "www.${vars.zone:-example.org}/", "www.example.org/"},
		{"a default where the variable is empty, as in a shell", "${vars.empty:-x}", "x"},
		{"a default of a label", "${host.labels.rack:-r0}", "r0"},
		{"an empty default", "<${vars.zone:-}>", "<>"},
		{"a default with a colon and a dash", "${vars.zone:-a:-b}", "a:-b"},
		{"a variable in a default", "${vars.zone:-${host.name}.${vars.domain}}!", "h1.example.net!"},
		{"a default in a default", "${vars.a:-${vars.b:-${vars.c:-d}}}", "d"},
		{"an escape in a default", "${vars.a:-$${HOME}}", "${HOME}"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := sc.expand(row.text)
			if err != nil || got != row.want {
				t.Errorf("%s is %q, %v; want %q", row.text, got, err, row.want)
			}
		})
	}
	for _, row := range []struct{ name, text, want string }{
		{"a default does not excuse an unknown name", "${host.nmae:-x}", `unknown variable ${host.nmae} (did you mean "host.name"?)`},
		{"a slip in a default that is needed", "${vars.a:-${vars.domian}}", `unknown variable ${vars.domian} on host h1 (did you mean "vars.domain"?)`},
		{"a label that is nowhere", "${host.labels.zzzzzzzz}", "unknown variable ${host.labels.zzzzzzzz} on host h1 (a default would be ${host.labels.zzzzzzzz:-…})"},
		{"no end", "${vars.a:-${host.name}", "${vars.a:-${host.name} has no } (write $${ for ${ itself)"},
		{"ten defaults in each other", strings.Repeat("${vars.a:-", 10) + strings.Repeat("}", 10), "${vars.a:-…}: more than 8 defaults in each other"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, err := sc.expand(row.text); err == nil || err.Error() != row.want {
				t.Errorf("%s is %q, %v; want %s", row.text, got, err, row.want)
			}
		})
	}
}

func TestExpansionIsBounded(t *testing.T) {
	sc := scope{host: &Host{Vars: map[string]Var{"big": Text(strings.Repeat("x", 1<<16))}}}
	got, err := sc.expand(strings.Repeat("${vars.big}", 1<<16)) // 4 GiB
	if err == nil || err.Msg != "with its variables it has more than 1 MiB" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"${host.name}", "$${", "${vars.a:-${vars.b:-}}", "${", "}${:-}", "$$${vars.a}", "${vars.a:-$${}}"} {
		f.Add(s)
	}
	sc := scope{host: &Host{Name: "h", Vars: map[string]Var{"a": Text("x")}}, guest: "g"}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := sc.expand(text)
		if err != nil && (err.Offset < 1 || err.Offset > len(text) || err.Msg == "") {
			t.Errorf("%q: %+v", text, err)
		}
		if err == nil && !strings.Contains(text, "${") && got != text {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// What -l, ssh settings and addresses take from variables is checked after they are
// replaced.
func TestVariablesOfHosts(t *testing.T) {
	inv := mustLoad(t, `
ssh: {user: "${vars.admin:-root}", identity: "keys/${host.labels.site:-all}", jump: "gate-${host.labels.site:-ber}.example.net"}
hosts:
  a: {address: "${host.name}.${vars.domain:-example.net}", labels: {site: fra}, vars: {admin: eve}}
  b: {}
`)
	for i, want := range []string{
		"a.example.net eve gate-fra.example.net keys/fra", "b root gate-ber.example.net keys/all",
	} {
		h := inv.Hosts[i]
		if got := h.Address + " " + h.SSH.User + " " + h.SSH.Jump + " " + h.SSH.Identity; got != want {
			t.Errorf("host %d is %s, want %s", i, got, want)
		}
	}
	_, err := load(t, `hosts: {a: {user: "${vars.x}", vars: {x: -oProxyCommand=x}}}`)
	if err == nil || err.Error() != `fleet.yml:1:19: it cannot be "-oProxyCommand=x", as on host a` {
		t.Error(err)
	}
}

func TestErrorsShowTheirLine(t *testing.T) {
	const guest = base + "  g: {on: h1, image: deb, "
	for _, row := range []struct{ name, text, want string }{
		{"a key", "hosts:\n  web01: {adress: 192.0.2.1}\n",
			"    2 |   web01: {adress: 192.0.2.1}\n      |           ^"},
		{"a variable behind another one", guest + "hostname: \"${host.name}-${host.nmae}\"}\n",
			"    4 |   g: {on: h1, image: deb, hostname: \"${host.name}-${host.nmae}\"}\n      |                                                   ^"},
		{"the second of two that are alike, on a later line of a text", guest + "files: {/etc/x: {content: \"${host.name}\n    ${host.name} ${host.nam}\"}}}\n",
			"    5 |     ${host.name} ${host.nam}\"}}}\n      |                  ^"},
		{"a tab and a control character", "hosts: {a: {address: \"\tb\u009b\"}}\n",
			"    1 | hosts: {a: {address: \" b.\"}}\n      |                         ^"},
		{"characters of several bytes", "hosts: {a: {labels: {ä: b}}}\n",
			"    1 | hosts: {a: {labels: {ä: b}}}\n      |                      ^"},
		{"a long line", "hosts: {a: {labels: {b: " + strings.Repeat("x", 300) + ", c: \"\"}}}\n",
			"    1 | …" + strings.Repeat("x", 90) + ", c: \"\"}}}\n      | " + strings.Repeat(" ", 96) + "^"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(t, row.text)
			var all *Errors
			if !errors.As(err, &all) {
				t.Fatal(err)
			}
			if got := all.All[len(all.All)-1].Excerpt; got != row.want {
				t.Errorf("%v\n got\n%s\nwant\n%s", err, got, row.want)
			}
		})
	}
}
