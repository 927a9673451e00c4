package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{
		"", "---", "a: &a [*a]", "hosts: &h {a: *h}", "hosts: {a: &a {<<: *a}}", "hosts: {<<: [{a: {}}, b]}", "? [a]\n: b", "hosts: {a: !!binary x}",
		"hosts: {web[1:3]: {address: \"${host.name}\"}}", "hosts: {a: {}}\n---\nb", "# c\n- #d\n", base + "  g: {on: all, image: deb, network: {mode: own, addresses: [1.2.3.4/0]}}",
		"[web]\nweb[1:3]:22 ansible_user={{ u }} u=root\n[web:vars]\nansible_port='22'\n[a:children]\nweb\n", "all: {children: {web: {hosts: {a: {ansible_host: \"{{ b }}\", b: \"{{ a }}\"}}}}}",
		"_meta: {hostvars: {a: {x: 1}}}\nweb: [a]", "\xff\xfe", "groups: {a: {children: [a]}}", base + "  g: {on: \"~(\", image: \"${vars.x}\", limits: {memory: 9e9}}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := newBuilder()
		b.Files = []string{"fleet.yml"}
		b.read("fleet.yml", data)
		inv, err := b.build()
		if err == nil {
			for _, h := range inv.Hosts {
				if h.Name == "" || h.Address == "" || h.Port == 0 {
					t.Errorf("host %+v", h)
				}
				for _, g := range h.Guests {
					if inv.Image(g.Image) == nil || g.Hostname == "" || g.State == "" || g.Init.Style == "" || !slices.Contains(modes, g.Network.Mode) {
						t.Errorf("guest %+v", g)
					}
				}
			}
			return
		}
		var all *Errors
		if !errors.As(err, &all) || len(all.All) == 0 {
			t.Fatalf("%#v", err)
		}
		for _, e := range all.All {
			if e.Pos.File != "fleet.yml" || e.Pos.Line < 1 || e.Pos.Column < 1 || e.Msg == "" {
				t.Errorf("%+v", e)
			}
		}
	})
}

func FuzzSelect(f *testing.F) {
	for _, s := range []string{
		"web", "web*", "~web0[1,2]", "web:&fra:!web02", "web[01:03]", "site=fra,role in (web,db)", "site!=fra", "role notin (db)", "all", "web01/www*",
		"site=fra,role=db/mail", "!", "&", ",", ":", "(", "[", "~(", "a\\", "x in (", "in (a)", "web[1:99999]", "*/*", "\\", "role in ()",
	} {
		f.Add(s)
	}
	inv := mustLoad(f, fleetForPatterns)
	f.Fuzz(func(t *testing.T, pattern string) {
		if strings.Contains(pattern, "@") {
			return // a file of this machine
		}
		u := inv.hosts
		set, e := u.match(pattern)
		if e == nil && (len(set) != len(inv.Hosts) || !slices.Contains(set, true)) || e != nil && e.Msg == "" {
			t.Errorf("match(%q) = %v, %v", pattern, set, e)
		}
		list, err := inv.SelectGuests(pattern)
		if err == nil && len(list) == 0 {
			t.Errorf("SelectGuests(%q) gives nothing", pattern)
		}
	})
}
