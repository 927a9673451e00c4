package plan

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

var (
	bookworm = &inventory.Image{Name: "bookworm", Method: "debootstrap", Args: []string{"-d", "bookworm"}}
	trixie   = &inventory.Image{Name: "trixie", Method: "debootstrap", Args: []string{"-d", "trixie"}}
	older    = &inventory.Image{Name: "bookworm", Method: "debootstrap", Args: []string{"-d", "bookworm", "-s", "old"}}
)

func images(name string) *inventory.Image {
	switch name {
	case "bookworm":
		return bookworm
	case "trixie":
		return trixie
	}
	if strings.HasPrefix(name, "box") {
		return &inventory.Image{Name: name, Method: "template", Args: []string{"-t", "/root/" + name + ".tar"}}
	}
	return nil
}

func built(image *inventory.Image, id string) api.Image {
	return api.Image{ID: "sha256:" + id, Spec: Spec(image), Key: Spec(image).Key()}
}

// www is a guest as the inventory gives it; each row changes what it is about.
func www(change ...func(*inventory.Guest)) *inventory.Guest {
	g := &inventory.Guest{
		Guest: api.Guest{
			Name: "www", Context: 120, Image: "bookworm", Hostname: "www", Init: api.Init{Style: "plain"},
			Network: api.Network{Mode: inventory.Shared, Ports: []port.Range{tcp(80)}},
		},
		HostAddress: true, State: inventory.Running,
	}
	for _, f := range change {
		f(g)
	}
	return g
}

// there returns the state of www on a host where nothing is to be done.
func there(change ...func(*api.GuestState)) api.GuestState {
	g := api.GuestState{Status: api.Running, Guest: api.Guest{
		Name: "www", Context: 120, Image: "sha256:b1", Hostname: "www",
		Network: api.Network{Mode: api.ModeShared, Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.11/32")}, Ports: []port.Range{tcp(80)}},
		Init:    api.Init{Style: "plain"},
	}}
	for _, f := range change {
		f(&g)
	}
	return g
}

func tcp(n uint16) port.Range { return port.Range{Proto: port.TCP, First: n, Last: n} }

func named(name string, context int, ports ...port.Range) func(*inventory.Guest) {
	return func(g *inventory.Guest) { g.Name, g.Hostname, g.Context, g.Network.Ports = name, name, context, ports }
}

func isNamed(name string, context int, ports ...port.Range) func(*api.GuestState) {
	return func(g *api.GuestState) { g.Name, g.Hostname, g.Context, g.Network.Ports = name, name, context, ports }
}

func state(guests ...api.GuestState) api.State {
	return api.State{
		Host: api.Host{
			DefaultAddress: netip.MustParsePrefix("203.0.113.11/24"), DefaultDev: "ens3",
			Controllers: []string{"cpu", "memory", "pids"},
			Methods:     []string{"template", "debootstrap"},
		},
		Images: []api.Image{built(bookworm, "b1")},
		Guests: guests,
	}
}

func TestMake(t *testing.T) {
	tests := []struct {
		name  string
		want  []*inventory.Guest
		state api.State
		steps string // one per line; "--" where earlier steps must be done before
	}{
		{"nothing is wanted and nothing is there", nil, state(), ""},
		{
			"what a guest still runs with is waited for, whatever is configured",
			[]*inventory.Guest{www(named("a", 121, tcp(80))), www(named("b", 122, tcp(81)))},
			state(
				there(isNamed("a", 121, tcp(82))),
				there(isNamed("b", 122, tcp(81)), func(g *api.GuestState) {
					runs := g.Guest
					runs.Network.Ports = []port.Range{tcp(80)}
					g.Runs = &runs
				}),
			),
			`guest.restart b: so that it takes its new configuration
			 --
			 guest.configure a sha256:b1: ports 82/tcp → 80/tcp
			 guest.restart a: so that it takes its new configuration`,
		},
		{
			"what was taken from a running guest is put back", []*inventory.Guest{www()},
			state(there(func(g *api.GuestState) {
				g.Drift = []string{"address 192.0.2.10 is gone from eth0", "device vs120 is down"}
			})),
			`guest.repair www: address 192.0.2.10 is gone from eth0; device vs120 is down`,
		},
		{
			"a restart puts it back as well",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Hostname = "other" })},
			state(there(func(g *api.GuestState) { g.Drift = []string{"address 192.0.2.10 is gone from eth0"} })),
			`guest.configure www sha256:b1: hostname www → other
			 guest.restart www: so that it takes its new configuration`,
		},
		{"what should be there is there", []*inventory.Guest{www()}, state(there()), ""},
		{
			"a guest that is not there is created and started", []*inventory.Guest{www()}, state(),
			`guest.create www sha256:b1: it is not on the host
			 guest.start www: the inventory says running`,
		},
		{
			"a guest that should be stopped is created only",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.State = inventory.Stopped })}, state(),
			`guest.create www sha256:b1: it is not on the host`,
		},
		{
			"a stopped guest that should run is started", []*inventory.Guest{www()},
			state(there(func(g *api.GuestState) { g.Status = api.Stopped })),
			`guest.start www: it is stopped, the inventory says running`,
		},
		{
			"a running guest that should not run is stopped",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.State = inventory.Stopped })}, state(there()),
			`guest.stop www: the inventory says stopped`,
		},
		{
			"a guest that should be absent is deleted",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.State = inventory.Absent })}, state(there()),
			`guest.delete www: the inventory says absent`,
		},
		{
			"a guest that should be absent and is stays so",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.State = inventory.Absent })}, state(), "",
		},
		{
			"a new port is taken at once",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Network.Ports = []port.Range{tcp(80), tcp(443)} })}, state(there()),
			`guest.configure www sha256:b1: ports 80/tcp → 443/tcp, 80/tcp`,
		},
		{
			"a port is given up by a restart, as its listener has to go",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Network.Ports = []port.Range{tcp(443)} })}, state(there()),
			`guest.configure www sha256:b1: ports 80/tcp → 443/tcp
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"limits are taken at once",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Limits.MemoryBytes = 1 << 30 })}, state(there()),
			`guest.configure www sha256:b1: memory none → 1G`,
		},
		{
			"nesting is taken back by a restart",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.NoNesting = true })}, state(there()),
			`guest.configure www sha256:b1: nesting allow → refuse
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"raw sockets are allowed by a restart",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Network.Raw = true })}, state(there()),
			`guest.configure www sha256:b1: raw sockets refuse → allow
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"nice holds at once",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Nice = 5 })}, state(there()),
			`guest.configure www sha256:b1: nice 0 → 5`,
		},
		{
			"metadata is allowed at once",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Network.Metadata = true })}, state(there()),
			`guest.configure www sha256:b1: metadata refuse → allow`,
		},
		{
			"a guest that runs without what it is configured to have is restarted",
			[]*inventory.Guest{www()},
			state(there(func(g *api.GuestState) { runs := g.Guest; runs.Hostname = "old"; g.Runs = &runs })),
			`guest.restart www: so that it takes its new configuration`,
		},
		{
			"a guest that runs without a port that it is configured to have is given it",
			[]*inventory.Guest{www()},
			state(there(func(g *api.GuestState) { runs := g.Guest; runs.Network.Ports = nil; g.Runs = &runs })),
			`guest.configure www sha256:b1: it still runs with ports none → 80/tcp`,
		},
		{
			"a stopped guest is configured and not restarted",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Network.Ports, g.State = nil, inventory.Stopped })},
			state(there(func(g *api.GuestState) { g.Status = api.Stopped })),
			`guest.configure www sha256:b1: ports 80/tcp → none`,
		},
		{
			"the order of ports is no difference",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Network.Ports = []port.Range{tcp(443), tcp(80)} })},
			state(there(func(g *api.GuestState) { g.Network.Ports = []port.Range{tcp(80), tcp(443)} })), "",
		},
		{
			"several differences are one step that names them all",
			[]*inventory.Guest{www(func(g *inventory.Guest) {
				g.Hostname = "web"
				g.Limits = api.Limits{MemoryBytes: 512 << 20, CPUs: 1.5, Processes: 500}
				g.Init = api.Init{Style: "command", Command: []string{"/bin/sh", "-c", "exec nginx"}}
			})}, state(there()),
			`guest.configure www sha256:b1: hostname www → web; init plain → /bin/sh -c "exec nginx"; memory none → 512M; cpu none → 1.5; processes none → 500
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"a share of a core that the kernel keeps in microseconds is no difference",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Limits.CPUs = 0.29 })},
			state(there(func(g *api.GuestState) { g.Limits.CPUs = 0.28999 })), "",
		},
		{
			"defaults that the host leaves out are no difference", []*inventory.Guest{www()},
			state(there(func(g *api.GuestState) { g.Hostname, g.Init.Style = "", "" })), "",
		},
		{
			"a context that the inventory leaves to the host is the host's",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Context = 0 })},
			state(there(func(g *api.GuestState) { g.Context = 40000 })), "",
		},
		{
			"a running guest whose context changes is stopped for it",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Context = 121 })}, state(there()),
			`guest.stop www: its context cannot change while it runs
			 guest.configure www sha256:b1: context 120 → 121
			 guest.start www: the inventory says running`,
		},
		{
			"a configuration that cannot be used is replaced", []*inventory.Guest{www()},
			state(there(func(g *api.GuestState) { g.Problem, g.Network = "interfaces/0/ip: no address", api.Network{} })),
			`guest.configure www sha256:b1: its configuration cannot be used: interfaces/0/ip: no address
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"address: host is the default address, whatever prefix the host gives it", []*inventory.Guest{www()},
			state(there(func(g *api.GuestState) { g.Network.Addresses[0] = netip.MustParsePrefix("203.0.113.11/24") })), "",
		},
		{
			"a guest follows its host to another address", []*inventory.Guest{www()},
			state(there(func(g *api.GuestState) { g.Network.Addresses[0] = netip.MustParsePrefix("203.0.113.99/24") })),
			`guest.configure www sha256:b1: addresses 203.0.113.99 → 203.0.113.11
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"an own address goes onto the device of the default route, with its prefix",
			[]*inventory.Guest{www(own("192.0.2.10/24", ""))},
			state(there(func(g *api.GuestState) {
				g.Network = api.Network{Mode: api.ModeOwn, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/25")}, Dev: "eth0"}
			})),
			`guest.configure www sha256:b1: addresses 192.0.2.10/25 → 192.0.2.10/24; dev eth0 → ens3
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"an image that is not there leaves the guest waiting for it",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Image = "trixie" })}, state(),
			`guest.create www (trixie): it is not on the host
			 guest.start www: the inventory says running`,
		},
		{
			"another image is configured and taken by a restart",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Image = "trixie" })},
			with(state(there()), built(trixie, "t1")),
			`guest.configure www sha256:t1: image bookworm → trixie
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"an image that is made otherwise now is another image", []*inventory.Guest{www()},
			with(state(there(func(g *api.GuestState) { g.Image = "sha256:b0" })), built(older, "b0")),
			`guest.configure www sha256:b1: image bookworm (b0) → bookworm (b1)
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"an image that is made otherwise and not there yet has no digest to show", []*inventory.Guest{www()},
			api.State{
				Host: state().Host, Images: []api.Image{built(older, "b0")},
				Guests: []api.GuestState{there(func(g *api.GuestState) { g.Image = "sha256:b0" })},
			},
			`guest.configure www (bookworm): image bookworm (b0) → bookworm (not there yet)
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"a guest with a root of its own gets the image though it is not there yet",
			[]*inventory.Guest{www(func(g *inventory.Guest) { g.Image = "trixie" })},
			state(there(func(g *api.GuestState) { g.Image = "" })),
			`guest.configure www (trixie): image none → trixie
			 guest.restart www: so that it takes its new configuration`,
		},
		{
			"an image that was built twice alike is as good as its twin", []*inventory.Guest{www()},
			with(state(there(func(g *api.GuestState) { g.Image = "sha256:b2" })), built(bookworm, "b2")), "",
		},
		{
			"a port that moves to another guest is given up first",
			[]*inventory.Guest{www(named("a", 121, tcp(80))), www(named("b", 122, tcp(81)))},
			state(there(isNamed("a", 121, tcp(79))), there(isNamed("b", 122, tcp(80)))),
			`guest.configure b sha256:b1: ports 80/tcp → 81/tcp
			 guest.restart b: so that it takes its new configuration
			 --
			 guest.configure a sha256:b1: ports 79/tcp → 80/tcp
			 guest.restart a: so that it takes its new configuration`,
		},
		{
			"what a deleted guest had is free for a new one after it is gone",
			[]*inventory.Guest{
				www(named("new", 120, tcp(80))),
				www(named("old", 120, tcp(80)), func(g *inventory.Guest) { g.State = inventory.Absent }),
			},
			state(there(isNamed("old", 120, tcp(80)))),
			`guest.delete old: the inventory says absent
			 --
			 guest.create new sha256:b1: it is not on the host
			 guest.start new: the inventory says running`,
		},
		{
			"guests that take nothing from each other wait for nothing",
			[]*inventory.Guest{www(named("a", 121, tcp(81))), www(named("b", 122, tcp(82)))}, state(),
			`guest.create a sha256:b1: it is not on the host
			 guest.start a: the inventory says running
			 guest.create b sha256:b1: it is not on the host
			 guest.start b: the inventory says running`,
		},
		{
			"two guests that swap their ports are left to the host to refuse",
			[]*inventory.Guest{www(named("a", 121, tcp(81))), www(named("b", 122, tcp(80)))},
			state(there(isNamed("a", 121, tcp(80))), there(isNamed("b", 122, tcp(81)))),
			`guest.configure a sha256:b1: ports 80/tcp → 81/tcp
			 guest.restart a: so that it takes its new configuration
			 --
			 guest.configure b sha256:b1: ports 81/tcp → 80/tcp
			 guest.restart b: so that it takes its new configuration`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Make(&inventory.Host{Name: "web01", Guests: tt.want}, tt.state, api.FilesAnswer{}, Rules{Image: images})
			if len(p.Refused) > 0 {
				t.Fatalf("refused: %v", p.Refused)
			}
			if got, want := written(p), lines(tt.steps); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func own(address, dev string) func(*inventory.Guest) {
	return func(g *inventory.Guest) {
		g.Network.Mode, g.HostAddress, g.Network.Ports, g.Network.Dev = inventory.Own, false, nil, dev
		g.Network.Addresses = []netip.Prefix{netip.MustParsePrefix(address)}
	}
}

func with(s api.State, more ...api.Image) api.State {
	s.Images = append(s.Images, more...)
	return s
}

// written gives a plan as lines.
func written(p Plan) []string {
	var list []string
	for i, s := range p.Steps {
		if slices.Contains(p.Cuts, i) {
			list = append(list, "--")
		}
		image := ""
		if s.Guest != nil {
			image = " " + s.Guest.Image
			if key, waits := p.Waits[s.Name]; waits {
				j := slices.IndexFunc(p.images, func(n need) bool { return n.key == key })
				image = " (" + p.images[j].spec.Name + ")"
			}
		}
		list = append(list, fmt.Sprintf("%s %s%s: %s", s.Kind, s.Name, image, s.Why))
	}
	return list
}

func lines(s string) []string {
	var list []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

func TestMakeRefuses(t *testing.T) {
	bare := state(there(func(g *api.GuestState) { g.Name, g.Context = "foreign", 99 }))
	bare.Host = api.Host{}
	tests := []struct {
		name  string
		guest *inventory.Guest
		want  string
	}{
		{
			"limits on a host whose controllers sit on cgroup v1",
			www(own("192.0.2.10/24", "eth0"), func(g *inventory.Guest) { g.Limits = api.Limits{MemoryBytes: 1 << 20, CPUs: 1, Processes: 5} }),
			"the host's cgroup v2 cannot limit memory (controller memory), cpu (controller cpu): boot it with cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1, or take the limit out",
		},
		{
			"the address of a host that has none", www(),
			"it shares the host's address, and the host has none that is not local: give the guest one with network: {address: …}",
		},
		{
			"an own address on a host without a default device", www(own("192.0.2.10/24", "")),
			"its addresses need a network device, and the host has no default route to tell which: give the host a netdev",
		},
		{
			"the context of a guest that is not in the inventory",
			www(own("192.0.2.10/24", "eth0"), func(g *inventory.Guest) { g.Context = 99 }),
			"context 99 is guest foreign's, which is on the host and not in the inventory: give that one state: absent there, or another context",
		},
		{"an image that nobody knows", www(func(g *inventory.Guest) { g.Image = "sid" }), `there is no image "sid"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fine := www(named("fine", 7, tcp(7)), func(g *inventory.Guest) { g.Network.Mode, g.HostAddress, g.Network.Ports = inventory.NAT, false, nil })
			p := Make(&inventory.Host{Guests: []*inventory.Guest{fine, tt.guest}}, bare, api.FilesAnswer{}, Rules{Image: images})
			if len(p.Refused) != 1 || p.Refused[0].Guest != "www" || p.Refused[0].Err.Error() != tt.want {
				t.Errorf("refused %v, want www: %s", p.Refused, tt.want)
			}
			if len(p.Steps) != 2 || p.Steps[0].Name != "fine" {
				t.Errorf("the other guest has the steps %v, want create and start", p.Steps)
			}
		})
	}
}

func TestMakeLeavesUnknownGuestsAlone(t *testing.T) {
	p := Make(&inventory.Host{}, state(there()), api.FilesAnswer{}, Rules{Image: images})
	if len(p.Steps) != 0 || !reflect.DeepEqual(p.Foreign, []string{"www"}) {
		t.Errorf("steps %v, foreign %v, want none and www", p.Steps, p.Foreign)
	}
}

func TestMakeSaysWhatAHostDoesNotHonour(t *testing.T) {
	hook := api.Unread{File: "scripts/pre-start", Why: "hooks are not run"}
	disk := api.Unread{File: "fstab:3", Why: "guests do not mount filesystems of type ext4", Refuses: true}
	for _, row := range []struct {
		name    string
		unread  []api.Unread
		running bool
		refused bool
	}{
		{"what has no effect is said", []api.Unread{hook}, false, false},
		{"what keeps a stopped guest from starting refuses it", []api.Unread{hook, disk}, false, true},
		{"a guest that runs is left as it is", []api.Unread{hook, disk}, true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			have := there()
			have.Status, have.Unread = api.Stopped, row.unread
			if row.running {
				have.Status = api.Running
			}
			p := Make(&inventory.Host{Guests: []*inventory.Guest{www()}}, state(have), api.FilesAnswer{}, Rules{Image: images})
			if row.refused {
				if len(p.Steps) != 0 || len(p.Refused) != 1 || !strings.Contains(p.Refused[0].Err.Error(), "fstab:3: guests do not mount filesystems of type ext4") {
					t.Errorf("steps %v, refused %v", p.Steps, p.Refused)
				}
				return
			}
			if len(p.Refused) != 0 || !reflect.DeepEqual(p.Unread["www"], row.unread) {
				t.Errorf("refused %v, without effect %v", p.Refused, p.Unread)
			}
		})
	}
}
