package inventory

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/internal/setting"
)

// mustLoad reads a text that is right.
func mustLoad(t testing.TB, text string) *Inventory {
	t.Helper()
	inv, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func (inv *Inventory) mustHost(t testing.TB, name string) *Host {
	t.Helper()
	h := inv.hosts.host(name)
	if h == nil {
		t.Fatalf("no host %s", name)
	}
	return h
}

func (h *Host) mustGuest(t testing.TB, name string) *Guest {
	t.Helper()
	i := slices.IndexFunc(h.Guests, func(g *Guest) bool { return g.Name == name })
	if i < 0 {
		t.Fatalf("no guest %s on %s", name, h.Name)
	}
	return h.Guests[i]
}

// diff compares what matters: not where it was written.
func diff(t *testing.T, got, want any) {
	t.Helper()
	opts := cmp.Options{
		cmpopts.IgnoreTypes(Position{}), cmpopts.IgnoreUnexported(Var{}), cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Errorf("want (-), got (+):\n%s", d)
	}
}

func TestEveryExampleIsRight(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yml")
	if err != nil || len(files) < 3 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			inv, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(inv.Hosts) == 0 {
				t.Error("no hosts")
			}
		})
	}
}

func TestTheExampleOfTheDesign(t *testing.T) {
	inv, err := Load("testdata/fleet.yml")
	if err != nil {
		t.Fatal(err)
	}
	ssh := SSH{User: "root", Identity: "~/.ssh/id_ed25519", Jump: "bastion.example.net"}
	plain := setting.Init{Style: "plain"}
	www := func(host string) *Guest {
		return &Guest{
			Guest: setting.Guest{
				Name: "www", Context: 120, Image: "bookworm", Hostname: "www-" + host + ".example.net",
				Network: setting.Network{Mode: Shared, Ports: []port.Range{{Proto: port.TCP, First: 80, Last: 80}, {Proto: port.TCP, First: 443, Last: 443}}},
				Init:    plain, Limits: setting.Limits{MemoryBytes: 512 << 20, CPUs: 1.5, Processes: 500},
			},
			HostAddress: true, State: Running,
		}
	}
	web := func(name, address string, guests ...*Guest) *Host {
		return &Host{
			Name: name, Address: address, Port: 22, SSH: ssh, Netdev: "eth0",
			Labels: map[string]string{"site": "fra"}, Vars: map[string]Var{"domain": Text("example.net")},
			Groups: []string{"web"}, Guests: guests,
		}
	}
	mail := &Guest{
		Guest: setting.Guest{
			Name: "mail", Context: 125, Image: "bookworm", Hostname: "mail", Init: plain,
			Network: setting.Network{Mode: Shared, Ports: []port.Range{{Proto: port.TCP, First: 25, Last: 25}}},
		},
		HostAddress: true, State: Running,
	}
	build := &Guest{
		Guest: setting.Guest{
			Name: "build", Image: "bookworm", Hostname: "build", Init: plain,
			Network: setting.Network{Mode: NAT, Forwards: []port.Forward{{Host: 2222, Guest: 22, Proto: port.TCP}}},
		},
		State: Running,
	}
	old := &Guest{
		Guest: setting.Guest{
			Name: "old", Image: "bookworm", Hostname: "old", Init: plain,
			Network: setting.Network{Mode: Own, Dev: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}},
		},
		State: Stopped,
	}
	diff(t, inv.Hosts, []*Host{
		web("web01", "203.0.113.11", mail, www("web01")),
		web("web02", "203.0.113.12", www("web02")),
		web("web03", "203.0.113.13", www("web03")),
		{
			Name: "db1", Address: "db1.example.net", Port: 22, SSH: ssh, Become: true,
			Labels: map[string]string{"site": "ber"}, Guests: []*Guest{build, old},
		},
	})
	diff(t, inv.Groups, []*Group{{Name: "web", Hosts: inv.Hosts[:3]}})
	diff(t, inv.Images, []*Image{{Name: "bookworm", Method: "debootstrap", Args: []string{"-d", "bookworm"}, Packages: []string{"openssh-server"}}})

	if got, want := inv.Hosts[1].Pos, (Position{File: "testdata/fleet.yml", Line: 7, Column: 3}); got != want {
		t.Errorf("web02 is at %v, want %v", got, want)
	}
	if got, want := www("").Pos, (Position{}); got != want || inv.Hosts[0].Guests[1].Pos != (Position{File: "testdata/fleet.yml", Line: 14, Column: 3}) {
		t.Errorf("www is at %v", inv.Hosts[0].Guests[1].Pos)
	}
}

func TestTheClosestSettingWins(t *testing.T) {
	inv := mustLoad(t, `
ssh: {user: top, identity: /top, jump: top, known_hosts: /top, port: 1, become: true}
hosts:
  own:    {user: host, identity: /host, jump: host, known_hosts: /host, port: 4, become: false, labels: {l: host}, vars: {v: host}}
  block:  {ssh: {user: host, port: 4}}
  child:  {}
  parent: {}
  none:   {}
groups:
  # In the file's order the child comes first, and by name it comes last.
  z-child: {hosts: [own, block, child], ssh: {user: child}, labels: {l: child}, vars: {v: child}}
  a-parent: {hosts: parent, children: [z-child], ssh: {user: parent, jump: parent}, labels: {l: parent, m: parent}, vars: {v: parent, w: parent}}
  b-side: {hosts: [child], ssh: {user: side}, labels: {m: side}, vars: {w: side}}
`)
	host := func(name string, port int, become bool, ssh SSH, labels, texts map[string]string, groups ...string) *Host {
		vars := map[string]Var{}
		for name, s := range texts {
			vars[name] = Text(s)
		}
		return &Host{Name: name, Address: name, Port: port, SSH: ssh, Become: become, Labels: labels, Vars: vars, Groups: groups}
	}
	type m = map[string]string
	diff(t, inv.Hosts, []*Host{
		host("own", 4, false, SSH{User: "host", Identity: "/host", KnownHosts: "/host", Jump: "host", Port: 4}, m{"l": "host", "m": "parent"}, m{"v": "host", "w": "parent"}, "a-parent", "z-child"),
		host("block", 4, true, SSH{User: "host", Identity: "/top", KnownHosts: "/top", Jump: "parent", Port: 4}, m{"l": "child", "m": "parent"}, m{"v": "child", "w": "parent"}, "a-parent", "z-child"),
		host("child", 1, true, SSH{User: "child", Identity: "/top", KnownHosts: "/top", Jump: "parent", Port: 1}, m{"l": "child", "m": "side"}, m{"v": "child", "w": "side"}, "a-parent", "b-side", "z-child"),
		host("parent", 1, true, SSH{User: "parent", Identity: "/top", KnownHosts: "/top", Jump: "parent", Port: 1}, m{"l": "parent", "m": "parent"}, m{"v": "parent", "w": "parent"}, "a-parent"),
		host("none", 1, true, SSH{User: "top", Identity: "/top", KnownHosts: "/top", Jump: "top", Port: 1}, nil, nil),
	})
	for name, want := range map[string]string{"a-parent": "own block child parent", "b-side": "child", "z-child": "own block child"} {
		i := slices.IndexFunc(inv.Groups, func(g *Group) bool { return g.Name == name })
		if got := hostNames(inv.Groups[i].Hosts); got != want {
			t.Errorf("group %s has %q, want %q", name, got, want)
		}
	}
}

func TestFilesAreRelativeToTheInventory(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	inv, err := Load(write(t, dir, "fleet.yml", "ssh: {identity: keys/id, known_hosts: ~/.ssh/known_hosts}\nhosts: {a: {}, b: {identity: /etc/key}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := inv.Hosts[0].SSH, inv.Hosts[1].SSH
	if a.Identity != filepath.Join(dir, "keys/id") || a.KnownHosts != "~/.ssh/known_hosts" || b.Identity != "/etc/key" {
		t.Errorf("got %+v and %+v", a, b)
	}
}

func TestHowToConnect(t *testing.T) {
	inv := mustLoad(t, `
ssh: {config: none, host_key: strict, become_method: doas, become_user: root}
hosts:
  a: {}
  b: {config: ~/.ssh/fleet, host_key: accept-new, become_method: sudo, port: 22}
`)
	diff(t, inv.Hosts[0].SSH, SSH{Config: "none", HostKey: "strict", BecomeMethod: "doas"})
	diff(t, inv.Hosts[1].SSH, SSH{Config: "~/.ssh/fleet", HostKey: "accept-new", BecomeMethod: "sudo", Port: 22})
	for text, want := range map[string]string{
		"become_user: admin":   `become_user: want root, have "admin" (guests are run by root alone: leave it out)`,
		"become_method: su":    `become_method: want sudo, doas, have "su"`,
		"host_key: accept_new": `host_key: want ask, accept-new, strict, have "accept_new"`,
	} {
		if _, err := load(t, "hosts: {a: {"+text+"}}\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAddressesOfHosts(t *testing.T) {
	inv := mustLoad(t, `
hosts:
  plain: {}
  192.0.2.7: {}
  six: {address: "[2001:db8::0:1]"}
  six[1:2]: {address: "2001:db8::[21:22]"}
  web[01:03].example.net: {address: "web-[a:c].internal"}
  r[1:2]n[1:2]: {address: "10.0.[1:2].[1:2]"}
  db[1:2]: {address: "${host.name}.${host.labels.site}.${vars.domain}", labels: {site: ber}, vars: {domain: example.net}}
`)
	want := map[string]string{
		"plain": "plain", "192.0.2.7": "192.0.2.7", "six": "2001:db8::1", "six1": "2001:db8::21", "six2": "2001:db8::22",
		"web01.example.net": "web-a.internal", "web02.example.net": "web-b.internal", "web03.example.net": "web-c.internal",
		"r1n1": "10.0.1.1", "r1n2": "10.0.1.2", "r2n1": "10.0.2.1", "r2n2": "10.0.2.2",
		"db1": "db1.ber.example.net", "db2": "db2.ber.example.net",
	}
	got := map[string]string{}
	for _, h := range inv.Hosts {
		got[h.Name] = h.Address
	}
	diff(t, got, want)
}

func TestScalarsAreTakenAsTheyAreWritten(t *testing.T) {
	inv := mustLoad(t, "hosts: {a: {labels: {version: 1.10, rack: 007, live: true, day: 2026-11-23}, vars: {empty: \"\", n: 0x10}}}\n")
	diff(t, inv.Hosts[0].Labels, map[string]string{"version": "1.10", "rack": "007", "live": "true", "day": "2026-11-23"})
	diff(t, inv.Hosts[0].Vars, map[string]Var{"empty": Text(""), "n": {Value: int64(16), Text: "0x10"}})
}

func TestAnchorsAliasesAndMerges(t *testing.T) {
	inv := mustLoad(t, `
hosts: {h1: {}, h2: {}}
images: {deb: {method: template, args: [-t, /srv/box.tar]}}
guests:
  a: &a
    on: &both [h1, h2]
    image: deb
    limits: &limits {memory: 512M, cpu: 1}
    state: stopped
  b: {<<: *a, on: h1, state: running}
  c: {on: *both, image: deb, limits: {<<: *limits, cpu: 2}}
  d: {<<: [{hostname: first}, *a, {hostname: second, context: 300}], image: deb}
`)
	h1 := inv.mustHost(t, "h1")
	if b := h1.mustGuest(t, "b"); b.State != Running || b.Limits.MemoryBytes != 512<<20 {
		t.Errorf("b is %+v", b)
	}
	if c := h1.mustGuest(t, "c"); !reflect.DeepEqual(c.Limits, setting.Limits{MemoryBytes: 512 << 20, CPUs: 2}) {
		t.Errorf("c is %+v", c)
	}
	if d := h1.mustGuest(t, "d"); d.Hostname != "first" || d.Context != 300 || d.State != Stopped {
		t.Errorf("d is %+v", d)
	}
	if got := len(inv.mustHost(t, "h2").Guests); got != 3 {
		t.Errorf("h2 has %d guests, want a, c and d", got)
	}
}

func TestALoopOfMergesEnds(t *testing.T) {
	inv := mustLoad(t, "hosts:\n  a: &a {user: x, <<: *a}\n  b: {<<: [*a, *a]}\n")
	if inv.Hosts[1].SSH.User != "x" {
		t.Errorf("b is %+v", inv.Hosts[1])
	}
}

func TestGuests(t *testing.T) {
	const hosts = `
hosts:
  h1: {address: 192.0.2.1, netdev: bond0, labels: {site: fra, octet: 11}, vars: {domain: example.net, st: stopped, image: deb}}
images: {deb: {method: template, args: [-t, /srv/box.tar]}}
guests:
`
	for _, row := range []struct {
		name, guest string
		want        Guest
	}{
		{"with nothing but what it must have", "{on: h1, image: deb}",
			Guest{}},
		{"a network with nothing in it shares the host's address", "{on: h1, image: deb, network: }",
			Guest{}},
		{"every variable", `{on: h1, image: "${vars.image}", hostname: "${guest.name}.${host.name}.${host.labels.site}.${vars.domain}", state: "${vars.st}", init: {command: [/bin/x, "${host.address}", "$${HOME}", "$$${host.name}", $HOME, ""]}}`,
			Guest{Guest: setting.Guest{Hostname: "g.h1.fra.example.net", Init: setting.Init{Style: "command", Command: []string{"/bin/x", "192.0.2.1", "${HOME}", "$${host.name}", "$HOME", ""}}, NoNesting: true}, State: Stopped}},
		{"nesting that is wanted", "{on: h1, image: deb, nesting: true, init: {command: [/bin/x]}}",
			Guest{Guest: setting.Guest{Init: setting.Init{Style: "command", Command: []string{"/bin/x"}}}}},
		{"nesting that is not", "{on: h1, image: deb, nesting: false}",
			Guest{Guest: setting.Guest{NoNesting: true}}},
		{"nice as a variable says", `{on: h1, image: deb, nice: "-${host.labels.octet}"}`,
			Guest{Guest: setting.Guest{Nice: -11}}},
		{"a variable in a number", `{on: h1, image: deb, context: "1${host.labels.octet}", limits: {processes: "${host.labels.octet}0"}}`,
			Guest{Guest: setting.Guest{Context: 111, Limits: setting.Limits{Processes: 110}}}},
		{"the least and the most", "{on: h1, image: deb, context: 49151, limits: {memory: 1M, cpu: 0.01, processes: 1}}",
			Guest{Guest: setting.Guest{Context: 49151, Limits: setting.Limits{MemoryBytes: 1 << 20, CPUs: 0.01, Processes: 1}}}},
		{"shared with an address", "{on: h1, image: deb, network: {mode: shared, address: 192.0.2.5, ports: [80, 53/udp, 8000-8010/tcp]}}",
			Guest{Guest: setting.Guest{Network: setting.Network{Addresses: prefixes("192.0.2.5/32"), Ports: []port.Range{{Proto: "tcp", First: 80, Last: 80}, {Proto: "udp", First: 53, Last: 53}, {Proto: "tcp", First: 8000, Last: 8010}}}}}},
		{"shared with several addresses", `{on: h1, image: deb, network: {addresses: [192.0.2.5, "2001:db8::5"]}}`,
			Guest{Guest: setting.Guest{Network: setting.Network{Addresses: prefixes("192.0.2.5/32", "2001:db8::5/128")}}}},
		{"own on the host's device", `{on: h1, image: deb, network: {mode: own, address: "192.0.2.${host.labels.octet}/24"}}`,
			Guest{Guest: setting.Guest{Network: setting.Network{Mode: Own, Addresses: prefixes("192.0.2.11/24"), Dev: "bond0"}}}},
		{"own on a device of its own, in both families", `{on: h1, image: deb, network: {mode: own, addresses: [192.0.2.10/31, "2001:db8::10/64"], dev: eth1}}`,
			Guest{Guest: setting.Guest{Network: setting.Network{Mode: Own, Addresses: prefixes("192.0.2.10/31", "2001:db8::10/64"), Dev: "eth1"}}}},
		{"nat with forwards", `{on: h1, image: deb, network: {mode: nat, forward: ["2222:22/tcp", "192.0.2.1:53:5353/udp"]}}`,
			Guest{Guest: setting.Guest{Network: setting.Network{Mode: NAT, Forwards: []port.Forward{{Host: 2222, Guest: 22, Proto: "tcp"}, {Addr: netip.MustParseAddr("192.0.2.1"), Host: 53, Guest: 5353, Proto: "udp"}}}}}},
		{"metadata that is allowed", "{on: h1, image: deb, network: {mode: nat, metadata: allow}}",
			Guest{Guest: setting.Guest{Network: setting.Network{Mode: NAT, Metadata: true}}}},
		{"metadata that is refused, as it is without a word", "{on: h1, image: deb, network: {mode: nat, metadata: refuse}}",
			Guest{Guest: setting.Guest{Network: setting.Network{Mode: NAT}}}},
		{"raw sockets in a network of its own", "{on: h1, image: deb, network: {mode: nat, raw: true}}",
			Guest{Guest: setting.Guest{Network: setting.Network{Mode: NAT, Raw: true}}}},
		{"nat without any", "{on: h1, image: deb, network: {mode: nat}}",
			Guest{Guest: setting.Guest{Network: setting.Network{Mode: NAT}}}},
		{"absent", "{on: [h1, all], image: deb, state: absent, init: plain}",
			Guest{State: Absent}},
	} {
		t.Run(row.name, func(t *testing.T) {
			inv := mustLoad(t, hosts+"  g: "+row.guest+"\n")
			want := row.want
			want.Name, want.Image = "g", "deb"
			if want.Hostname == "" {
				want.Hostname = "g"
			}
			if want.State == "" {
				want.State = Running
			}
			if want.Init.Style == "" {
				want.Init.Style = "plain"
			}
			if want.Network.Mode == "" {
				want.Network.Mode = Shared
			}
			want.HostAddress = want.Network.Mode == Shared && want.Network.Addresses == nil
			diff(t, inv.Hosts[0].Guests, []*Guest{&want})
		})
	}
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestKeysForAnchors(t *testing.T) {
	inv := mustLoad(t, "x-web: &web\n  labels: {site: fra}\n  x-note: of the block itself\nhosts:\n  a: {<<: *web, port: 23}\n  x-1: *web\n")
	for i, want := range []string{"a", "x-1"} { // where names are free, x- is a name
		if h := inv.Hosts[i]; h.Name != want || h.Labels["site"] != "fra" {
			t.Errorf("host %s with labels %v", h.Name, h.Labels)
		}
	}
}

func TestWhatGuestsOfOneHostMayShare(t *testing.T) {
	for _, row := range []struct{ name, text string }{
		{"one context on two hosts", "  a: {on: h1, image: deb, context: 5}\n  b: {on: h2, image: deb, context: 5}\n"},
		{"one port of two protocols", "  a: {on: h1, image: deb, network: {ports: [53/tcp]}}\n  b: {on: h1, image: deb, network: {ports: [53/udp]}}\n"},
		{"one port on two addresses", "  a: {on: h1, image: deb, network: {ports: [80]}}\n  b: {on: h1, image: deb, network: {address: 192.0.2.5, ports: [80]}}\n"},
		{"one port on two addresses of a host known by name", "  a: {on: h2, image: deb, network: {ports: [80]}}\n  b: {on: h2, image: deb, network: {address: 192.0.2.5, ports: [80]}}\n"},
		{"one port forwarded on two addresses", "  a: {on: h1, image: deb, network: {mode: nat, forward: [\"192.0.2.1:80:80\"]}}\n  b: {on: h1, image: deb, network: {mode: nat, forward: [\"192.0.2.5:80:80\"]}}\n"},
		{"everything with a guest that is absent", "  a: {on: h1, image: deb, context: 5, network: {ports: [80]}, state: absent}\n  b: {on: h1, image: deb, context: 5, network: {ports: [80]}}\n"},
		{"neighbouring ranges", "  a: {on: h1, image: deb, network: {ports: [80-89]}}\n  b: {on: h1, image: deb, network: {ports: [90-99, 70-79]}}\n"},
		{"one port of the guests behind nat", "  a: {on: h1, image: deb, network: {mode: nat, forward: [\"81:80\"]}}\n  b: {on: h1, image: deb, network: {mode: nat, forward: [\"82:80\"]}}\n"},
		{"the sshd's port on another address", "  a: {on: h1, image: deb, network: {address: 192.0.2.5, ports: [22]}}\n"},
	} {
		t.Run(row.name, func(t *testing.T) { mustLoad(t, base+row.text) })
	}
}

func TestAliasAndJumpOfHosts(t *testing.T) {
	inv := mustLoad(t, `
ssh: {host_key_alias: "${host.name}.example.net", jump: gate}
hosts:
  gate: {address: 10.0.0.1, jump: none}
  web[1-2]: {address: "10.0.1.[1-2]"}
  db: {host_key_alias: "db.${vars.site}", vars: {site: fra}}
`)
	var got []string
	for _, h := range inv.Hosts {
		got = append(got, h.Name+" "+h.SSH.HostKeyAlias+" "+h.SSH.Jump)
	}
	diff(t, got, []string{"gate gate.example.net none", "web1 web1.example.net gate", "web2 web2.example.net gate", "db db.fra gate"})
}

func TestWhereAnImageComesFrom(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	inv, err := load(t, `
hosts: {"web[1:3]": {}, build: {}}
images:
  any: {method: template, args: [-t, /srv/box.tar]}
  one: {method: template, args: [-t, /srv/box.tar], digest: "`+digest+`", build_on: [build, "web[2:3]", web3]}
`)
	if err != nil {
		t.Fatal(err)
	}
	if image := inv.Image("any"); image.Digest != "" || image.Builders != nil {
		t.Errorf("%+v", image)
	}
	var names []string
	for _, h := range inv.Image("one").Builders {
		names = append(names, h.Name)
	}
	diff(t, names, []string{"build", "web2", "web3"})
	diff(t, inv.Image("one").Digest, digest)
}
