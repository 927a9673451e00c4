package inventory

import (
	"os"
	"strings"
	"testing"
)

// withFiles is an inventory whose guest www has these files.
func withFiles(files string) string {
	return base + "  www:\n    on: all\n    image: deb\n    files:\n" + files
}

func TestFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", "logo.bin", "\x00\x01${not a variable}")
	write(t, ".", "site.tmpl", "server_name ${guest.name}.${host.name}; cost $${x};\n")
	write(t, ".", "h1.key", "geheim one\n")
	write(t, ".", "h2.key", "geheim two\n")
	write(t, ".", "fleet.yml", withFiles(`      /etc/motd: {content: "on ${host.name}\n"}
      /etc/empty: {content: ""}
      /etc/logo: {source: logo.bin, owner: "33"}
      /etc/site.conf: {template: site.tmpl, mode: 0640, owner: "root:www-data", on_change: [nginx, -s, reload]}
      /etc/key: {source: "${host.name}.key", mode: 0600, on_change: restart}
      /etc/token: {content: t0ken, secret: true}
      /etc/open: {content: x, mode: "0600", secret: false}
`))
	inv, err := Load("fleet.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ host, path, content, owner string }{
		{"h1", "/etc/motd", "on h1\n", "root:root"},
		{"h2", "/etc/motd", "on h2\n", "root:root"},
		{"h1", "/etc/empty", "", "root:root"},
		{"h1", "/etc/logo", "\x00\x01${not a variable}", "33:33"},
		{"h1", "/etc/site.conf", "server_name www.h1; cost ${x};\n", "root:www-data"},
		{"h1", "/etc/key", "geheim one\n", "root:root"},
		{"h2", "/etc/key", "geheim two\n", "root:root"},
	} {
		f := fileOf(t, inv, row.host, row.path)
		if string(f.Content) != row.content || f.Owner != row.owner {
			t.Errorf("%s on %s: %q of %s, want %q of %s", row.path, row.host, f.Content, f.Owner, row.content, row.owner)
		}
	}
	for path, want := range map[string]File{
		"/etc/motd":      {Mode: 0o644},
		"/etc/site.conf": {Mode: 0o640, OnChange: OnChange{Command: []string{"nginx", "-s", "reload"}}},
		"/etc/key":       {Mode: 0o600, Secret: true, OnChange: OnChange{Restart: true}}, // nobody else may read it
		"/etc/token":     {Mode: 0o644, Secret: true},
		"/etc/open":      {Mode: 0o600},
	} {
		f := fileOf(t, inv, "h1", path)
		if f.Mode != want.Mode || f.Secret != want.Secret || f.OnChange.Restart != want.OnChange.Restart || strings.Join(f.OnChange.Command, " ") != strings.Join(want.OnChange.Command, " ") {
			t.Errorf("%s: %+v", path, f)
		}
	}
}

func fileOf(t *testing.T, inv *Inventory, host, path string) File {
	t.Helper()
	for _, f := range inv.mustHost(t, host).Guests[0].Files {
		if f.Path == path {
			return f
		}
	}
	t.Fatalf("no %s", path)
	return File{}
}

func TestFilesOfAnImage(t *testing.T) {
	inv := mustLoad(t, "images: {deb: {method: template, args: [-t, /x.tar], files: {/etc/a: {content: \"${this is no variable}\", mode: 0755}}}}\n")
	if f := inv.Image("deb").Files; len(f) != 1 || string(f[0].Content) != "${this is no variable}" || f[0].Mode != 0o755 {
		t.Errorf("%+v", f)
	}
}

func TestErrorsOfFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", "large", strings.Repeat("x", MaxFile+1))
	write(t, ".", "full", strings.Repeat("x", MaxFile))
	write(t, ".", "typo.tmpl", "first\n${host.nmae}\n")
	if err := os.Mkdir("dir", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, text, want string }{
		{"a path that is relative", withFiles("      etc/motd: {content: a}\n"), "fleet.yml:8:7: files: etc/motd: want an absolute path without . and .., as /etc/motd"},
		{"a path that leads out", withFiles("      /etc/../../x: {content: a}\n"), "fleet.yml:8:7: files: /etc/../../x: want an absolute path without . and .., as /etc/motd"},
		{"a path that does not last", withFiles("      /run/x: {content: a}\n"), "fleet.yml:8:7: files: /run/x: /run of a guest is made anew at each start, so no file lasts there"},
		{"a file below a file", withFiles("      /etc/x: {content: a}\n      /etc/x/y: {content: a}\n"), "fleet.yml:9:7: files: /etc/x/y cannot be below /etc/x, which is a file as well"},
		{"nothing in it", withFiles("      /etc/x: {mode: 0644}\n"), "fleet.yml:8:7: files: /etc/x: want one of content, source and template, have 0 of them"},
		{"two things in it", withFiles("      /etc/x: {content: a, source: full}\n"), "fleet.yml:8:7: files: /etc/x: want one of content, source and template, have 2 of them"},
		{"an unknown key", withFiles("      /etc/x: {content: a, mod: 0644}\n"), `fleet.yml:8:28: unknown key "mod" (did you mean "mode"?)`},
		{"a mode that is none", withFiles("      /etc/x: {content: a, mode: rw}\n"), `fleet.yml:8:34: mode: want permissions as 0644, have "rw"`},
		{"an owner that is none", withFiles("      /etc/x: {content: a, owner: \"a b\"}\n"), `fleet.yml:8:35: owner: want USER or USER:GROUP, names or ids up to 65535, have "a b"`},
		{"something else to do", withFiles("      /etc/x: {content: a, on_change: reload}\n"), `fleet.yml:8:39: on_change: want restart, or a command to run in the guest, as [systemctl, reload, nginx], have "reload"`},
		{"a file that is not there", withFiles("      /etc/x: {source: none}\n"), "fleet.yml:8:24: source: stat none: no such file or directory"},
		{"a directory", withFiles("      /etc/x: {source: dir}\n"), "fleet.yml:8:24: source: dir is not a file"},
		{"a file that is too large", withFiles("      /etc/x: {source: large}\n"), "fleet.yml:8:24: source: large has more than 1 MiB: put it into an image, or copy it by other means"},
		{"files that are too large together", withFiles("      /etc/1: {source: full}\n      /etc/2: {source: full}\n      /etc/3: {source: full}\n      /etc/4: {source: full}\n      /etc/5: {content: x}\n"),
			"fleet.yml:12:7: files: more than 4 MiB altogether (put what is large into an image, or copy it by other means)"},
		{"a slip in a template", withFiles("      /etc/x: {template: typo.tmpl}\n"), `typo.tmpl:2:1: unknown variable ${host.nmae} (did you mean "host.name"?)`},
		{"a template of an image", "images: {deb: {method: template, args: [-t, /x], files: {/a: {template: full}}}}\n", "fleet.yml:1:73: template: an image is the same on all hosts, so its files hold no variables (use source, or give the file to the guests)"},
		{"a file of an image by a variable", "images: {deb: {method: template, args: [-t, /x], files: {/a: {source: \"${host.name}\"}}}}\n", "fleet.yml:1:71: source: an image is the same on all hosts, so its files hold no variables"},
		{"something for an image to do", "images: {deb: {method: template, args: [-t, /x], files: {/a: {source: full, on_change: restart}}}}\n", "fleet.yml:1:58: files: an image does not run, so it has no on_change (give the file to the guests)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := Load(write(t, ".", "fleet.yml", row.text))
			if err == nil || err.Error() != row.want {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
		})
	}
}
