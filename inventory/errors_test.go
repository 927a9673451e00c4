package inventory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write puts a file into a directory of the test and gives its path.
func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load reads one text as fleet.yml.
func load(t testing.TB, text string) (*Inventory, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	return Load(write(t, ".", "fleet.yml", text))
}

// two hosts, an image, and guests from line 4 on.
const base = `hosts: {h1: {address: 192.0.2.1, labels: {site: fra}, vars: {domain: example.net}}, h2: {}}
images: {deb: {method: debootstrap, args: [-d, bookworm]}}
guests:
`

func TestErrors(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       []string
	}{
		// Files.
		{"an empty file", "", []string{
			"fleet.yml:1:1: the file is empty (it wants at least hosts: {NAME: {address: …}})"}},
		{"a file of comments", "# nothing\n", []string{
			"fleet.yml:1:1: the file is empty (it wants at least hosts: {NAME: {address: …}})"}},
		{"an empty document", "---\n", []string{
			"fleet.yml:2:1: the file is empty (it wants at least hosts: {NAME: {address: …}})"}},
		{"two documents", "hosts: {a: {}}\n---\nhosts: {b: {}}\n", []string{
			"fleet.yml:2:1: a second document begins here; an inventory is one document (give each document a file of its own)"}},
		{"a list at the top", "- a\n", []string{
			"fleet.yml:1:1: an inventory: want a mapping with hosts, groups, images and guests, have a list"}},
		{"a text at the top", "hosts\n", []string{
			`fleet.yml:1:1: an inventory: want a mapping with hosts, groups, images and guests, have "hosts"`}},
		{"no YAML", "hosts: {a: {}\nimages: {}\n", []string{
			"fleet.yml:1:1: not readable as YAML: did not find expected ',' or '}' (is a { or a [ not closed, or a text with a colon or a comma not in quotes?)"}},
		{"no YAML further down", "ssh: {}\nimages: {}\nhosts: {a: {}\n", []string{
			"fleet.yml:3:1: not readable as YAML: did not find expected ',' or '}' (is a { or a [ not closed, or a text with a colon or a comma not in quotes?)"}},
		{"bytes that are no text", "hosts:\n  a: \xff\n", []string{
			"fleet.yml:2:6: not readable as YAML: invalid leading UTF-8 octet"}},
		{"a guest that is a text", base + "  www: here\n", []string{
			`fleet.yml:4:8: guest www: want a mapping, as {on: web, image: bookworm}, have "here"`}},
		{"a tab", "hosts:\n\ta: {}\n", []string{
			"fleet.yml:2:1: a tab: YAML indents with spaces alone"}},
		{"a tab among spaces", "hosts:\n  a:\n  \tport: 22\n", []string{
			"fleet.yml:3:3: a tab: YAML indents with spaces alone"}},
		{"a key indented as none above it", "hosts:\n  a:\n    port: 22\n   user: root\n  b: {}\n", []string{
			"fleet.yml:4:4: the indentation of this line fits none of the lines above (indent it as its neighbours)"}},
		{"a key indented below a value", "hosts:\n  a:\n    port: 22\n      user: root\n", []string{
			"fleet.yml:4:7: this line is indented below a value, which can have nothing below it (indent it as the line above)"}},
		{"a key at the end of a long file indented as none above it", "hosts:\n" + strings.Repeat("  a: &a {port: 22}\n  b:\n    user: root\n", 300) + " c: {}\n", []string{
			"fleet.yml:902:2: the indentation of this line fits none of the lines above (indent it as its neighbours)"}},
		{"two colons in a line", "hosts:\n  a:\n    labels: x: y\n", []string{
			"fleet.yml:3:14: not readable as YAML: mapping values are not allowed in this context (put a text with a colon and a space in it in quotes)"}},
		{"no space behind a colon", "hosts:\n  a:\n    address:192.0.2.1\n    port: 22\n", []string{
			"fleet.yml:3:5: no space behind the colon of address (write address: …)"}},
		{"no space behind the only colon", "hosts:\n  a:\n    address:192.0.2.1\n", []string{
			`fleet.yml:3:5: host a: want a mapping, as {address: 203.0.113.11}, have "address:192.0.2.1" (a space is missing behind the colon: address: 192.0.2.1)`}},
		{"no space behind a colon in braces", "hosts:\n  a: {address:192.0.2.1}\n", []string{
			`fleet.yml:2:7: unknown key "address:192.0.2.1" (a space is missing behind the colon: address: 192.0.2.1)`}},
		{"an address that begins with a colon in braces", "hosts:\n  a: {address: ::ffff:192.0.2.1}\n", []string{
			`fleet.yml:2:16: ::ffff:192.0.2.1: a text that begins with a colon must be in quotes (write "::ffff:192.0.2.1")`}},
		{"a text that begins with what YAML keeps", "hosts:\n  a: {user: @root}\n", []string{
			"fleet.yml:2:13: a text cannot begin with @ (put it in quotes)"}},
		{"a quote that is not closed", "hosts:\n  a: {user: \"root}\n", []string{
			"fleet.yml:2:13: not readable as YAML: found unexpected end of stream (is a quote not closed?)"}},
		{"a playbook", "- hosts: all\n  tasks: []\n", []string{
			"fleet.yml:1:1: this looks like an Ansible playbook (an inventory of vsfleet has hosts, groups, images and guests at its top, as in docs/inventory.md)"}},
		{"a private key", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", []string{
			"fleet.yml:1:1: this is a key or a certificate, not an inventory (name a private key with --identity)"}},
		{"a text of several lines", "BEGIN PRIVATE KEY\n  " + strings.Repeat("secret", 40) + "\n", []string{
			"fleet.yml:1:1: an inventory: want a mapping with hosts, groups, images and guests, have \"BEGIN PRIVATE KEY " + strings.Repeat("secret", 7) + "…\""}},
		{"an anchor that is not there", "hosts:\n  a: *b\n", []string{
			"fleet.yml:2:6: not readable as YAML: unknown anchor 'b' referenced"}},

		{"a second document that is no YAML", "hosts: {a: {}}\n---\nb: [\n", []string{
			"fleet.yml:3:1: not readable as YAML: did not find expected node content"}},

		// Keys.
		{"an unknown key", "hosts:\n  a: {adress: 192.0.2.1}\n", []string{
			`fleet.yml:2:7: unknown key "adress" (did you mean "address"?)`}},
		{"an unknown key like no other", "images: {deb: {method: template, args: [-t, x], zzz: 1}}\n", []string{
			`fleet.yml:1:49: unknown key "zzz" (known here: args, build_on, digest, files, method, packages, shadowed, update)`}},
		{"an unknown key at the top", "host: {}\n", []string{
			`fleet.yml:1:1: unknown key "host" (did you mean "hosts"?)`}},
		{"a key in capitals", "Hosts: {}\n", []string{
			`fleet.yml:1:1: unknown key "Hosts" (did you mean "hosts"?)`}},
		{"a duplicate key", "hosts:\n  a: {port: 1, port: 2}\n", []string{
			`fleet.yml:2:16: duplicate key "port", first at fleet.yml:2:7`}},
		{"a duplicate host", "hosts:\n  a: {}\n  a: {}\n", []string{
			`fleet.yml:3:3: duplicate key "a", first at fleet.yml:2:3`}},
		{"a key that is a list", "hosts: {[a]: {}}\n", []string{
			"fleet.yml:1:9: a key must be text"}},
		{"a tag of another program", "hosts: {a: {user: !vault x}}\n", []string{
			"fleet.yml:1:19: user: want a user's name, have the tag !vault"}},
		{"all errors of a file, in its order", "hosts:\n  a: {prt: 1, become: maybe}\n  b: {address: 1.2.3}\nimages:\n  i: {method: magic}\nfoo: 1\n", []string{
			`fleet.yml:2:7: unknown key "prt" (did you mean "port"?)`,
			`fleet.yml:2:23: become: want true or false, have "maybe"`,
			`fleet.yml:3:16: address: want an IP address or a DNS name, have "1.2.3"`,
			`fleet.yml:5:15: method: there is no "magic", want debootstrap, dnf, yum, skeleton, template, rsync, clone, host or oci`,
			`fleet.yml:6:1: unknown key "foo" (known here: groups, guests, hosts, images, labels, rollout, ssh, vars)`}},

		// Hosts.
		{"a range and a name for one host", "hosts:\n  web02: {}\n  web[01:03]: {}\n", []string{
			`fleet.yml:3:3: host "web02" is defined twice, first at fleet.yml:2:3`}},
		{"ranges of different lengths", "hosts:\n  web[01:03]: {address: \"192.0.2.[1:4]\"}\n", []string{
			"fleet.yml:2:25: address: web[01:03] is 3 hosts, but 192.0.2.[1:4] is 4 addresses"}},
		{"a range of hosts at one address", "hosts:\n  web[1:3]: {address: 192.0.2.1}\n", []string{
			"fleet.yml:2:23: address: web[1:3] is 3 hosts, which cannot have the one address 192.0.2.1 (give it a range of 3, as 203.0.113.[11-13], or a variable, as ${host.name}.example.net)"}},
		{"a range that is none", "hosts:\n  web[1-x]: {}\n", []string{
			"fleet.yml:2:3: host [1-x]: want numbers and ranges, as 01-10,17 or 0-20/5, or letters, as a:f"}},
		{"digits that could be one number or several", "hosts:\n  web[12]: {}\n", []string{
			"fleet.yml:2:3: host [12] could be the number 12 or any of its digits: write the number without brackets, or [1,2]"}},
		{"a range backwards", "hosts:\n  web[3:1]: {}\n", []string{
			"fleet.yml:2:3: host [3:1]: it ends before it begins"}},
		{"a host's name", "hosts:\n  a/b: {}\n", []string{
			`fleet.yml:2:3: host "a/b" is no name: want a letter or digit, then up to 252 letters, digits, _ . -`}},
		{"a host named all", "hosts:\n  all: {}\n", []string{
			`fleet.yml:2:3: "all" means every host (name it otherwise)`}},
		{"a port in the address", "hosts:\n  a: {address: \"a.example.net:2222\"}\n", []string{
			`fleet.yml:2:16: address: want an IP address or a DNS name, have "a.example.net:2222" (write address: a.example.net, port: 2222)`}},
		{"a port out of range", "hosts:\n  a: {port: 65536}\n", []string{
			`fleet.yml:2:13: port: want a number from 1 to 65535, have "65536"`}},
		{"two hosts at one address and port", "hosts:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.1}\n  c: {address: 192.0.2.1, port: 2222}\n", []string{
			"fleet.yml:3:16: hosts a and b are both at 192.0.2.1 port 22, first at fleet.yml:2:3"}},
		{"a setting beside and in a host's ssh", "hosts:\n  a: {user: root, ssh: {user: admin}}\n", []string{
			"fleet.yml:2:31: user is given twice, first at fleet.yml:2:13"}},
		{"an option for a user", "ssh: {user: -oProxyCommand=x}\n", []string{
			`fleet.yml:1:13: user: want a user's name, have "-oProxyCommand=x"`}},
		{"a range in an address that is none", "hosts: {a: {address: \"192.0.2.[1-]\"}}\n", []string{
			"fleet.yml:1:22: address: [1-]: want numbers and ranges, as 01-10,17 or 0-20/5, or letters, as a:f"}},
		{"a list for a number", "hosts: {a: {port: [22]}}\n", []string{
			"fleet.yml:1:19: port: want a number from 1 to 65535, have a list"}},
		{"what is no mapping to merge", "hosts: {a: {<<: b}}\n", []string{
			`fleet.yml:1:17: <<: want a mapping or a list of mappings to merge, have "b"`}},
		{"yes for a truth value", "hosts: {a: {become: yes}}\n", []string{
			`fleet.yml:1:21: become: want true or false, have "yes"`}},
		{"a list for a text", "hosts: {a: {address: [192.0.2.1]}}\n", []string{
			"fleet.yml:1:22: address: want an IP address or a DNS name, have a list"}},
		{"nothing for a text", "hosts: {a: {address: }}\n", []string{
			"fleet.yml:1:22: address: want an IP address or a DNS name, have nothing"}},
		{"an empty text", "hosts: {a: {address: \"\"}}\n", []string{
			"fleet.yml:1:22: address: want an IP address or a DNS name, have an empty text"}},
		{"a text for a host", "hosts:\n  a: 192.0.2.1\n", []string{
			`fleet.yml:2:6: host a: want a mapping, as {address: 203.0.113.11}, have "192.0.2.1"`}},
		{"a list of hosts", "hosts: [a, b]\n", []string{
			"fleet.yml:1:8: hosts: want a mapping of hosts, as {web01: {address: 203.0.113.11}}, have a list"}},
		{"a label no selector can name", "hosts: {a: {labels: {site: \"a,b\"}}}\n", []string{
			`fleet.yml:1:28: labels: site has the value "a,b": want 1 to 63 letters, digits, _ . -`}},
		{"a label's name", "hosts: {a: {labels: {\"a b\": c}}}\n", []string{
			`fleet.yml:1:22: labels: "a b" is no name: want a letter or digit, then up to 62 letters, digits, _ . -`}},
		{"a variable in a variable", "hosts: {a: {vars: {x: \"${host.name}\"}}}\n", []string{
			"fleet.yml:1:23: vars: x holds ${, but a variable's value is not expanded"}},
		{"a device's name", "hosts: {a: {netdev: ethernet/0}}\n", []string{
			"fleet.yml:1:21: netdev: want a network device of at most 15 letters, as eth0"}},

		// Groups.
		{"an unknown host in a group", "hosts: {web01: {}}\ngroups:\n  web: {hosts: [wbe01]}\n", []string{
			`fleet.yml:3:17: no host or group matches "wbe01" (did you mean "web01"?)`}},
		{"a group's name", "hosts: {h: {}}\ngroups:\n  a/b: {hosts: h}\n", []string{
			`fleet.yml:3:3: group "a/b" is no name: want a letter or digit, then up to 62 letters, digits, _ . -`}},
		{"a mapping of a group's hosts, as in Ansible", "hosts: {h: {}}\ngroups:\n  g: {hosts: {h: }}\n", []string{
			`fleet.yml:3:14: hosts: want a pattern or a list of them, as "web*" or [web01, "db[1:3]"], have a mapping`}},
		{"an unknown child", "hosts: {web01: {}}\ngroups:\n  web: {hosts: web01}\n  eu: {children: [wbe]}\n", []string{
			`fleet.yml:4:19: children: there is no group "wbe" (did you mean "web"?)`}},
		{"a group among a group's hosts", "hosts: {web01: {}}\ngroups:\n  web: {hosts: web01}\n  eu: {hosts: [web]}\n", []string{
			`fleet.yml:4:16: "web" is a group, not a host (groups in a group are its children: [web])`}},
		{"a group among its own children", "hosts: {h: {}}\ngroups:\n  a: {children: [b]}\n  b: {children: [c]}\n  c: {hosts: h, children: [a]}\n", []string{
			`fleet.yml:3:3: group "a" is among its own children`}},
		{"a group with the name of a host", "hosts: {web: {}}\ngroups:\n  web: {hosts: web}\n", []string{
			`fleet.yml:3:3: group "web" has the name of the host at fleet.yml:1:9 (a pattern could mean either)`}},
		{"a guest on a group that is wrong", base + "  www: {on: web, image: deb}\ngroups:\n  web: {hosts: h3}\n", []string{
			`fleet.yml:4:13: group "web" has no hosts`,
			`fleet.yml:6:16: no host or group matches "h3" (did you mean "h1"?)`}},
		{"a group without hosts", "hosts: {h: {}}\ngroups:\n  web: {vars: {a: b}}\n", []string{
			`fleet.yml:3:3: group "web" has no hosts (give it hosts or children)`}},
		{"a group named all", "hosts: {h: {}}\ngroups:\n  all: {hosts: h}\n", []string{
			`fleet.yml:3:3: "all" means every host (put labels, vars and ssh of all hosts at the top of the file, or name it otherwise and give it hosts: "*")`}},
		{"a file of hosts in an inventory", "hosts: {h: {}}\ngroups:\n  a: {hosts: \"@list\"}\n", []string{
			`fleet.yml:3:14: pattern "@list": a file of hosts is read from the command line only`}},

		// Images.
		{"an unknown method", "images:\n  deb: {method: deboostrap}\n", []string{
			`fleet.yml:2:17: method: there is no "deboostrap", want debootstrap, dnf, yum, skeleton, template, rsync, clone, host or oci (did you mean "debootstrap"?)`}},
		{"an image's name", "images:\n  a/b: {method: template, args: [-t, /srv/box.tar]}\n", []string{
			`fleet.yml:2:3: image "a/b" is no name: want a letter or digit, then up to 62 letters, digits, _ . -`}},
		{"an image without a method", "images:\n  deb: {}\n", []string{
			`fleet.yml:2:3: image "deb" has no method (give it method: debootstrap, dnf, yum, skeleton, template, rsync, clone, host or oci)`}},
		{"a text for a list", "images:\n  deb: {method: template, args: -d}\n", []string{
			`fleet.yml:2:33: args: want a list of the method's arguments, as [-d, bookworm], have "-d"`}},
		{"an option for a package", "images:\n  deb: {method: debootstrap, args: [-d, x], packages: [-y]}\n", []string{
			`fleet.yml:2:56: packages: "-y" is no package`}},
		{"a distribution without its option", "images:\n  deb: {method: debootstrap, args: [bookworm]}\n", []string{
			`fleet.yml:2:3: image "deb" does not say which distribution (as in args: [-d, bookworm])`}},
		{"a template without an archive", "images:\n  deb: {method: template}\n", []string{
			`fleet.yml:2:3: image "deb" does not say which archive (as in args: [-t, /srv/box.tar.zst])`}},
		{"packages for a template", "images:\n  deb: {method: template, args: [-t, x], packages: [nginx]}\n", []string{
			`fleet.yml:2:53: image "deb" is built by template, which takes no packages (put them into what it copies, or use debootstrap or dnf)`}},
		{"a method of util-vserver that is not offered", "images:\n  deb: {method: rpm}\n", []string{
			`fleet.yml:2:17: method: rpm is not offered: it installed lists of packages without what they depend on (use dnf, which takes packages by name)`}},
		{"a host's root of any host", "images:\n  own: {method: host}\n", []string{
			`fleet.yml:2:3: image "own" copies the root of the host that builds it: name that host (as in build_on: web01)`}},
		{"a clone of nobody", "images:\n  c: {method: clone, args: [-x, /srv, --, -s]}\n", []string{
			`fleet.yml:2:3: image "c" does not say which guest (as in args: [-s, www])`}},
		{"a digest that is none", "images:\n  deb: {method: template, args: [-t, /srv/box.tar], digest: sha256:12}\n", []string{
			`fleet.yml:2:61: digest "sha256:12": want sha256: and 64 hexadecimal digits (vsfleet image list -o json shows it)`}},
		{"an unknown builder", "hosts: {h1: {}}\nimages:\n  deb: {method: template, args: [-t, /srv/box.tar], build_on: h2}\n", []string{
			`fleet.yml:3:63: no host or group matches "h2" (did you mean "h1"?)`}},

		// Guests.
		{"a guest's name", base + "  _www: {on: h1, image: deb}\n", []string{
			`fleet.yml:4:3: guest "_www" is no name: want a letter or digit, then up to 62 letters, digits, _ . -`}},
		{"a guest without on and image", base + "  www: {}\n", []string{
			`fleet.yml:4:3: guest "www" has no image`,
			`fleet.yml:4:3: guest "www" has no on (say on which hosts it is, as on: "web*")`}},
		{"an unknown host", base + "  www: {on: h3, image: deb}\n", []string{
			`fleet.yml:4:13: no host or group matches "h3" (did you mean "h1"?)`}},
		{"an unknown image", base + "  www: {on: h1, image: dep}\n", []string{
			`fleet.yml:4:24: image: there is no image "dep" (did you mean "deb"?)`}},
		{"a glob that matches nothing", base + "  www: {on: \"web*\", image: deb}\n", []string{
			`fleet.yml:4:13: no host or group matches "web*"`}},
		{"an unknown state", base + "  www: {on: h1, image: deb, state: runing}\n", []string{
			`fleet.yml:4:36: state: there is no "runing", want running, stopped or absent (did you mean "running"?)`}},
		{"an unknown init", base + "  www: {on: h1, image: deb, init: plian}\n", []string{
			`fleet.yml:4:35: init: want plain, sysv, openrc or {command: [/usr/sbin/sshd, -D]}, have "plian" (did you mean "plain"?)`}},
		{"an empty command", base + "  www: {on: h1, image: deb, init: {command: []}}\n", []string{
			"fleet.yml:4:35: init: the command is empty, want plain, sysv, openrc or {command: [/usr/sbin/sshd, -D]}"}},
		{"a command as one text", base + "  www: {on: h1, image: deb, init: {command: sshd -D}}\n", []string{
			"fleet.yml:4:35: init: the command is empty, want plain, sysv, openrc or {command: [/usr/sbin/sshd, -D]}",
			`fleet.yml:4:45: command: want a list of words, as [/usr/sbin/sshd, -D], have "sshd -D"`}},
		{"a zero byte in a command", base + "  www: {on: h1, image: deb, init: {command: [\"a\\0\"]}}\n", []string{
			`fleet.yml:4:46: init: "a\x00" holds a zero byte, which no argument can`}},
		{"a hostname", base + "  www: {on: h1, image: deb, hostname: a/b}\n", []string{
			`fleet.yml:4:39: hostname: want at most 64 letters, digits, _ . -, have "a/b"`}},
		{"nice beyond what the kernel has", base + "  www: {on: h1, image: deb, nice: 20}\n", []string{
			`fleet.yml:4:35: nice: want a number from -20 to 19, have "20"`}},
		{"nice in octal", base + "  www: {on: h1, image: deb, nice: 010}\n", []string{
			`fleet.yml:4:35: nice: want a number from -20 to 19, have "010"`}},
		{"a memory limit in a wrong unit", base + "  www: {on: h1, image: deb, limits: {memory: 512MB}}\n", []string{
			`fleet.yml:4:46: memory: want a size of at least 1M, as 512M or 2G, have "512MB"`}},
		{"a memory limit without a unit", base + "  www: {on: h1, image: deb, limits: {memory: 512}}\n", []string{
			`fleet.yml:4:46: memory: want a size of at least 1M, as 512M or 2G, have "512"`}},
		{"a soft limit of memory above the hard one", base + "  www: {on: h1, image: deb, limits: {memory: 100M, memory_high: 200M}}\n", []string{
			"fleet.yml:4:3: guest www: memory_high, from which it is slowed down, is above memory, which it never exceeds: give less than 100 MiB"}},
		{"a cpu limit of nothing", base + "  www: {on: h1, image: deb, limits: {cpu: 0}}\n", []string{
			`fleet.yml:4:43: cpu: want a number of cores from 0.01 to 8192, as 1.5, have "0"`}},
		{"a cpu limit that is no number", base + "  www: {on: h1, image: deb, limits: {cpu: .nan}}\n", []string{
			`fleet.yml:4:43: cpu: want a number of cores from 0.01 to 8192, as 1.5, have ".nan"`}},
		{"a process limit below one", base + "  www: {on: h1, image: deb, limits: {processes: -1}}\n", []string{
			`fleet.yml:4:49: processes: want a number from 1 to 4194304, have "-1"`}},

		// Contexts.
		{"a context too small", base + "  www: {on: h1, image: deb, context: 1}\n", []string{
			`fleet.yml:4:38: context: want a number from 2 to 49151, have "1"`}},
		{"a context too large", base + "  www: {on: h1, image: deb, context: 49152}\n", []string{
			`fleet.yml:4:38: context: want a number from 2 to 49151, have "49152"`}},
		{"the host's context", base + "  www: {on: h1, image: deb, context: 0}\n", []string{
			`fleet.yml:4:38: context: want a number from 2 to 49151, have "0" (leave context out to let the host choose)`}},
		{"a context that some read as octal", base + "  www: {on: h1, image: deb, context: 0120}\n", []string{
			`fleet.yml:4:38: context: want a number from 2 to 49151, have "0120"`}},
		{"a context twice on several hosts", base + "  www: {on: all, image: deb, context: 120}\n  mail: {on: all, image: deb, context: 120}\n", []string{
			"fleet.yml:5:40: context 120 is already guest www's, at fleet.yml:4:39, on h1 and 1 more host"}},

		{"a context twice on many hosts", "hosts: {\"h[1:4]\": {}}\nimages: {deb: {method: template, args: [-t, /srv/box.tar]}}\nguests:\n  www: {on: all, image: deb, context: 120}\n  mail: {on: all, image: deb, context: 120}\n", []string{
			"fleet.yml:5:40: context 120 is already guest www's, at fleet.yml:4:39, on h1 and 3 more hosts"}},

		// Networks.
		{"an unknown mode", base + "  www: {on: h1, image: deb, network: {mode: shard}}\n", []string{
			`fleet.yml:4:45: mode: there is no "shard", want shared, own or nat (did you mean "shared"?)`}},
		{"a list of modes", base + "  www: {on: h1, image: deb, network: {mode: [nat], forward: [\"1:2\"]}}\n", []string{
			"fleet.yml:4:45: mode: want shared, own or nat, have a list"}},
		{"a number for ports", base + "  www: {on: h1, image: deb, network: {ports: 80}}\n", []string{
			`fleet.yml:4:46: ports: want a list of ports, as [80/tcp, 443/tcp], have "80"`}},
		{"a port that is none", base + "  www: {on: h1, image: deb, network: {ports: [80/tpc, 0]}}\n", []string{
			`fleet.yml:4:47: ports: port "80/tpc": protocol is "tpc", want tcp or udp`,
			`fleet.yml:4:55: ports: port "0": "0" is not a port number from 1 to 65535`}},
		{"metadata that is half allowed", base + "  www: {on: h1, image: deb, network: {metadata: alow}}\n", []string{
			`fleet.yml:4:49: metadata: there is no "alow", want allow or refuse (did you mean "allow"?)`}},
		{"raw sockets in the host's network", base + "  www: {on: h1, image: deb, network: {mode: own, address: 192.0.2.1/24, raw: true}}\n", []string{
			"fleet.yml:4:73: network: raw makes no sense in mode own (raw belongs to mode: nat, where a guest has a network of its own; raw and packet sockets would be the host's elsewhere)"}},
		{"a forward in mode shared", base + "  www: {on: h1, image: deb, network: {mode: shared, forward: [\"1:2\"]}}\n", []string{
			"fleet.yml:4:53: network: forward makes no sense in mode shared (forward belongs to mode: nat)"}},
		{"ports in mode nat", base + "  www: {on: h1, image: deb, network: {mode: nat, ports: [80]}}\n", []string{
			"fleet.yml:4:50: network: ports makes no sense in mode nat (ports belongs to mode: shared)"}},
		{"a device in mode shared", base + "  www: {on: h1, image: deb, network: {dev: eth0}}\n", []string{
			"fleet.yml:4:39: network: dev makes no sense in mode shared (dev belongs to mode: own)"}},
		{"the host's address in mode own", base + "  www: {on: h1, image: deb, network: {mode: own, address: host}}\n", []string{
			`fleet.yml:4:59: address: want an address with its prefix, as 192.0.2.10/24, have "host"`}},
		{"mode own without an address", base + "  www: {on: h1, image: deb, network: {mode: own}}\n", []string{
			"fleet.yml:4:38: network: mode own has no address (give it addresses: [192.0.2.10/24])"}},
		{"mode own with no addresses", base + "  www: {on: h1, image: deb, network: {mode: own, addresses: []}}\n", []string{
			"fleet.yml:4:38: network: mode own has no address (give it addresses: [192.0.2.10/24])"}},
		{"an own address without a prefix", base + "  www: {on: h1, image: deb, network: {mode: own, address: 192.0.2.10}}\n", []string{
			"fleet.yml:4:59: address: 192.0.2.10 has no prefix, which goes onto the device (write 192.0.2.10/24, or the length that your network has)"}},
		{"the address of a network", base + "  www: {on: h1, image: deb, network: {mode: own, address: 192.0.2.0/24}}\n", []string{
			"fleet.yml:4:59: address: 192.0.2.0/24 is the address of a whole network, not of a machine in it"}},
		{"a broadcast address", base + "  www: {on: h1, image: deb, network: {mode: own, address: 192.0.2.127/25}}\n", []string{
			"fleet.yml:4:59: address: 192.0.2.127/25 is the address of a whole network, not of a machine in it"}},
		{"an IPv4 address in IPv6 form", base + "  www: {on: h1, image: deb, network: {mode: own, address: \"::ffff:192.0.2.2/128\"}}\n", []string{
			"fleet.yml:4:59: address: ::ffff:192.0.2.2/128 is an IPv4 address in IPv6 form, write it as 192.0.2.2"}},
		{"a loopback address", base + "  www: {on: h1, image: deb, network: {address: 127.0.0.1}}\n", []string{
			"fleet.yml:4:48: address: 127.0.0.1 is no address that a machine can have"}},
		{"a bad address", base + "  www: {on: h1, image: deb, network: {address: 192.0.2.256}}\n", []string{
			`fleet.yml:4:48: address: want host or an address, as 203.0.113.11, have "192.0.2.256"`}},
		{"an address and addresses", base + "  www: {on: h1, image: deb, network: {address: host, addresses: [192.0.2.2]}}\n", []string{
			"fleet.yml:4:54: network: address and addresses are both given, want one of them"}},
		{"a guest that depends on one of another host", base + "  web: {on: h1, image: deb, network: {mode: nat}, depends: [bd]}\n  db: {on: h1, image: deb, network: {mode: nat}}\n", []string{
			`fleet.yml:4:61: guest web depends on bd, which is no guest on h1 (did you mean "db"?)`}},
		{"guests that depend on each other", base + "  web: {on: h1, image: deb, network: {mode: nat}, depends: [db]}\n  db: {on: h1, image: deb, network: {mode: nat}, depends: [web]}\n", []string{
			"fleet.yml:5:60: guests depend on each other in a circle, db → web → db, on h1"}},
		{"a guest that depends on itself", base + "  web: {on: h1, image: deb, network: {mode: nat}, depends: [web]}\n", []string{
			"fleet.yml:4:61: depends: a guest cannot depend on itself"}},
		{"a restart with a bound that is none", base + "  web: {on: h1, image: deb, network: {mode: nat}, restart: on-failure:5}\n", []string{
			`fleet.yml:4:60: restart: want no, on-failure or always, or with a bound on-failure:5/10m (5 starts within 10 minutes), have "on-failure:5"`}},
		{"a mark that no unit can have", base + "  web: {on: h1, image: deb, network: {mode: nat}, autostart: ../x}\n", []string{
			`fleet.yml:4:62: autostart: want true, false or a mark of letters, digits, _ . -, have "../x"`}},
		{"an address owned twice", base + "  a: {on: h1, image: deb, network: {mode: own, address: 192.0.2.10/24}}\n  b: {on: h1, image: deb, network: {mode: own, addresses: [192.0.2.10/32]}}\n", []string{
			"fleet.yml:5:60: address 192.0.2.10 is already guest a's, at fleet.yml:4:57, on h1"}},
		{"an own address shared by another guest", base + "  b: {on: h1, image: deb, network: {address: 192.0.2.10}}\n  a: {on: h1, image: deb, network: {mode: own, address: 192.0.2.10/24}}\n", []string{
			"fleet.yml:5:57: address 192.0.2.10 is already guest b's, at fleet.yml:4:46, on h1"}},
		{"the host's address owned by a guest", base + "  a: {on: h1, image: deb, network: {mode: own, address: 192.0.2.1/24}}\n", []string{
			"fleet.yml:4:57: address 192.0.2.1 is the host's own on h1 (to share it: network: {mode: shared, address: host})"}},
		{"another host's address owned by a guest", "hosts: {h1: {address: 192.0.2.1}, h2: {address: 192.0.2.2}}\nimages: {deb: {method: debootstrap, args: [-d, bookworm]}}\nguests:\n  a: {on: h1, image: deb, network: {mode: own, address: 192.0.2.2/24}}\n", []string{
			"fleet.yml:4:57: address 192.0.2.2 is host h2's own, on h1"}},
		{"one own address on two hosts", base + "  a: {on: all, image: deb, network: {mode: own, address: 192.0.2.10/24}}\n", []string{
			"fleet.yml:4:58: address 192.0.2.10 is a guest's on h1 already: it can be on one host of a network, on h2 (give each host its own by a variable: ${vars.address})"}},
		{"a port owned twice", base + "  a: {on: all, image: deb, network: {ports: [80/tcp]}}\n  b: {on: h1, image: deb, network: {address: 192.0.2.1, ports: [70-90/tcp]}}\n", []string{
			"fleet.yml:5:65: port 80/tcp is already guest a's, at fleet.yml:4:46, on h1"}},
		{"a port listed twice", base + "  a: {on: h1, image: deb, network: {ports: [80/tcp, 80/udp, 80]}}\n", []string{
			"fleet.yml:4:61: guest a has port 80/tcp twice, first at fleet.yml:4:45, on h1"}},
		{"a port that is forwarded as well", base + "  a: {on: h2, image: deb, network: {ports: [80/tcp]}}\n  b: {on: h2, image: deb, network: {mode: nat, forward: [\"80:8080/tcp\"]}}\n", []string{
			"fleet.yml:5:58: port 80/tcp is already guest a's, at fleet.yml:4:45, on h2"}},
		{"two forwards of one port", base + "  a: {on: h1, image: deb, network: {mode: nat, forward: [\"192.0.2.1:2222:22\"]}}\n  b: {on: h1, image: deb, network: {mode: nat, forward: [\"2222:22/tcp\"]}}\n", []string{
			"fleet.yml:5:58: port 2222/tcp is already guest a's, at fleet.yml:4:58, on h1"}},
		{"the port of the host's sshd", base + "  a: {on: h1, image: deb, network: {mode: nat, forward: [\"22:22/tcp\"]}}\n", []string{
			"fleet.yml:4:58: port 22/tcp is where the host's sshd answers, on h1 (give the guest another port)"}},
		{"a forward on a guest's own address", base + "  a: {on: h1, image: deb, network: {mode: own, address: 192.0.2.10/24}}\n  b: {on: h1, image: deb, network: {mode: nat, forward: [\"192.0.2.10:80:80\"]}}\n", []string{
			"fleet.yml:5:58: address 192.0.2.10 is already guest a's, at fleet.yml:4:57, on h1"}},

		// Variables.
		{"an unknown variable", base + "  www: {on: h1, image: deb, hostname: \"${host.nmae}\"}\n", []string{
			`fleet.yml:4:40: unknown variable ${host.nmae} (did you mean "host.name"?)`}},
		{"a variable with a slip in its beginning", base + "  www: {on: h1, image: deb, hostname: \"${var.domain}\"}\n", []string{
			`fleet.yml:4:40: unknown variable ${var.domain} (did you mean "vars.domain"?)`}},
		{"a variable like no other", base + "  www: {on: h1, image: deb, hostname: \"${x}\"}\n", []string{
			"fleet.yml:4:40: unknown variable ${x} (known are host.name, host.address, host.labels.X, vars.X and in guests guest.name; write $${ for ${ itself)"}},
		{"a variable the host has not", base + "  www: {on: all, image: deb, hostname: \"${vars.domian}\"}\n", []string{
			`fleet.yml:4:41: unknown variable ${vars.domian} on host h1 (did you mean "vars.domain"?)`}},
		{"a label the host has not", base + "  www: {on: h2, image: deb, hostname: \"${host.labels.site}\"}\n", []string{
			"fleet.yml:4:40: unknown variable ${host.labels.site} on host h2 (a default would be ${host.labels.site:-…})"}},
		{"a variable that does not end", base + "  www: {on: h1, image: deb, hostname: \"${host.name\"}\n", []string{
			"fleet.yml:4:40: ${host.name has no } (write $${ for ${ itself)"}},
		{"a value that is bad on one host", base + "  www: {on: h1, image: deb, context: \"${vars.domain}\"}\n", []string{
			`fleet.yml:4:38: context: want a number from 2 to 49151, have "example.net" on host h1`}},
		{"the guest's name in a host's address", "hosts: {a: {address: \"${guest.name}\"}}\n", []string{
			"fleet.yml:1:23: unknown variable ${guest.name} (did you mean \"host.name\"?)"}},
		{"a host's address in itself", "hosts: {a: {address: \"${host.address}\"}}\n", []string{
			"fleet.yml:1:23: unknown variable ${host.address} (known are host.name, host.address, host.labels.X, vars.X and in guests guest.name; write $${ for ${ itself)"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(t, row.text)
			if err == nil {
				t.Fatal("no error")
			}
			if got, want := err.Error(), strings.Join(row.want, "\n"); got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestErrorsAsFindsEachError(t *testing.T) {
	_, err := load(t, "hosts: {a: {prt: 1}}\nimages: {i: {}}\n")
	var first *Error
	if !errors.As(err, &first) {
		t.Fatalf("no *Error in %v", err)
	}
	want := Error{
		Pos: Position{File: "fleet.yml", Line: 1, Column: 13}, Msg: `unknown key "prt"`, Hint: `did you mean "port"?`,
		Excerpt: "    1 | hosts: {a: {prt: 1}}\n      |             ^",
	}
	if *first != want {
		t.Errorf("got %+v, want %+v", *first, want)
	}
	var all *Errors
	if !errors.As(err, &all) || len(all.All) != 2 {
		t.Errorf("not all errors in %v", err)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("fleet.d", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, ".", "fleet.yml", "hosts: {a: {}}\n")
	write(t, ".", "passwd", "root:x:0:0:root:/root:/bin/bash\nlist:x:38:38:Mailing List Manager:/var/list:/bin/sh\n")
	write(t, ".", "binary", "\x7fEL\x00\x01")
	write(t, ".", "program", "#!/bin/sh\n")
	for _, row := range []struct {
		name  string
		paths []string
		want  string
	}{
		{"no file at all", nil, "no inventory is given (name one with -i fleet.yml, or make a practice fleet with: vsfleet lab up)"},
		{"a file that is not there", []string{"flet.yml"}, "flet.yml: there is no such inventory (name another with -i, or make a practice fleet with: vsfleet lab up)"},
		{"an empty directory", []string{"fleet.d"}, "fleet.d: this directory has no inventory in it (files that end in .ini, .cfg, .txt and the like are left out, as in Ansible: name them with -i)"},
		{"a file of passwords", []string{"passwd"}, "passwd:1:1: this does not look like an inventory (an inventory is YAML as in docs/inventory.md, or an Ansible inventory)"},
		{"a file that is no text", []string{"binary"}, "binary:1:1: this is not a UTF-8 text file, so it cannot be an inventory"},
		{"a program that is not executable", []string{"program"}, "program: this is a program, but it is not executable (chmod +x program)"},
		{"one file twice", []string{"fleet.yml", "./fleet.yml"}, "fleet.yml: this inventory is given twice (name it once)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := Load(row.paths...)
			if err == nil || err.Error() != row.want {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
		})
	}
}

func TestSeveralFilesAreOneInventory(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", "hosts.yml", "ssh: {user: root}\nvars: {v: 1}\nhosts: {web01: {address: 192.0.2.1}}\n")
	write(t, ".", "guests.yml", "images: {deb: {method: template, args: [-t, /srv/box.tar]}}\nguests: {www: {on: web01, image: deb}}\n")
	inv, err := Load("guests.yml", "hosts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Hosts) != 1 || len(inv.Hosts[0].Guests) != 1 || inv.Hosts[0].SSH.User != "root" || inv.Image("deb") == nil {
		t.Errorf("got %+v", inv)
	}

	write(t, ".", "more.yml", "ssh: {user: admin}\nvars: {v: 2}\nhosts: {\"web[01:02]\": {}}\ngroups: {g: {hosts: web01}}\nimages: {deb: {method: template, args: [-t, /srv/box.tar]}}\nguests: {www: {on: web01, image: deb}}\n")
	write(t, ".", "last.yml", "groups: {g: {hosts: web01}}\n")
	_, err = Load("hosts.yml", "guests.yml", "more.yml", "last.yml")
	const want = `more.yml:1:13: ssh.user is given twice, first at hosts.yml:1:13
more.yml:2:8: vars.v is given twice, first at hosts.yml:2:8
more.yml:3:9: host "web01" is defined twice, first at hosts.yml:3:9
more.yml:5:10: image "deb" is defined twice, first at guests.yml:1:10
more.yml:6:10: guest "www" is defined twice, first at guests.yml:2:10
last.yml:1:10: group "g" is defined twice, first at more.yml:4:10`
	if err == nil || err.Error() != want {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
}

// The YAML parser names another line or the whole block, and words its errors for
// those who know YAML's grammar.
func TestMistakesInYAMLAreNamedWhereTheyAre(t *testing.T) {
	many := func(format string) string {
		var b strings.Builder
		for i := range 50 {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for _, row := range []struct{ name, text, want string }{
		{"no colon", "hosts:\n  a:\n    address x\n    user: root\n", "3:5: no colon behind address (write address: x)"},
		{"no colon before a block", "hosts\n  a:\n    address: x\n", "1:1: no colon behind hosts (write hosts:)"},
		{"no comma", "hosts:\n  a: {address: x user: root}\n  b: {}\n", "2:18: a comma is missing before this key"},
		{"no comma further on", "hosts:\n  a: {address: x, user: root port: 22}\n", "2:30: a comma is missing before this key"},
		{"a bracket too many", "hosts: {a: {}}}\nguests: {}\n", "1:15: this bracket was not opened"},
		{"a wrong bracket", "hosts:\n  a: {address: x}]\n  b: {}\n", "2:18: this bracket was not opened"},
		{"a bracket that nothing closes, among many lines", "hosts:\n" + many("  h%d: {}\n") + "  bad: {address: x\n" + many("  i%d: {}\n"),
			"52:3: not readable as YAML: did not find expected ',' or '}' (is a { or a [ not closed, or a text with a colon or a comma not in quotes?)"},
		{"a quote that another one closes lines later", "hosts:\n" + many("  h%d: {}\n") + "  bad: {address: \"x}\n" + many("  i%d: {address: \"y\"}\n"), "52:18: this quote is not closed"},
		{"a quote that nothing closes", "hosts:\n  a: {address: \"192.0.2.1}\n  b: {}\n", "2:16: not readable as YAML: found unexpected end of stream (is a quote not closed?)"},
		{"a regular expression in double quotes", "hosts:\n  a: {}\ngroups:\n  g:\n    hosts: \"~web\\d+\"\n", `5:17: a backslash in "…" begins an escape, and this is none (write \\ for \, or put the text in '…')`},
		{"a text behind quotes", "hosts:\r\n  a:\r\n    address: \"x\" y\r\n  b: {}\r\n", "3:18: nothing can stand behind the text in quotes (put all of it in quotes)"},
		{"a star", "hosts:\n  a:\n    address: *.example.net\n  b: {}\n", "3:14: a text cannot begin with * (put it in quotes)"},
		{"an anchor that is nowhere", "hosts:\n  a: {}\n  b: *foo\n  c: {}\n", "3:6: not readable as YAML: unknown anchor 'foo' referenced"},
		{"a tab in the middle of a block", "hosts:\n  a:\n    address: x\n\tuser: root\n", "4:1: a tab: YAML indents with spaces alone"},
		{"a line indented as nothing above", "hosts:\n  a:\n    address: x\n   user: root\n  b: {}\n", "4:4: the indentation of this line fits none of the lines above (indent it as its neighbours)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(t, row.text)
			if err == nil || err.Error() != "fleet.yml:"+row.want {
				t.Errorf("\n got %v\nwant fleet.yml:%s", err, row.want)
			}
		})
	}
}
